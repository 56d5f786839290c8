"""Starts the process that traces and compiles a training step for a machine that is not there."""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile

from hap_jax import config as config_lib
from hap_jax.plan import compilers

_MODULE = "hap_jax.plan.child"
_ROOT = pathlib.Path(__file__).parents[2]
_NOISE = ("W0", "I0", "E0", "WARNING:", "*** ")  # how lines of the compilers' logs begin


def analyse(config, sizes, machine, effort, folder=compilers.FOLDER):
  """Runs `step_program.analyse` in a process of its own, with the compiler of a machine.

  Args:
    config: the finalized config.
    sizes: the `DataSizes` that the user knows.
    machine: a `machines.Machine`.
    effort: "none", "planning" or "full".
    folder: the folder of the compilers.
  Raises:
    ValueError: if the configuration does not fit the machine, if there is no compiler for it, or if the
      compiler ended without a result. The message is one line.
  """
  platform = machine.platform if effort != "none" else ""
  found = None
  if platform:
    found = compilers.find(platform, folder)
    if found is None:
      raise ValueError(
        f"no compiler for {machine.name} is installed: run {compilers.install_command(folder)}"
      )
  settings = compilers.settings(platform, found)
  if not platform:
    # The shardings need devices of some kind.
    settings["flags"] += f" --xla_force_host_platform_device_count={machine.count}"
  request = settings | {
    "recorded": config_lib.to_plain(config),
    "sizes": sizes.known(),
    "machine": dataclasses.asdict(machine),
    "effort": effort,
  }
  reply = _ask(request)
  if "error" in reply:
    raise ValueError(reply["error"])
  return reply


def _ask(request):
  """Runs `child` with a request. Returns its reply."""
  with tempfile.TemporaryDirectory() as folder:
    asked, answered = (pathlib.Path(folder, name) for name in ("request.json", "reply.json"))
    asked.write_text(json.dumps(request))
    words = [sys.executable, "-m", _MODULE, str(asked), str(answered)]
    done = subprocess.run(words, cwd=_ROOT, capture_output=True, text=True, errors="replace", check=False)
    if answered.is_file():
      return json.loads(answered.read_text())
  # The last line of a traceback has the error. The last line of a log has the reason why the compiler ended.
  lines = [line for line in done.stderr.splitlines() if line.strip()]
  said = [line for line in lines if not line.startswith(_NOISE)] or lines or ["nothing"]
  machine = request["machine"]["name"]
  raise ValueError(f"the compilation for {machine} ended with status {done.returncode}: {said[-1].strip()}")

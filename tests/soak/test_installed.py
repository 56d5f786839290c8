"""The installed project trains, embeds and predicts from another folder."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import warnings

import numpy as np
import pytest

import hap_jax
from hap_jax.train.preemption import EXIT_INTERRUPTED, EXIT_PREEMPTED
from tests import wheel

DEMO = ("train", "--config=pretrain_demo", "--workdir=run")
# The environment gets nothing from the test session: one device, no checkout, the user's own compilation.
ENV = {
  k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS") and not k.startswith("JAX_")
}


class Installed:
  """An environment with the project, and an empty folder in which its commands run."""

  def __init__(self, folder):
    self.env, self.cwd = folder / "env", folder / "elsewhere"
    self.cwd.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(self.env)], check=True)

  def run(self, program, *words, check=True):
    command = [str(self.env / "bin" / program), *map(str, words)]
    result = subprocess.run(command, cwd=self.cwd, env=ENV, capture_output=True, text=True, check=False)
    assert result.returncode == 0 or not check, result.stdout + result.stderr
    return result

  def pip(self, *words, check=True):
    return self.run("python", "-m", "pip", "--quiet", "--retries=1", *words, check=check)

  def borrow_packages(self):
    """Makes the packages of this test's environment importable, after the environment's own packages."""
    borrowed = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    folder = self.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    with open(f"{folder}/borrowed.pth", "w", encoding="utf-8") as file:
      file.write("\n".join(sorted(borrowed)) + "\n")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """Returns an Installed with the wheel and all of its requirements.

  Without a package index, the requirements are borrowed from this environment. Then a package that
  requirements.txt lacks is not noticed, and a warning says so.
  """
  environment = Installed(tmp_path_factory.mktemp("installed"))
  file = wheel.build(tmp_path_factory.mktemp("build"))
  if environment.pip("download", "--no-deps", "--dest=probe", "absl-py", check=False).returncode == 0:
    environment.pip("install", file)
  else:
    warnings.warn("no package index: the requirements come from this environment", stacklevel=1)
    environment.pip("install", "--no-deps", "--no-index", file)
    environment.borrow_packages()
  return environment


@pytest.mark.soak
def test_the_wheel_trains_embeds_and_predicts_from_another_folder(installed):
  where = "import hap_jax; print(hap_jax.__version__, hap_jax.__file__)"
  version, file = installed.run("python", "-c", where).stdout.split()
  assert version == hap_jax.__version__
  assert file.startswith(str(installed.env))
  installed.run("hap", *DEMO, "--config.total_steps=20")
  rows = [json.loads(line) for line in (installed.cwd / "run/metrics.jsonl").read_text().splitlines()]
  assert rows[-1]["step"] == 20
  assert np.isfinite(rows[-1]["val_ratio"])

  sizes = ("--num_train=8", "--num_val=8", "--num_test=16", "--image_size=64x32")
  installed.run("hap", "prepare", "synthetic", "--out=people", *sizes)
  gallery = installed.cwd / "people/bounding_box_test"
  installed.run("hap", "embed", "run", gallery, "--out=vectors.npz", "--workers=1")
  with np.load(installed.cwd / "vectors.npz") as file:
    assert len(file["feature"]) == len(file["path"]) == len(list(gallery.glob("*.jpg"))) > 0
    assert np.isfinite(file["feature"]).all()
  query = min((installed.cwd / "people/query").glob("*.jpg"))
  installed.run("hap", "predict", "run", query, f"--gallery={gallery}", "--out=found")
  assert {"ranking.json", "ranking.png"} <= {path.name for path in (installed.cwd / "found").iterdir()}


@pytest.mark.soak
def test_signals_stop_the_installed_command_and_it_resumes(installed):
  """A terminal and SLURM send a signal to the whole process group, so also to the worker."""
  for signum, code in ((signal.SIGTERM, EXIT_PREEMPTED), (signal.SIGINT, EXIT_INTERRUPTED)):
    words = ["train", "--config=pretrain_demo", "--workdir=stopped", "--config.log_every=1"]
    words += ["--config.data.workers=1", "--config.data.synthetic.hold_in_memory=False"]
    process = subprocess.Popen(
      [str(installed.env / "bin/hap"), *words],
      cwd=installed.cwd,
      env=ENV,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      start_new_session=True,
    )
    lines, metrics = [], installed.cwd / "stopped/metrics.jsonl"
    before = metrics.read_text() if metrics.exists() else ""
    for line in process.stdout:
      lines.append(line)
      if metrics.exists() and metrics.read_text() != before:
        break
    os.killpg(process.pid, signum)
    lines += process.communicate(timeout=300)[0].splitlines(keepends=True)
    assert process.returncode == code, "".join(lines)
    assert "is saved; to continue, start again with the same --workdir" in lines[-1]
    assert before == "" or any("resuming at step" in line for line in lines)


@pytest.mark.soak
def test_an_editable_install_reads_a_shipped_configuration_from_another_folder(tmp_path):
  source = tmp_path / "checkout"
  source.mkdir()
  environment = Installed(tmp_path)
  environment.borrow_packages()
  environment.pip("install", "--no-deps", "--no-index", wheel.build(source, "build_editable"))
  assert "steps: 2000" in environment.run("hap", "train", "--config=pretrain_demo", "--dry_run").stdout
  where = environment.run("python", "-c", "import hap_jax; print(hap_jax.__file__)").stdout.strip()
  assert where == str(source / "hap_jax/__init__.py")

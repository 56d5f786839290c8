"""Plan a run for a TPU or GPU that you do not have: memory, largest batch, settings, traffic, hours.

With a compiler for the machine, the training step is compiled for it, which takes minutes. Without one, only
the facts that follow from the shapes are printed, with the command line that installs the compilers. Data is
not needed.
"""

import argparse
import functools
import json
import math
import re
import sys

from hap_jax import config as config_lib
from hap_jax import config_values
from hap_jax.cli import _options
from hap_jax.plan import choose, compilers, machines, planner, report
from hap_jax.plan import compile as compiling
from hap_jax.train.outline import DataSizes

_SIZES = {
  "records": "training records, for the duration",
  "persons": "training persons, if the task classifies persons",
  "attributes": "attributes",
  "joints": "joints",
}


def add_arguments(parser):
  parser.add_argument("--config", required=True, metavar="FILE", help="configuration file or shipped name")
  _options.add_settings(parser, set_help="change a key of the configuration, such as batch_size=1024")
  machine = parser.add_mutually_exclusive_group(required=True)
  machine.add_argument("--topology", metavar="KIND:SIZE", help="a TPU slice, such as v5e:4x4")
  machine.add_argument("--device", choices=("h100",), help="a GPU; --devices states the number")
  machine.add_argument(
    "--device_memory_gb", type=_positive, metavar="GB", help="any other device with 10^9 bytes times GB"
  )
  parser.add_argument("--devices", type=_whole, metavar="N", help="number of devices, 1 by default")
  parser.add_argument(
    "--memory_fraction",
    type=_options.share,
    metavar="SHARE",
    help="share of a GPU's memory that jax takes (XLA_PYTHON_CLIENT_MEM_FRACTION); 0.75 by default",
  )
  for name, text in _SIZES.items():
    text = f"number of {text} (default: the published number of the data set, if it is known)"
    parser.add_argument(f"--{name}", type=_whole, metavar="N", help=text)
  parser.add_argument(
    "--images_per_s", type=_positive, metavar="N", help="pictures per second of all devices, for the duration"
  )
  parser.add_argument("--exact", action="store_true", help="decide with full compilations; takes much longer")
  parser.add_argument(
    "--full",
    action="store_true",
    help="compile the recommended step fully; a TPU's compiler estimates its cycles",
  )
  parser.add_argument("--no_compile", action="store_true", help="print only what follows from the shapes")
  parser.add_argument("--json", action="store_true", help="print JSON")


def run(args):
  machine = _machine(args)
  config = read_config(args.config, args.settings)
  can_compile = bool(machine.platform) and not args.no_compile
  if can_compile and compilers.find(machine.platform) is None:
    can_compile = False
    _note(f"no compiler for this machine is installed, so nothing is compiled: {compilers.install_command()}")
  if (args.exact or args.full) and not can_compile:
    raise ValueError("--exact and --full need a compiler: see the line above, or leave them out")
  plan = planner.make_plan(
    config,
    machine,
    functools.partial(_measure, DataSizes(**{name: getattr(args, name) for name in _SIZES}), machine),
    compiles=can_compile,
    is_exact=args.exact,
    is_full=args.full,
    images_per_s=args.images_per_s,
  )
  print(json.dumps(plan, indent=2) if args.json else "\n".join(report.lines(plan)))


def read_config(name, settings):
  """Returns the finalized configuration of a file with the words of --set, for an accelerator."""
  config = config_lib.read_file(name)
  if config.model.dtype == "auto":
    config.model.dtype = "bfloat16"
  config_values.override(config, _options.settings(settings))
  return config_lib.finalize(config)


def _measure(sizes, machine, config, effort):
  """Returns the result of `compile.analyse`. Prints a line if it takes long."""
  if effort != "none":
    words = " ".join(f"{key}={value}" for key, value in choose.settings_of(config).items())
    time = "half a minute to minutes" if effort == "planning" else "several minutes"
    _note(f"compiling for {machine.name}, {words}; takes {time}")
  return compiling.analyse(config, sizes, machine, effort)


def _note(line):
  print(f"plan: {line}", file=sys.stderr, flush=True)


def _machine(args):
  """Returns the `Machine` of the command line.

  Raises:
    ValueError: if the options do not fit together.
  """
  if args.topology:
    for name in ("devices", "memory_fraction"):
      if getattr(args, name) is not None:
        raise ValueError(f"--{name}={getattr(args, name)}: leave it out, because --topology says it")
    return machines.tpu(args.topology)
  share = machines.GPU_SHARE if args.memory_fraction is None else args.memory_fraction
  if args.device:
    return machines.h100(args.devices or 1, share)
  return machines.other(args.devices or 1, args.device_memory_gb, share)


def _whole(text):
  """Parses a whole number of at least 1. It is a type for argparse."""
  if not re.fullmatch(r"[1-9]\d{0,11}", text):
    raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
  return int(text)


def _positive(text):
  """Parses a number above 0. It is a type for argparse."""
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 < value < math.inf:  # NaN fails this comparison, too
    raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
  return value

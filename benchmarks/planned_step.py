"""Compiles a training step for machines that are not there, and prints a line of JSON for each.

    python -m benchmarks.planned_step --topology v5e:1x1 v5p:2x2x1 --batch=64
    python -m benchmarks.planned_step --config=pretrain_l16 --topology v5e:1x1 --efforts planning full

A line has the memory of a device, the collective operations of a step, and, for a TPU and the effort "full",
the cycles that the compiler estimates, by part of the step. The compilers must be installed
(docs/performance.md). A full compilation of B/16 takes two to five CPU minutes.
"""

from benchmarks import measure, workload
from hap_jax import config as config_lib
from hap_jax.cli import _options
from hap_jax.plan import compile as compiling
from hap_jax.plan import compilers, machines, planner
from hap_jax.plan.choose import Trial
from hap_jax.train.outline import NOTHING_KNOWN

EFFORTS = ("full", "planning")


def parse_args(argv=None):
  """Reads the command line."""
  parser = measure.make_parser(__doc__)
  parser.add_argument("--config", default="pretrain_b16", help="a file, or the name of a shipped one")
  parser.add_argument("--topology", nargs="+", default=["v5e:1x1"], metavar="KIND:SIZE", help="or h100")
  parser.add_argument("--efforts", nargs="+", choices=EFFORTS, default=["full"])
  workload.add_settings(parser, batch=64)
  return parser.parse_args(argv)


def make_machine(name):
  """Returns the `Machine` of a TPU topology, or of one "h100"."""
  return machines.h100(1) if name == "h100" else machines.tpu(name)


def measure_one(config, machine, effort):
  """Compiles a step and returns the line to print.

  Args:
    config: the finalized config. --batch is the number of pictures on each device.
    machine: a `machines.Machine`.
    effort: "planning" or "full".
  """
  reply = compiling.analyse(config, NOTHING_KNOWN, machine, effort)
  found = reply["compiled"]
  estimate = planner.per_second(Trial(config, reply, config.batch_size // machine.count, effort), machine)
  line = {
    "target": machine.name,
    "effort": effort,
    **workload.settings(config),
    "mesh": reply["mesh"],
    "device_memory": machine.memory,
    **found,
    "cycles_total": sum(found.get("cycles", {}).values()) or None,
    "images_per_s_per_device": estimate and measure.digits(estimate[0] / machine.count, 4),
    "share_of_peak": estimate and measure.digits(estimate[1], 3),
  }
  packages = [name for name in ("libtpu", "jax-cuda12-plugin") if name in compilers.versions()]
  line["compilers"] = {name: compilers.versions()[name] for name in packages}
  return measure.line("planned_step", line, "jax", "jaxlib", "flax", "optax")


def main(argv=None):
  args = parse_args(argv)
  for name in args.topology:
    machine = make_machine(name)
    defaults = {"model.dtype": "bfloat16", "batch_size": args.batch * machine.count}
    config = workload.changed(config_lib.read_file(args.config), defaults | _options.settings(args.settings))
    for effort in args.efforts:
      measure.show(measure_one(config, machine, effort))


if __name__ == "__main__":
  main()

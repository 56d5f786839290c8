"""Times the whole step of pre-training, prints JSON lines: python -m benchmarks.pretrain_step.

    python -m benchmarks.pretrain_step --size=B --batch=512 --levers scan attention remat_none

The step is the same as in `hap_jax.main`: normalised pixels, random masks, two views through encoder and
decoder, both losses, gradients, AdamW, and the checks and metrics of the loop. The pictures are noise and are
already on the device. A lever is one setting that differs from the base configuration. Each lever gives a
variant, and each variant gives one line. All variants run in turn in every round, on the same state.
"""

import dataclasses
import functools
import itertools
import statistics
from typing import Any

import jax
import numpy as np

from benchmarks import compiled, flops, measure, workload
from hap_jax import run, sharding

# {lever: function(base configuration) that returns the changed keys}. The lever `sampler` changes no key. Its
# variant gets masks as input instead of drawing them.
LEVERS = {
  "scan": lambda config: {"model.scan": not config.model.scan},
  "attention": lambda config: {"model.attention": "xla" if config.model.attention == "cudnn" else "cudnn"},
  "remat_none": lambda config: {"model.remat": "none"},
  "remat_elementwise": lambda config: {"model.remat": "elementwise"},
  "remat_full": lambda config: {"model.remat": "full"},
  "accumulate": lambda config: {"accumulate": 1 if config.accumulate > 1 else 4},
  "blockwise": lambda config: {"align_block": 0 if config.align_block else 256},
  "dtype": lambda config: {"model.dtype": "float32" if config.model.dtype == "bfloat16" else "bfloat16"},
  "one_view": lambda config: {"views": 1, "align_weight": 0.0},
  "sampler": lambda config: {},
}
# {timed part: its share of the FLOPs of a whole step}.
_SHARES = {"step": 1.0, "forward": 1 / 3, "sampler": 0.0}


def add_options(parser):
  """Adds the options --size, --batch, --set, --warmup, --repeats and --steps."""
  parser.add_argument(
    "--size", default="B", choices=("S", "B", "L", "H"), help="reads configs/pretrain_<size>16.py"
  )
  workload.add_settings(parser, batch=8)
  workload.add_repeats(parser)


def parse_args(argv=None):
  """Reads the command line."""
  parser = measure.make_parser(__doc__)
  add_options(parser)
  what = parser.add_mutually_exclusive_group()
  what.add_argument(
    "--forward_only", action="store_true", help="time masks, both views and losses, without gradients"
  )
  what.add_argument("--sampler_only", action="store_true", help="time only the masks of all views")
  parser.add_argument(
    "--levers",
    nargs="*",
    choices=tuple(LEVERS),
    default=[],
    help="variants to time, besides the base configuration",
  )
  args = parser.parse_args(argv)
  args.what = "forward" if args.forward_only else "sampler" if args.sampler_only else "step"
  if args.what == "sampler" and args.levers:
    parser.error(
      "--levers has no effect with --sampler_only, because no lever changes the masks: remove one of the two"
    )
  return args


def make_config(args):
  """Returns the finalized configuration of a command line."""
  return workload.make_config(workload.CONFIGS / f"pretrain_{args.size.lower()}16.py", args)


def switched(base, lever):
  """Returns the finalized configuration of a lever: the base with the lever's setting."""
  return workload.changed(base, LEVERS[lever](base))


def make_batch(config):
  """Returns a NumPy batch of noise with the fields of `tasks.pretrain`. All joints are inside the picture."""
  B, (H, W) = config.batch_size, config.model.image_size
  rng = np.random.default_rng(0)
  return {
    "image": rng.integers(0, 256, (B, H, W, 3), np.uint8),
    "keypoints_xy": rng.uniform(0, (W, H), (B, 17, 2)).astype(np.float32),
    "keypoints_visible": np.ones((B, 17), bool),
    "index": np.arange(B, dtype=np.int32),
    "valid": np.ones(B, bool),
  }


def draw_masks(task, batch, step):
  """Returns the batch with masks for a step, or the unchanged batch if the task draws no masks."""
  return task.prepare({}, batch, key=jax.random.key(step)) if task.prepare else batch


def make_program(task, mesh, what):
  """Returns the `Program` to time.

  Args:
    task: a task of pre-training.
    mesh: mesh from `sharding.make_mesh`.
    what: "step", "forward" (masks, views and losses) or "sampler" (only masks).
  """
  if what == "step":
    return workload.make_step(task, mesh)

  def forward(params, batch, step):
    batch = draw_masks(task, batch, step)
    outputs, _ = task.forward({"params": params}, batch, key=None, train=True)
    return task.loss(outputs, batch, key=None)[0]

  if what == "forward":
    return workload.Program(jax.jit(forward), lambda state, batch, step, _: (state.params, batch, step))
  sample = jax.jit(lambda batch, step: draw_masks(task, batch, step)["mask"])
  return workload.Program(sample, lambda state, batch, step, _: (batch, step))


@dataclasses.dataclass
class Variant:
  """A timed variant of the step.

  Attributes:
    lever: name of the setting that differs from the base, or "base".
    config: finalized configuration.
    program: a `workload.Program`.
    batch: batch on the devices.
    facts: compile times and memory, filled by `compile`.
    recompiles: number of programs that were compiled in timed rounds.
    error: reason why the variant cannot be timed, or "".
  """

  lever: str
  config: Any
  program: workload.Program | None = None
  batch: Any = None
  facts: dict = dataclasses.field(default_factory=dict)
  recompiles: int = 0
  error: str = ""

  def compile(self, training):
    """Compiles the program and records compile times and memory."""
    executable, times = compiled.compile_times(
      self.program.function, *training.arguments(self.program, self.batch)
    )
    self.facts = {**times, "memory_bytes": compiled.memory(executable, self.config.batch_size)}

  def run(self, training, steps):
    """Runs `steps` steps and waits for the last result."""
    return training.run(self.program, itertools.repeat(self.batch), steps)


def make_variant(lever, config, mesh, what):
  """Returns a variant. If it cannot be built, its `error` holds the reason."""
  try:
    task = workload.make_task(config)
    batch = jax.device_put(make_batch(config), sharding.batch_split(mesh))
    if lever == "sampler":
      # The masks are drawn once here. The difference to the base is the time of the mask sampler.
      batch = jax.jit(functools.partial(draw_masks, task))(batch, 0)
      task = dataclasses.replace(task, prepare=None)
    return Variant(lever, config, make_program(task, mesh, what), batch)
  except RuntimeError as error:  # base class of jax's errors in tracing, compiling and running
    return Variant(lever, config, error=_shorten(error))


def _shorten(error):
  return " ".join(str(error).split())[:500]


def try_all(variants, make_training):
  """Compiles every variant and runs it once. If a variant fails, its `error` holds the reason.

  A variant fails, for example, if the device has too little memory.

  Args:
    variants: variants from `make_variant`.
    make_training: function without arguments that returns a new `workload.Training`.
  Returns:
    (the variants that can be timed, a `workload.Training` to time them on).
  """
  training = make_training()
  for variant in variants:
    if variant.error:
      continue
    try:
      variant.compile(training)
      variant.run(training, 1)
    except RuntimeError as error:
      variant.error = _shorten(error)
    if training.state.step.is_deleted():  # the failed step has deleted the state that it got
      del training  # first free the memory, then make a new state
      training = make_training()
  return [variant for variant in variants if not variant.error], training


def time_rounds(variants, training, *, warmup, repeats, steps):
  """Runs all variants in turn. Returns {lever: [(CPU, wall) seconds of a step, ...]}.

  Raises:
    ValueError: if a loss was not finite. A step without update would give a wrong time.
  """
  events = compiled.Events()

  def run_one(variant, number):
    with events.counting():
      variant.run(training, steps)
    variant.recompiles += events.compiled if number >= warmup else 0

  parts = {variant.lever: functools.partial(run_one, variant) for variant in variants}
  times = measure.time_in_turn(parts, warmup=warmup, repeats=repeats, per=steps)
  training.check()
  return times


def make_line(variant, what, times, training, steps):
  """Returns the line to print for a variant.

  Args:
    variant: a `Variant`.
    what: see `make_program`.
    times: {lever: [(CPU seconds, wall seconds) of a step, ...]}.
    training: a `workload.Training`, used to count copies to the host.
    steps: number of steps per round.
  """
  config, packages = variant.config, ("flax", "optax")
  found = {"what": what, "variant": variant.lever, **workload.settings(config)}
  if variant.error:
    return compiled.line("pretrain_step", {**found, "error": variant.error}, *packages)
  times, device = times[variant.lever], compiled.device()
  per_image = flops.of_config(config) * _SHARES[what]
  rate = config.batch_size / statistics.median(wall for _, wall in times)
  found |= {
    "images_per_s": measure.digits(rate, 4),
    **measure.summary(times),
    "gflop_per_image": measure.digits(per_image / 1e9, 4),
    "tflops": measure.digits(rate * per_image / device["count"] / 1e12, 4),
    "mfu": flops.utilisation(rate * per_image / device["count"], device["kind"], config.model.dtype),
    **variant.facts,
    "recompiles_after_step_2": variant.recompiles,
    "host_syncs_per_step": compiled.host_syncs(lambda: variant.run(training, 1), 5),
    "rounds": len(times),
    "steps_a_round": steps,
  }
  return compiled.line("pretrain_step", found, *packages)


def measure_all(base, what="step", levers=(), *, warmup, repeats, steps):
  """Compiles and times the base configuration and one variant per lever. Returns their lines."""
  mesh = run.make_mesh(base)
  configs = {"base": base, **{lever: switched(base, lever) for lever in levers}}
  variants = [make_variant(lever, config, mesh, what) for lever, config in configs.items()]
  task = workload.make_task(base)
  timed, training = try_all(variants, lambda: workload.Training(task, mesh))
  times = time_rounds(timed, training, warmup=warmup, repeats=repeats, steps=steps)
  return [make_line(variant, what, times, training, steps) for variant in variants]


def main(argv=None):
  args = parse_args(argv)
  lines = measure_all(make_config(args), args.what, args.levers, **workload.repeats(args))
  measure.show(*lines)
  if failed := [found["variant"] for found in lines if "error" in found]:
    raise SystemExit(f"error: {', '.join(failed)} cannot be timed here; their printed lines give the reason")


if __name__ == "__main__":
  main()

"""Times the whole step of pre-training, one line of JSON a variant: python -m benchmarks.pretrain_step.

    python -m benchmarks.pretrain_step --size=B --batch=512 --levers scan attention remat_none

The step is that of `hap_jax.main`: pixels normalised, masks drawn, two views through encoder and decoder,
both losses, gradients, AdamW, and the checks and metrics of the loop. Pictures are noise on the device. Each
lever is switched against the base, and all variants take turns in every round, on one and the same state.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import compiled, flops, measure, workload
from hap_jax import run, sharding
from hap_jax.train import state as train_state
from hap_jax.train import step as train_step

# What each lever sets, given the base; `sampler` sets nothing: its masks are given instead of drawn.
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
# Share of a whole step's FLOPs that lies in what is timed.
_SHARES = {"step": 1.0, "forward": 1 / 3, "sampler": 0.0}


def parse_args(argv=None):
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  workload.add_model(parser)
  what = parser.add_mutually_exclusive_group()
  what.add_argument("--forward_only", action="store_true", help="masks, both views and losses; no gradient")
  what.add_argument("--sampler_only", action="store_true", help="the masks of all views alone")
  parser.add_argument("--levers", nargs="*", choices=tuple(LEVERS), default=[], help="each against the base")
  workload.add_repeats(parser)
  args = parser.parse_args(argv)
  args.what = "forward" if args.forward_only else "sampler" if args.sampler_only else "step"
  if args.what == "sampler" and args.levers:
    parser.error("--levers: none of them changes the masks that --sampler_only draws")
  return args


@dataclasses.dataclass
class Variant:
  """One way to compute.

  Attributes:
    lever: what is switched against the base. config: finalized.
    function: jitted. pick: (state, step, progress) -> what it takes.
    keeps_state: the function returns no new state.
    facts: compile times and memory, once compiled. times: [(CPU, wall)] of its rounds.
    recompiles, syncs: of its timed steps. error: why it cannot be timed, or "".
  """

  lever: str
  config: Any
  function: Callable
  pick: Callable
  keeps_state: bool
  facts: dict = dataclasses.field(default_factory=dict)
  times: list = dataclasses.field(default_factory=list)
  recompiles: int = 0
  syncs: float | None = None
  error: str = ""

  def compile(self, state, mesh):
    """Compiles without running and notes what that tells."""
    executable, self.facts = compiled.compile_times(self.function, *self.pick(state, *clock(0, mesh)))
    self.facts["memory_bytes"] = compiled.memory(executable, self.config.batch_size)

  def run(self, state, clock):
    """Runs once, does not wait; returns (state to go on with, result)."""
    result = self.function(*self.pick(state, *clock))
    return (state, result) if self.keeps_state else result


def make_forward(task):
  """Makes (params, batch, step) -> loss of the masks drawn for that step."""

  def forward(params, batch, step):
    batch = task.prepare({}, batch, key=jax.random.key(step)) if task.prepare else batch
    outputs, _ = task.forward({"params": params}, batch, key=None, train=True)
    return task.loss(outputs, batch, key=None)[0]

  return jax.jit(forward)


def make_variant(lever, config, mesh, what):
  """Makes a variant of what is timed: "step", "forward" or "sampler"."""
  task = workload.make_task(config)
  batch = jax.device_put(workload.make_batch(config), sharding.batch_split(mesh))

  def draw(batch, step):
    return task.prepare({}, batch, key=jax.random.key(step))

  if lever == "sampler":
    batch = jax.jit(draw)(batch, 0)
    task = dataclasses.replace(task, prepare=None)
  if what == "step":
    function = train_step.make_train_step(task, mesh, seed=0)
    return Variant(lever, config, function, lambda state, *clock: (state, {}, batch, *clock), False)
  if what == "forward":
    return Variant(
      lever, config, make_forward(task), lambda state, step, _: (state.params, batch, step), True
    )
  sample = jax.jit(lambda batch, step: draw(batch, step)["mask"])
  return Variant(lever, config, sample, lambda state, step, _: (batch, step), True)


def switched(base, lever):
  """Returns the configuration of a lever: the base with the other setting, finalized."""
  return workload.changed(base, LEVERS[lever](base))


def try_variant(lever, config, mesh, what):
  """Makes a variant, or one that says in `error` why it cannot be made here."""
  try:
    return make_variant(lever, config, mesh, what)
  except RuntimeError as error:  # all that jax raises when it traces, compiles and runs
    return Variant(lever, config, None, None, False, error=_told(error))


def make_variants(args, mesh):
  """Makes the base and a variant for each lever."""
  base = workload.make_config(args)
  configs = {"base": base, **{lever: switched(base, lever) for lever in args.levers}}
  return [try_variant(lever, config, mesh, args.what) for lever, config in configs.items()]


def _told(error):
  return " ".join(str(error).split())[:500]


def clock(number, mesh):
  """Puts the number of steps made and the epochs that they are on the devices, as the loop does."""
  return sharding.put_scalar(number, "int32", mesh), sharding.put_scalar(number / 1000, "float32", mesh)


def try_all(variants, make_state, mesh):
  """Compiles every variant and runs it once; notes the error of one that cannot, for want of memory, say.

  Args:
    make_state: () -> a new state: a step that fails has used its own up.
  Returns:
    (the variants that can be timed, a state).
  """
  state = None
  for variant in variants:
    if variant.error:
      continue
    del state  # before there is another
    state = make_state()
    try:
      variant.compile(state, mesh)
      state, result = variant.run(state, clock(0, mesh))
      jax.block_until_ready(result)
    except RuntimeError as error:
      variant.error = _told(error)
  del state
  return [variant for variant in variants if not variant.error], make_state()


def time_rounds(variants, state, mesh, *, warmup, repeats, steps):
  """Runs all variants in turn, `warmup` rounds untimed and `repeats` timed, and fills in what they took.

  Raises:
    ValueError: if a loss was not finite: steps that are not made cannot be timed.
  """
  made, events = 0, compiled.Events()

  def go(variant, count):
    nonlocal state, made
    result = None
    for _ in range(count):
      state, result = variant.run(state, clock(made, mesh))
      made += not variant.keeps_state
    return result

  for number in range(warmup + repeats):
    for variant in variants:
      with events.counting():
        _, *times = measure.timed(go, variant, steps, wait=jax.block_until_ready)
      if number >= warmup:
        variant.times.append([seconds / steps for seconds in times])
        variant.recompiles += events.compiled
      events.compiled = 0
  for variant in variants:
    variant.syncs = compiled.host_syncs(lambda variant=variant: go(variant, 1), 5)
  if int(state.step) != made:
    raise ValueError(f"a loss was not finite after {int(state.step)} of {made} steps: nothing to time")


def line(variant, what, steps):
  """Returns what is printed of a variant."""
  config, device = variant.config, compiled.device()
  about = {"bench": "pretrain_step", "what": what, "variant": variant.lever, **workload.settings(config)}
  where = {
    "device": device,
    "machine": measure.machine(),
    "versions": measure.versions("jax", "jaxlib", "flax", "optax"),
  }
  if variant.error:
    return {**about, "error": variant.error, **where}
  times = measure.summary(variant.times)
  per_image = flops.of_config(config) * _SHARES[what]
  rate = config.batch_size / np.median([wall for _, wall in variant.times])
  return {
    **about,
    "images_per_s": measure.digits(rate, 4),
    **times,
    "gflop_per_image": measure.digits(per_image / 1e9, 4),
    "tflops": measure.digits(rate * per_image / device["count"] / 1e12, 4),
    "mfu": measure.utilisation(rate * per_image / device["count"], device["kind"], config.model.dtype),
    **variant.facts,
    "recompiles_after_step_2": variant.recompiles,
    "host_syncs_per_step": variant.syncs,
    "rounds": len(variant.times),
    "steps_a_round": steps,
    **where,
  }


def measure_all(args):
  """Compiles and times all variants; returns a line of each."""
  warmup, repeats, steps = workload.repeats(args)
  mesh = run.make_mesh(workload.make_config(args))
  variants = make_variants(args, mesh)
  task = workload.make_task(variants[0].config)
  timed, state = try_all(variants, lambda: train_state.create(task, 0, mesh), mesh)
  time_rounds(timed, state, mesh, warmup=warmup, repeats=repeats, steps=steps)
  return [line(variant, args.what, steps) for variant in variants]


def main(argv=None):
  lines = measure_all(parse_args(argv))
  for found in lines:
    print(json.dumps(found))
  if failed := [found["variant"] for found in lines if "error" in found]:
    raise SystemExit(f"error: {', '.join(failed)} cannot be timed here; the lines say why")


if __name__ == "__main__":
  main()

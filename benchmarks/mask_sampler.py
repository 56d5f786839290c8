"""Times the mask sampler and prints one line of JSON: python -m benchmarks.mask_sampler --batch=256."""

import argparse
import dataclasses
import statistics

import jax
import jax.numpy as jnp

from benchmarks import compiled, measure
from hap_jax.masking import sampler


def parse_args(argv=None):
  """Reads the command line."""
  parser = measure.make_parser(__doc__)
  parser.add_argument("--batch", type=int, default=256, help="masks per call")
  parser.add_argument(
    "--grid", type=measure.parse_size, default=(16, 8), metavar="ROWSxCOLUMNS", help="size in patches"
  )
  parser.add_argument("--patch", type=int, default=16, help="side in pixels")
  parser.add_argument("--ratio", type=float, default=0.5, help="share of the patches that are hidden")
  parser.add_argument("--blocks", action=argparse.BooleanOptionalAction, default=True, help="mask blocks")
  parser.add_argument("--parts", action=argparse.BooleanOptionalAction, default=True, help="mask body parts")
  parser.add_argument(
    "--policy",
    choices=("uniform", "released"),
    default="uniform",
    help="rule for the number of masked body parts",
  )
  parser.add_argument(
    "--group",
    type=int,
    default=256,
    help="number of images per group of --policy=released",
  )
  parser.add_argument("--repeats", type=int, default=50, help="timed calls")
  return parser.parse_args(argv)


def make_sample(recipe, policy, group, batch):
  """Returns a function (key, keypoints_xy, keypoints_visible) -> Mask of the batch, as in a training step."""
  draw_num_parts = sampler.num_parts_policy(policy, max_parts=recipe.max_parts, group=group)

  def sample(key, keypoints_xy, keypoints_visible):
    count_key, mask_key = jax.random.split(key)
    num_parts = draw_num_parts(count_key, batch)
    keys = jax.random.split(mask_key, batch)
    return sampler.sample_masks(keys, keypoints_xy, keypoints_visible, num_parts, recipe)

  return sample


def time_sampler(args):
  """Compiles, warms up and times the sampler. Returns the line to print."""
  recipe = sampler.MaskRecipe(args.grid, args.patch, args.ratio, use_blocks=args.blocks, use_parts=args.parts)
  step_key, joint_key = jax.random.split(jax.random.key(0))
  size_xy = jnp.array(args.grid[::-1]) * args.patch
  keypoints_xy = jax.random.uniform(joint_key, (args.batch, 17, 2)) * size_xy
  keypoints_visible = jnp.ones((args.batch, 17), bool)
  warmup = 5
  keys = list(jax.random.split(step_key, warmup + args.repeats))
  sample = jax.jit(make_sample(recipe, args.policy, args.group, args.batch))
  sample, compile_times = compiled.compile_times(sample, keys[0], keypoints_xy, keypoints_visible)

  def draw(number):
    jax.block_until_ready(sample(keys[number], keypoints_xy, keypoints_visible))

  times = measure.time_in_turn({"sampler": draw}, warmup=warmup, repeats=args.repeats)["sampler"]
  cpu, wall = zip(*times, strict=True)
  found = {
    "images_per_s": round(args.batch / statistics.median(wall)),
    "images_per_cpu_s": round(args.batch / statistics.median(cpu)),
    "batch": args.batch,
    "recipe": dataclasses.asdict(recipe),
    "policy": args.policy,
    "repeats": args.repeats,
    **measure.summary(times),
    **compile_times,
  }
  return compiled.line("mask_sampler", found)


def main(argv=None):
  measure.show(time_sampler(parse_args(argv)))


if __name__ == "__main__":
  main()

"""Make a data set as plain files: synthetic people, with joints, attributes and captions."""

import argparse
import re
import time

from hap_jax.data.synthetic import export


def add_arguments(parser):
  parser.add_argument("source", choices=("synthetic",), help="what to make")
  parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
  parser.add_argument("--seed", type=int, default=0, help="another seed, other people (default: %(default)s)")
  for split, number in (("train", 12_000), ("val", 1_024), ("test", 1_024)):
    text = f"pictures of split {split}, eight a person (default: %(default)s)"
    parser.add_argument(f"--num_{split}", type=int, default=number, metavar="N", help=text)
  parser.add_argument(
    "--image_size", type=_size, default=(256, 128), metavar="HxW", help="pixels (default: 256x128)"
  )
  parser.add_argument(
    "--workers", type=int, metavar="N", help="processes that draw (default: one a processor; 0: none)"
  )


def run(args):
  start = time.monotonic()
  counts = export.write_folder(
    args.out,
    seed=args.seed,
    num_train=args.num_train,
    num_val=args.num_val,
    num_test=args.num_test,
    image_size=args.image_size,
    workers=args.workers,
  )
  parts = ", ".join(f"{count:,} {split}" for split, count in counts.items())
  print(f"{args.out}: pictures of synthetic people: {parts}; {time.monotonic() - start:.0f} s")


def _size(text):
  match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
  if match is None:
    raise argparse.ArgumentTypeError(f"{text!r} is no size such as 256x128, height x width in pixels")
  return int(match[1]), int(match[2])

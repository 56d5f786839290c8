"""Make a data set: pack a data source for fast reading, or write synthetic people as plain files."""

import argparse
import re
import time

from hap_jax import config as config_lib
from hap_jax import config_sources
from hap_jax.cli import _options
from hap_jax.data import pack
from hap_jax.io.progress import Progress

_DRAWN = ("num_train", "num_val", "num_test", "image_size")  # options of sources of drawn pictures


def add_arguments(parser):
  parser.add_argument("source", help=_options.source_help())
  parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
  parser.add_argument(
    "--format",
    choices=("tfds", "files", "3dpw"),
    help="tfds: ArrayRecord shards, for config.data.source=tfds | files: pictures and annotations, only "
    "for sources of drawn pictures (default: files for such a source, otherwise tfds) | 3dpw: the split "
    "test of such a source in the layout of 3DPW, with the body model of its people",
  )
  parser.add_argument("--seed", type=int, default=0, help="seed of synthetic people (default: %(default)s)")

  packed = parser.add_argument_group("data set to pack")
  packed.add_argument("--root", metavar="DIR", help="folder of the data set")
  packed.add_argument("--split", metavar="NAMES", help="splits, separated by commas (default: all splits)")
  packed.add_argument(
    "--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help="an option of the source"
  )
  packed.add_argument(
    "--max_bad_share",
    type=_options.share,
    metavar="SHARE",
    help="allowed share of unreadable records, which are left out; more is an error (default: 0.001)",
  )

  drawn = parser.add_argument_group(
    "synthetic pictures", "Only for a source of drawn pictures. The defaults come from the source."
  )
  for split in ("train", "val", "test"):
    drawn.add_argument(f"--num_{split}", type=int, metavar="N", help=f"pictures of split {split}")
  drawn.add_argument("--image_size", type=_size, metavar="HxW", help="height and width in pixels")
  drawn.add_argument(
    "--workers",
    type=int,
    metavar="N",
    help="processes that draw the files (default: one per processor; 0: only this process)",
  )


def run(args):
  start = time.monotonic()
  source = config_lib.load("data/sources", args.source)
  is_drawn = hasattr(source, "write_files")
  # The format determines which options have an effect. An option without an effect is an error.
  chosen = args.format or ("files" if is_drawn else "tfds")
  if chosen == "tfds":
    if is_drawn:
      why = "works only with --format=files; use --set hold_in_memory=True to draw on all processors"
      _refuse(args, ("workers",), why)
    else:
      _refuse(args, (*_DRAWN, "workers"), f"works only with drawn pictures, and {args.source} has none")
    counts, what = _pack(args), f"records of {args.source}"
  else:
    counts, what = _write(args, source, chosen), f"pictures of {args.source} people"
  parts = ", ".join(f"{count:,} {split}" for split, count in counts.items())
  print(f"{args.out}: {what}: {parts}; {time.monotonic() - start:.0f} s")


def _write(args, source, chosen):
  """Draws pictures and writes them as plain files. Returns {split: number of pictures}."""
  write = getattr(source, "write_files" if chosen == "files" else "write_3dpw", None)
  if write is None:
    raise ValueError(
      f"--format={chosen}: {args.source} cannot be written in this format; expected a source of drawn "
      "pictures, such as synthetic"
    )
  _refuse(args, ("root", "split", "settings", "max_bad_share"), "works only with --format=tfds")
  if chosen == "3dpw":
    why = "works only with --format=tfds and --format=files, because --format=3dpw writes only split test"
    _refuse(args, ("num_train", "num_val"), why)
  with Progress("prepare") as progress:
    return write(args.out, seed=args.seed, **_given(args, *_DRAWN, "workers"), progress=progress)


def _given(args, *names):
  """Returns {name: value} of the options that were given."""
  values = {name: getattr(args, name) for name in names}
  return {name: value for name, value in values.items() if value not in (None, [])}


def _refuse(args, names, why):
  """Raises ValueError if one of these options was given, because it would have no effect."""
  for name in _given(args, *names):
    raise ValueError(f"--{'set' if name == 'settings' else name}: {why}: remove this option")


def _pack(args):
  options = _given(args, *_DRAWN) | _options.settings(args.settings)
  with Progress("prepare") as progress:
    progress.stage("opening the data set")
    sources = {
      split: config_sources.open_named_source(
        args.source, root=args.root or "", split=split, seed=args.seed, options=options
      )
      for split in _splits(args)
    }
    given = _given(args, "root", "max_bad_share")
    packed = pack.write_dataset(args.out, sources, **given, progress=progress)
  for split, result in packed.items():
    if result.bad:
      print(f"{split}: {len(result.bad)} records that cannot be read were left out")
  return {split: result.records for split, result in packed.items()}


def _splits(args):
  if args.split:
    return args.split.split(",")
  module = config_lib.load("data/sources", args.source)
  if not hasattr(module, "SPLITS"):
    raise ValueError(f"{args.source} does not list its splits: name them with --split=train,...")
  return module.SPLITS


def _size(text):
  match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
  if match is None:
    raise argparse.ArgumentTypeError(f"{text!r}: expected a size such as 256x128, height x width in pixels")
  return int(match[1]), int(match[2])

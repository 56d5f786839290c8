"""Options that several verbs share, and checks of their values."""

import argparse
import ast
import math
import pathlib
import re

from hap_jax import config as config_lib
from hap_jax.convert import families
from hap_jax.convert.selection import Selection

DEFAULT_PRIOR = 0.5
CHECKPOINT = (
  ".pth, .pth.tar or .safetensors file, Hugging Face folder, or workdir or checkpoint of this project"
)


def add_selection(parser):
  """Adds --key, --prefix and --encoder_only, which choose the part of a checkpoint to read."""
  parser.add_argument(
    "--key", default="", metavar="NAME", help="entry of the file that holds the weights, such as teacher"
  )
  parser.add_argument(
    "--prefix", default="", metavar="TEXT", help="read only tensors whose names begin with this text"
  )
  parser.add_argument(
    "--encoder_only", action="store_true", help="read only the encoder, without decoder and heads"
  )


def selection(args):
  """Returns the `Selection` of the options that `add_selection` added."""
  return Selection(key=args.key, prefix=args.prefix, encoder_only=args.encoder_only)


def add_reading(parser):
  """Adds --from, --source_grid and --num_heads, which state facts that a checkpoint may not record."""
  parser.add_argument(
    "--from",
    dest="family",
    choices=families.names(),
    default="",
    help="checkpoint family (default: recognised from the file)",
  )
  parser.add_argument(
    "--source_grid", type=grid, metavar="HxW", help="grid in patches, if the checkpoint does not record it"
  )
  parser.add_argument(
    "--num_heads",
    type=int,
    metavar="N",
    help="number of heads of the encoder, if the checkpoint does not record it",
  )


def source_help():
  """Returns the help text of an argument that names a data source."""
  return f"data source: {', '.join(config_lib.names('data/sources'))}"


def share(text):
  """Parses a number from 0 to 1. It is a type for argparse."""
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 <= value <= 1:  # NaN fails this comparison, too
    raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to 1")
  return value


def grid(text):
  """Parses a grid such as "16x8" to (height, width) in patches. It is a type for argparse."""
  match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
  if match is None:
    raise argparse.ArgumentTypeError(f"{text!r}: expected a grid such as 16x8, height x width in patches")
  return int(match[1]), int(match[2])


def add_data_set(parser):
  """Adds --dataset, which chooses a data set of a checkpoint that was trained on several data sets."""
  parser.add_argument(
    "--dataset",
    metavar="LABEL",
    default="",
    help="data set of a checkpoint that was trained on several data sets",
  )


def add_overrides(parser, *, set_help):
  """Adds --data.source, --data.root and --set KEY=VALUE. `set_help` is the help text of --set."""
  parser.add_argument("--data.source", dest="data_source", metavar="NAME", help=source_help())
  parser.add_argument("--data.root", dest="data_root", metavar="DIR", help="folder of the data set")
  add_settings(parser, set_help=set_help)


def add_settings(parser, *, set_help):
  """Adds --set KEY=VALUE. `set_help` is its help text."""
  parser.add_argument(
    "--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help=set_help
  )


def add_prior(parser, when):
  """Adds --prior. `when` says when the option has an effect."""
  parser.add_argument(
    "--prior",
    type=share,
    metavar="P",
    help=f"{when}: probability that two pictures show one person, before they are compared (default: "
    f"{DEFAULT_PRIOR})",
  )


def prior(args):
  """Returns the value of --prior or its default."""
  return DEFAULT_PRIOR if args.prior is None else args.prior


def overrides(args):
  """Returns {configuration key: value} of the options that `add_overrides` added."""
  values = {"data.source": args.data_source, "data.root": args.data_root}
  return {key: value for key, value in values.items() if value is not None} | settings(args.settings)


def add_parts(parser):
  """Adds --shard and --max_bad_share, for commands that work part by part."""
  parser.add_argument(
    "--shard",
    default="1/1",
    metavar="K/N",
    help="do only the parts of process K of N. Start N processes with the same --out (default: all parts)",
  )
  parser.add_argument(
    "--max_bad_share",
    type=share,
    default=0.01,
    metavar="SHARE",
    help="allowed share of unreadable pictures; a larger share is an error (default: %(default)s)",
  )


def settings(words):
  """Parses words KEY=VALUE to {key: value}. A value that is not a Python literal becomes a string.

  Raises:
    ValueError: for a word without "=".
  """
  parsed = {}
  for word in words:
    key, equals, text = word.partition("=")
    if not equals:
      raise ValueError(f"--set {word}: expected KEY=VALUE")
    try:
      parsed[key] = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      parsed[key] = text
  return parsed


def check_new(path):
  """Raises ValueError if --out exists or its parent folder does not exist.

  Verbs call it before they start, because an error at the end would lose the result.
  """
  path = pathlib.Path(path)
  if path.exists():
    raise ValueError(f"--out={path} exists; give another path, or move it away")
  if not path.parent.is_dir():
    raise ValueError(f"--out={path}: there is no folder {path.parent}")


def check_outside(out, root):
  """Raises ValueError if `out` is inside the folder `root` of the pictures, because it will hold pictures."""
  if root and pathlib.Path(root).resolve() in (out.resolve(), *out.resolve().parents):
    raise ValueError(f"--out={out} is inside the folder of the pictures, {root}: give a folder outside")

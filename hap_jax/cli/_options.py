"""Options that several verbs share, and what they do with files."""

import argparse
import ast
import pathlib
import re

from hap_jax.convert import families

CHECKPOINT = ".pth or .safetensors file, Hugging Face folder, or workdir or checkpoint of this project"


def add_reading(parser):
  """Adds --from, --source_grid and --num_heads: what a checkpoint may not tell of itself."""
  parser.add_argument(
    "--from", dest="family", choices=families.names(), default="", help="default: told from the checkpoint"
  )
  parser.add_argument("--source_grid", type=grid, metavar="HxW", help="its grid where it does not tell")
  parser.add_argument("--num_heads", type=int, metavar="N", help="encoder's heads where nothing tells them")


def grid(text):
  """Parses "16x8", height x width in patches, as argparse wants its types."""
  match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
  if match is None:
    raise argparse.ArgumentTypeError(f"{text!r} is no grid such as 16x8, height x width in patches")
  return int(match[1]), int(match[2])


def add_overrides(parser, *, what):
  """Adds --data.source, --data.root and --set KEY=VALUE; `what` tells what --set does."""
  parser.add_argument(
    "--data.source", dest="data_source", metavar="NAME", help="a file of hap_jax/data/sources"
  )
  parser.add_argument("--data.root", dest="data_root", metavar="DIR", help="folder of the data set")
  parser.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help=what)


def overrides(args):
  """Returns {key: value} of what `add_overrides` parsed, keys as in a configuration."""
  values = {"data.source": args.data_source, "data.root": args.data_root}
  return {key: value for key, value in values.items() if value is not None} | settings(args.settings)


def settings(words):
  """Parses words KEY=VALUE; a value that is no Python literal is a string.

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
  """Raises ValueError if --out exists or lies in no folder: said before the work, not after it."""
  path = pathlib.Path(path)
  if path.exists():
    raise ValueError(f"--out={path} exists; give another, or move it away")
  if not path.parent.is_dir():
    raise ValueError(f"--out={path}: there is no folder {path.parent}")

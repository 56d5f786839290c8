"""Predict on pictures with a checkpoint of any task; `hap predict CHECKPOINT --help` lists the arguments."""

import argparse
import re

from hap_jax import config as config_lib
from hap_jax.cli import _options
from hap_jax.convert import read
from hap_jax.convert.selection import WHOLE
from hap_jax.inference import gallery, unfit


def add_arguments(parser):
  parser.add_argument("checkpoint", metavar="CHECKPOINT", help=_options.CHECKPOINT)
  _options.add_selection(parser)


def extend(parser, words):
  """Adds the arguments of the checkpoint's task, if the command line names a checkpoint.

  Args:
    parser: the parser of the command.
    words: words of the command line after the verb.
  Raises:
    ValueError: if an option belongs to checkpoints of other tasks.
  """
  # The values of these options are no checkpoint, so they are parsed first.
  first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  _options.add_selection(first)
  chosen, words = first.parse_known_args(words)
  checkpoint = next((word for word in words if not word.startswith("-")), None)
  if checkpoint is None:
    return
  selection = _options.selection(chosen)
  module = module_of(checkpoint, selection)
  parser.description = module.__doc__.splitlines()[0]
  parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
  module.add_arguments(parser)
  _check_options(checkpoint, selection, words, _words_of(parser))


def run(args):
  _options.check_new(args.out)
  args.selection = _options.selection(args)
  with unfit.named(args.checkpoint):
    module_of(args.checkpoint, args.selection).run(args)


def _check_options(checkpoint, selection, words, known):
  """Raises ValueError if an option is not in the set `known`, but checkpoints of other tasks have it."""
  for option in (word.partition("=")[0] for word in words if word.startswith("--")):
    if option in known:
      continue
    tasks = [name for name in config_lib.names("inference/predict") if option in _options_of(name)]
    if tasks:
      raise ValueError(
        f"{checkpoint} is a checkpoint for {read.read_task(checkpoint, selection)}, but {option} needs a "
        f"checkpoint for {' or '.join(tasks)}"
      )


def _options_of(task):
  parser = argparse.ArgumentParser()
  config_lib.load("inference/predict", task).add_arguments(parser)
  return _words_of(parser)


def _words_of(parser):
  """Returns the names of the options of a parser."""
  return set(re.findall(r"--\w+", parser.format_usage()))


def module_of(checkpoint, selection=WHOLE):
  """Returns the module of inference/predict for a checkpoint. Reads only the description of the file."""
  task = read.read_task(checkpoint, selection)
  if task in config_lib.names("inference/predict"):
    return config_lib.load("inference/predict", task)
  return gallery  # the default, because every encoder can rank a gallery

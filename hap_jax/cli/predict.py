"""Predict on pictures with a checkpoint of any task; `hap predict CHECKPOINT --help` lists the arguments."""

from hap_jax import config as config_lib
from hap_jax.cli import _options
from hap_jax.convert import read
from hap_jax.inference import gallery


def add_arguments(parser):
  parser.add_argument("checkpoint", metavar="CHECKPOINT", help=_options.CHECKPOINT)


def extend(parser, words):
  """Adds the arguments of the checkpoint's task, if the command line names a checkpoint.

  Args:
    parser: the parser of the command.
    words: words of the command line after the verb.
  """
  checkpoint = next((word for word in words if not word.startswith("-")), None)
  if checkpoint is None:
    return
  module = _module(checkpoint)
  parser.description = module.__doc__.splitlines()[0]
  parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
  module.add_arguments(parser)


def run(args):
  _options.check_new(args.out)
  _module(args.checkpoint).run(args)


def _module(checkpoint):
  """Returns the module of inference/predict for a checkpoint. Only the description of the file is read."""
  task = read.read_task(checkpoint)
  if task in config_lib.names("inference/predict"):
    return config_lib.load("inference/predict", task)
  return gallery  # the default, because every encoder can rank a gallery

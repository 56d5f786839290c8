"""Score a checkpoint with the evaluation of its task, on its own data set or on another one."""

from hap_jax import config as config_lib
from hap_jax.cli import _options
from hap_jax.inference import scoring
from hap_jax.io.progress import Progress


def add_arguments(parser):
  parser.add_argument("checkpoint", help=_options.CHECKPOINT)
  parser.add_argument(
    "--config", metavar="FILE", help="configuration (a file or a shipped one), if the checkpoint records none"
  )
  parser.add_argument("--out", metavar="DIR", help="folder to make for scores.json and pictures")
  _options.add_overrides(parser, set_help="change a key of the configuration, such as eval_batch_size=64")


def run(args):
  config = args.config and config_lib.read_file(args.config)
  scoring.score(
    args.checkpoint,
    config=config,
    overrides=_options.overrides(args),
    out=args.out,
    progress=Progress("evaluate"),
  )

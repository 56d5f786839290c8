"""Score a checkpoint with the evaluation of its task, or score a file of results of any program.

The data set is the one of the checkpoint's run, or another one. A file of results has the format of its data
set: COCO's list of results (.json), or the pred.mat of MPII. It needs --config.
"""

from hap_jax import config as config_lib
from hap_jax.cli import _options
from hap_jax.inference import scoring
from hap_jax.io.progress import Progress


def add_arguments(parser):
  parser.add_argument("checkpoint", help=f"{_options.CHECKPOINT}; or a file of results")
  parser.add_argument(
    "--config", metavar="FILE", help="configuration (a file or a shipped one), if the checkpoint records none"
  )
  parser.add_argument("--out", metavar="DIR", help="folder to make for scores.json, pictures and results")
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

"""Score a checkpoint with the evaluation of its task, or score a results file from any program.

The default data set is the data set of the checkpoint's run. A results file is COCO's list of results (.json)
or MPII's pred.mat. A results file needs --config.
"""

from hap_jax import config as config_lib
from hap_jax.cli import _options
from hap_jax.inference import scoring
from hap_jax.io.progress import Progress


def add_arguments(parser):
  parser.add_argument("checkpoint", help=f"{_options.CHECKPOINT}; or a results file")
  parser.add_argument(
    "--config",
    metavar="FILE",
    help="configuration file or shipped name, if the checkpoint does not record it",
  )
  _options.add_selection(parser)
  parser.add_argument("--out", metavar="DIR", help="folder to make for scores.json, pictures and results")
  _options.add_overrides(parser, set_help="change a key of the configuration, such as eval_batch_size=64")


def run(args):
  config = args.config and config_lib.read_file(args.config)
  scoring.score(
    args.checkpoint,
    config=config,
    overrides=_options.overrides(args),
    out=args.out,
    selection=_options.selection(args),
    progress=Progress("evaluate"),
  )

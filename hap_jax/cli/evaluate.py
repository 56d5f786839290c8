"""Score a checkpoint with the evaluation of its task, or score a results file from any program.

The default data set is the data set of the checkpoint's run. If the run trained on several data sets, all of
them are scored, or the one that --dataset names. A results file is COCO's list of results (.json) or MPII's
pred.mat. It needs --config.
"""

from hap_jax import config as config_lib
from hap_jax.cli import _options
from hap_jax.inference import calibration_file, scoring, verifying
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
  _options.add_data_set(parser)
  parser.add_argument(
    "--verify",
    action="store_true",
    help="also compare all pairs of pictures with thresholds: one person or two? "
    "(checkpoints that search for persons)",
  )
  _options.add_prior(parser, "with --verify")
  calibration_file.add_argument(parser)
  _options.add_overrides(parser, set_help="change a key of the configuration, such as eval_batch_size=64")


def run(args):
  config = args.config and config_lib.read_file(args.config)
  verify = verifying.Settings(_options.prior(args), args.calibration) if args.verify else None
  for name in ("prior", "calibration"):
    if getattr(args, name) not in (None, "") and not args.verify:
      raise ValueError(f"--{name}={getattr(args, name)} needs --verify")
  scoring.score(
    args.checkpoint,
    config=config,
    overrides=_options.overrides(args),
    dataset=args.dataset,
    out=args.out,
    verify=verify,
    selection=_options.selection(args),
    progress=Progress("evaluate"),
  )

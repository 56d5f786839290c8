"""Find the score from which on two pictures show one person, and write it beside the checkpoint.

The data set must have persons that the model was not trained on, such as the test persons of a ReID data set.
The threshold holds for pictures like those of this data set: of similar quality, by similar cameras.
"""

from hap_jax import config as config_lib
from hap_jax.cli import _options
from hap_jax.inference import calibrating
from hap_jax.io.progress import Progress

_FAR = 1e-3


def add_arguments(parser):
  parser.add_argument("checkpoint", help=_options.CHECKPOINT)
  parser.add_argument(
    "--config",
    metavar="FILE",
    help="configuration file or shipped name, if the checkpoint does not record it",
  )
  parser.add_argument(
    "--far",
    type=_options.share,
    default=_FAR,
    help="share of pairs of two persons that may pass the threshold (default: %(default)s)",
  )
  _options.add_prior(parser, "for the probabilities")
  parser.add_argument(
    "--out", metavar="FILE", help="file to write (default: calibration.json beside the weights)"
  )
  parser.add_argument("--force", action="store_true", help="replace an older calibration")
  _options.add_data_set(parser)
  _options.add_selection(parser)
  _options.add_overrides(parser, set_help="change a key of the configuration, such as eval_batch_size=64")


def run(args):
  calibrating.calibrate(
    args.checkpoint,
    far=args.far,
    prior=_options.prior(args),
    config=args.config and config_lib.read_file(args.config),
    overrides=_options.overrides(args),
    dataset=args.dataset,
    selection=_options.selection(args),
    out=args.out,
    force=args.force,
    progress=Progress("calibrate"),
  )

"""Measure a frozen encoder by person retrieval, or by linear classifiers of attributes."""

from hap_jax.cli import _options
from hap_jax.inference import probing
from hap_jax.io.progress import Progress


def add_arguments(parser):
  parser.add_argument("checkpoint", help=_options.CHECKPOINT)
  _options.add_selection(parser)
  _options.add_overrides(parser, set_help="change an option of the data set, such as num_test=800")
  parser.add_argument(
    "--attributes",
    action="store_true",
    help="fit a logistic regression of each attribute on split train and score it on split test",
  )
  parser.add_argument("--batch_size", type=int, default=256, help="pictures per batch (default: %(default)s)")
  parser.add_argument("--workers", type=int, default=0, help="processes that read pictures (default: none)")


def run(args):
  probe = probing.probe_attributes if args.attributes else probing.probe
  probe(
    args.checkpoint,
    source=args.data_source or "synthetic",
    root=args.data_root or "",
    options=_options.settings(args.settings),
    batch_size=args.batch_size,
    workers=args.workers,
    selection=_options.selection(args),
    progress=Progress("probe"),
  )

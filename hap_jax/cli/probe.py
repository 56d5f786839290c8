"""Measure how well a frozen encoder finds the same person again, without any training on top."""

from hap_jax import probing
from hap_jax.cli import _options


def add_arguments(parser):
  parser.add_argument("checkpoint", help=_options.CHECKPOINT)
  _options.add_overrides(parser, what="changes an option of the data set, such as num_test=800")
  parser.add_argument("--batch_size", type=int, default=256, help="pictures at a time (default: %(default)s)")


def run(args):
  source = args.data_source or "synthetic"
  options = _options.settings(args.settings)
  probing.probe(
    args.checkpoint, source=source, root=args.data_root or "", options=options, batch_size=args.batch_size
  )

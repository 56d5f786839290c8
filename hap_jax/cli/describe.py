"""Print the facts about a checkpoint: family, stage, sizes, pixels, licence, origin and usable commands."""

import json

from hap_jax.cli import _options
from hap_jax.convert import describe as description
from hap_jax.convert import families


def add_arguments(parser):
  parser.add_argument("checkpoint", help=_options.CHECKPOINT)
  _options.add_selection(parser)
  parser.add_argument("--json", action="store_true", help="print JSON")
  text = "checkpoint family (default: recognised from the file)"
  parser.add_argument("--from", dest="family", choices=families.names(), default="", help=text)


def run(args):
  facts = description.describe(args.checkpoint, family=args.family, selection=_options.selection(args))
  print(json.dumps(facts, indent=2) if args.json else "\n".join(description.text(facts)))

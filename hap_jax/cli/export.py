"""Export the embedding or the tokens of a checkpoint as StableHLO that runs without this project."""

from hap_jax.cli import _options
from hap_jax.convert import licences
from hap_jax.convert.lineage import text as lineage_text
from hap_jax.inference import calibration_file, export


def add_arguments(parser):
  parser.add_argument("checkpoint", help=_options.CHECKPOINT)
  parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
  parser.add_argument(
    "--feature",
    choices=export.FEATURES,
    default="",
    help="embedding of pictures (if the task of the checkpoint trains one) | tokens of the encoder "
    "(default: embedding if the checkpoint has one, else tokens)",
  )
  calibration_file.add_argument(parser)
  _options.add_selection(parser)
  _options.add_reading(parser)


def run(args):
  description = export.export(
    args.checkpoint,
    args.out,
    feature=args.feature,
    family=args.family,
    grid=args.source_grid,
    num_heads=args.num_heads,
    calibration=args.calibration,
    selection=_options.selection(args),
  )
  facts = description["export"]
  print(f"{args.out}: for {', '.join(facts['platforms'])}, any batch size")
  print(f"  images {facts['images']}")
  for name in export.FEATURES:
    if name in facts:
      print(f"  {name} {facts[name]}")
  print(f"  largest error {facts['relative_error']:.1e} of the largest value; try {args.out}/run.py")
  if "calibration" in facts:
    print(f"  {facts['calibration']}")
  print(f"  licence: {description['licence']}")
  for item in description["made_from"]:
    print(f"  made from: {licences.text(item)}")
  for origin in description["lineage"]:
    print(f"  from {lineage_text(origin)}")

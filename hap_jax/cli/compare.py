"""Compare two pictures, or a sentence and a picture: do they show the same person?"""

import json

from hap_jax.cli import _options, predict
from hap_jax.data.sources.base import APPLY, EXIF
from hap_jax.inference import calibration_file, comparing, unfit


def add_arguments(parser):
  parser.add_argument("checkpoint", help=_options.CHECKPOINT)
  parser.add_argument("query", metavar="A", help="picture of a person, or a sentence for text ReID")
  parser.add_argument("picture", metavar="B", help="picture of a person")
  parser.add_argument("--feature", default="", metavar="KIND", help="kind of the vectors, as in hap embed")
  parser.add_argument("--exif", choices=EXIF, default=APPLY, help="as in hap embed (default: apply)")
  calibration_file.add_argument(parser)
  _options.add_selection(parser)
  parser.add_argument("--json", action="store_true", help="print one line of JSON")


def run(args):
  selection = _options.selection(args)
  module = predict.module_of(args.checkpoint, selection)
  with unfit.named(args.checkpoint):
    found = comparing.compare(
      args.checkpoint,
      args.query,
      args.picture,
      feature=args.feature,
      exif=args.exif,
      calibration=args.calibration,
      selection=selection,
      embed_text=getattr(module, "embed_text_query", None),
    )
  if args.json:
    print(json.dumps(found))
    return
  print(f"score        {found['score']:.6f}")
  calibration = found["calibration"]
  if calibration is None:
    print(calibration_file.explain_missing(args.checkpoint, found["feature"], found["query_kind"]))
    return
  print(f"probability  {found['probability']:.4f} (prior {calibration['prior']:g})")
  print(
    f"verdict      {found['verdict']} (threshold {calibration['threshold']:.6f}, FAR {calibration['far']:g})"
  )

"""Convert a checkpoint to or from the format of another project, and check that the outputs agree."""

from hap_jax.cli import _options
from hap_jax.convert import licences, write
from hap_jax.convert import run as conversion
from hap_jax.convert.lineage import text as lineage_text
from hap_jax.convert.weights import some
from hap_jax.inference import calibration_file
from hap_jax.io.progress import Progress


def add_arguments(parser):
  parser.add_argument("source", metavar="SRC", help=_options.CHECKPOINT)
  parser.add_argument("--out", required=True, metavar="DST", help="file or folder to make")
  parser.add_argument(
    "--to", choices=write.targets(), default=write.OWN, help="format to write (default: orbax, this project)"
  )
  parser.add_argument(
    "--grid", type=_options.grid, metavar="HxW", help="resize position tables to this grid, in patches"
  )
  parser.add_argument("--force", action="store_true", help="replace DST")
  _options.add_selection(parser)
  _options.add_reading(parser)
  parser.add_argument(
    "--decoder_heads",
    type=int,
    metavar="N",
    help="number of heads of the decoder, if the checkpoint does not record it",
  )
  parser.add_argument(
    "--text_encoder",
    default="",
    metavar="DIR",
    help="BERT folder with the vocabulary of the text encoder in SRC, if SRC does not record it",
  )
  _options.add_data_set(parser)
  parser.add_argument(
    "--norm_eps", type=float, metavar="X", help="change the epsilon of the layer norms; the features change"
  )
  parser.add_argument(
    "--resize_patch",
    type=int,
    metavar="P",
    help="resize the patch kernels to this side in pixels, such as 14 to 16; the features change",
  )
  text = "do not compare with the PyTorch class of the target, even if it is installed"
  parser.add_argument("--no_real_class", dest="real", action="store_false", help=text)


def run(args):
  with Progress("convert") as progress:
    report = conversion.convert(
      args.source,
      args.out,
      to=args.to,
      grid=args.grid,
      force=args.force,
      family=args.family,
      source_grid=args.source_grid,
      heads=(args.num_heads, args.decoder_heads),
      text_encoder=args.text_encoder,
      dataset=args.dataset,
      real=args.real,
      selection=_options.selection(args),
      norm_eps=args.norm_eps,
      patch=args.resize_patch,
      progress=progress,
    )
    calibration = calibration_file.carry(
      args.source,
      args.out,
      family=args.family,
      grid=args.source_grid,
      selection=_options.selection(args),
    )
  proof, model = report["proof"], report["model"]
  print(f"{args.source} ({report['family']}) -> {args.out} ({args.to})")
  if report["taken"]:
    print(f"  read: {report['taken']}")
  print(f"  grid {model['grid'][0]}x{model['grid'][1]} ({report['grid_from']}), {model['num_heads']} heads")
  if "assumed" in model:
    print(f"  assumed: {model['assumed']}")
  print(f"  {report['tensors']} tensors, {report['parameters']:,} parameters")
  for kind in ("resized", "missing", "unused", "placeholders"):
    if report[kind]:
      print(f"  {kind}: {some(report[kind])}")
  for note in report["notes"]:
    print(f"  note: {note}")
  print(f"  outputs before and after: {_errors(proof['outputs'])}")
  real = proof["real_class"]
  is_run = isinstance(real, dict)
  print(f"  in {real['name']}: {_errors(real['outputs'])}" if is_run else f"  PyTorch class: {real}")
  if calibration:
    print(f"  {calibration}")
  print(f"  licence: {report['licence']}")
  for item in report["made_from"]:
    print(f"  made from: {licences.text(item)}")
  for origin in report["lineage"]:
    print(f"  from {lineage_text(origin)}")


def _errors(outputs):
  facts = ((name, error["max_abs_error"], error["max_abs_value"]) for name, error in outputs.items())
  return ", ".join(f"{name} differ by {error:.2g} of {value:.2g}" for name, error, value in facts)

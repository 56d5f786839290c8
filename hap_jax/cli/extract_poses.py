"""Find the joints of one person per picture, for pre-training on your own pictures."""

import pathlib

from hap_jax import config as config_lib
from hap_jax import config_sources
from hap_jax.cli import _options
from hap_jax.data.sources import base, folder
from hap_jax.data.transforms import topdown
from hap_jax.inference import extract_poses, pose_folder, pose_models, posed_pictures
from hap_jax.io.progress import Progress


def add_arguments(parser):
  parser.add_argument("model", metavar="MODEL", help=f"model for COCO's 17 joints: {_options.CHECKPOINT}")
  parser.add_argument(
    "pictures", metavar="PICTURES", nargs="?", help="folder of pictures of one person each, with sub-folders"
  )
  parser.add_argument("--out", required=True, metavar="DIR", help="folder to make, or to complete")
  _options.add_overrides(
    parser, set_help="an option of the data source that --data.source names, if there is no PICTURES"
  )
  parser.add_argument("--split", metavar="NAME", help="split of the data source (default: train)")
  _options.add_parts(parser)
  parser.add_argument(
    "--format",
    choices=tuple(pose_folder.LAYOUTS),
    default=pose_folder.PARTS.name,
    help="poses: for the source posed_folder | luperson: one .npy file per picture and a list, for the "
    "source luperson and for the official code (default: poses)",
  )
  parser.add_argument(
    "--boxes", metavar="FILE.json", help="{picture: [x, y, width, height]} (default: whole pictures)"
  )
  parser.add_argument(
    "--padding",
    type=float,
    default=topdown.PADDING,
    metavar="FACTOR",
    help="factor by which the boxes grow (default: %(default)s)",
  )
  parser.add_argument(
    "--no_flip",
    action="store_true",
    help="leave out the pass over the mirrored picture: half the time",
  )
  parser.add_argument(
    "--dataset",
    metavar="LABEL",
    default="",
    help="data set whose expert and head are used, if the checkpoint has several (default: the first)",
  )
  parser.add_argument(
    "--min_score",
    type=float,
    metavar="SCORE",
    help="mark joints with a lower score as missing",
  )
  parser.add_argument(
    "--exif",
    choices=base.EXIF,
    help="apply: turn the pictures of PICTURES as their EXIF headers say | ignore: use the stored pixels "
    "(default: apply)",
  )
  parser.add_argument("--batch_size", type=int, default=64, help="pictures per batch (default: %(default)s)")
  parser.add_argument("--workers", type=int, default=0, help="processes that read pictures (default: none)")
  _options.add_selection(parser)


def run(args):
  shard, out = pose_folder.parse_shard(args.shard), pathlib.Path(args.out)
  with Progress("extract_poses") as progress:
    progress.stage("reading the model")
    model = pose_models.load(
      args.model,
      padding=args.padding,
      flip_test=not args.no_flip,
      selection=_options.selection(args),
      data_set=args.dataset,
    )
    progress.stage("listing the pictures")
    pictures, root = _open_pictures(args)
    _options.check_outside(out, root)
    waiting = extract_poses.extract(
      model,
      posed_pictures.of_source(pictures, root, args.boxes),
      out,
      extract_poses.Settings(args.padding, not args.no_flip, args.min_score, args.batch_size, args.boxes),
      layout=pose_folder.LAYOUTS[args.format],
      shard=shard,
      workers=args.workers,
      max_bad_share=args.max_bad_share,
      progress=progress,
    )
  if waiting is not None:
    print(f"{100 * waiting:.1f} % of the time waiting for pictures")


def _open_pictures(args):
  """Returns (source of the pictures, its folder or "")."""
  if args.pictures is not None:
    for option, value in (("--data.source", args.data_source), ("--data.root", args.data_root)):
      if value is not None:
        raise ValueError(f"PICTURES and {option} both name the pictures: remove one of them")
    if args.split or args.settings:
      raise ValueError("--split and --set need --data.source, but PICTURES is given: remove them")
    return folder.open_source(root=args.pictures, exif=args.exif or base.APPLY), args.pictures
  if args.data_source is None:
    raise ValueError("expected PICTURES, a folder of pictures, or --data.source=NAME with --data.root=DIR")
  if args.exif:
    raise ValueError("--exif needs PICTURES: for --data.source, use --set exif=... if the source has it")
  splits = getattr(config_lib.load("data/sources", args.data_source), "SPLITS", ())
  split = args.split or ("train" if "train" in splits or not splits else splits[0])
  root, options = args.data_root or "", _options.settings(args.settings)
  return config_sources.open_named_source(args.data_source, root=root, split=split, options=options), root

"""Find people in a video or in whole pictures, and write a picture and the joints of each person."""

import pathlib

from hap_jax.cli import _options
from hap_jax.data.sources import base, folder
from hap_jax.inference import crop_people, pose_folder, whole_pictures
from hap_jax.io.progress import Progress

_DEFAULTS = crop_people.Settings()


def add_arguments(parser):
  parser.add_argument(
    "pictures",
    metavar="VIDEO_OR_PICTURES",
    help="a video, a folder of pictures, or a picture",
  )
  parser.add_argument(
    "--model", required=True, metavar="MODEL", help="MoveNet for several people: movenet-multipose.json"
  )
  parser.add_argument("--out", required=True, metavar="DIR", help="folder to make, or to complete")
  parser.add_argument(
    "--every", type=int, metavar="N", help="of a video, read every N-th frame (default: every frame)"
  )
  parser.add_argument(
    "--side",
    type=int,
    default=_DEFAULTS.side,
    metavar="PIXELS",
    help="longer side of the pictures that the network sees, a multiple of 32; larger finds smaller people "
    "and is slower (default: %(default)s)",
  )
  parser.add_argument(
    "--threshold",
    type=float,
    default=_DEFAULTS.threshold,
    metavar="SCORE",
    help="leave out people whose joints have a lower mean score (default: %(default)s)",
  )
  parser.add_argument(
    "--margin",
    type=float,
    default=_DEFAULTS.margin,
    metavar="SHARE",
    help="distance by which each side of a box moves outwards (default: %(default)s of its width or height)",
  )
  _options.add_parts(parser)
  parser.add_argument(
    "--exif",
    choices=base.EXIF,
    help="apply: turn pictures as their EXIF headers say | ignore: use the stored pixels (default: apply)",
  )
  parser.add_argument(
    "--batch_size",
    type=int,
    default=_DEFAULTS.batch_size,
    help="pictures or frames per batch (default: %(default)s)",
  )


def run(args):
  shard, out = pose_folder.parse_shard(args.shard), pathlib.Path(args.out)
  settings = crop_people.Settings(args.side, args.threshold, args.margin, args.batch_size)
  with Progress("crop") as progress:
    progress.stage("listing the pictures")
    pictures = _open(args, out)
    progress.stage("reading the model")
    crop_people.crop(
      args.model,
      pictures,
      out,
      settings,
      shard=shard,
      max_bad_share=args.max_bad_share,
      progress=progress,
    )


def _open(args, out):
  """Returns the `VideoFrames` or the `FolderPictures` of the command."""
  path = pathlib.Path(args.pictures)
  if path.is_file() and path.suffix.lower() not in base.PICTURE_ENDINGS:
    if args.exif:
      raise ValueError("--exif: works only with pictures: remove this option")
    return whole_pictures.VideoFrames(args.pictures, 1 if args.every is None else args.every)
  if args.every is not None:
    raise ValueError(f"--every: works only with a video, but {path} is not: remove this option")
  exif = args.exif or base.APPLY
  if path.is_file():
    return whole_pictures.FolderPictures(folder.open_file(path, exif=exif))
  _options.check_outside(out, args.pictures)
  return whole_pictures.FolderPictures(folder.open_source(root=args.pictures, exif=exif))

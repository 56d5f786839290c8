"""Compute a vector for every picture of a folder, and write all vectors into one .npz file."""

import pathlib

from hap_jax.cli import _options
from hap_jax.data.sources import folder
from hap_jax.inference import embed
from hap_jax.inference import vectors as vector_file
from hap_jax.io.progress import Progress


def add_arguments(parser):
  parser.add_argument("checkpoint", help=_options.CHECKPOINT)
  parser.add_argument("folder", help="folder of pictures, including sub-folders")
  parser.add_argument("--out", required=True, metavar="FILE.npz", help="file to make")
  _options.add_selection(parser)
  embed.add_arguments(parser)
  parser.add_argument(
    "--max_bad_share",
    type=_options.share,
    default=0.0,
    metavar="SHARE",
    help="allowed share of unreadable pictures, which are left out; a larger share is an error (default: 0)",
  )


def run(args):
  out = pathlib.Path(args.out)
  _options.check_new(out)
  source = folder.open_source(root=args.folder, exif=args.exif)
  with Progress("embed") as progress:
    progress.stage("reading the checkpoint")
    extractor = embed.load_extractor(args.checkpoint, args.feature, _options.selection(args))
    progress.begin(len(source), "pictures")
    vectors, index = embed.extract(
      extractor,
      source,
      batch_size=args.batch_size,
      workers=args.workers,
      max_bad_share=args.max_bad_share,
      progress=progress,
    )
  made = vector_file.Vectors(
    feature=vectors,
    paths=tuple(source.paths[i] for i in index),
    kind=extractor.kind,
    folder=str(pathlib.Path(args.folder).absolute()),
    checkpoint=str(pathlib.Path(args.checkpoint).absolute()),
    exif=args.exif,
  )
  vector_file.write(out, made)
  if num_bad := len(source) - len(index):
    print(f"pictures that cannot be read and were left out: {num_bad:,}")
  print(f"{args.out}: feature {list(vectors.shape)} float32 ({extractor.kind}), path [{len(vectors)}]")

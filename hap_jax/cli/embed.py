"""Turn every picture of a folder into a vector, in one .npz file."""

import pathlib

import numpy as np

from hap_jax.cli import _options
from hap_jax.data.sources import folder
from hap_jax.inference import embed
from hap_jax.io import unfinished


def add_arguments(parser):
  parser.add_argument("checkpoint", help=_options.CHECKPOINT)
  parser.add_argument("folder", help="folder of pictures, sub-folders included")
  parser.add_argument("--out", required=True, metavar="FILE.npz", help="file to make")
  embed.add_arguments(parser)


def run(args):
  out = pathlib.Path(args.out)
  _options.check_new(out)
  source = folder.open_source(root=args.folder, exif=args.exif)
  extractor = embed.load_extractor(args.checkpoint, args.feature)
  vectors = embed.extract(extractor, source, batch_size=args.batch_size, workers=args.workers)
  with unfinished.new_file(out) as file:
    np.savez(file, feature=vectors, path=np.array(source.paths), kind=np.array(extractor.kind))
  print(f"{args.out}: feature {list(vectors.shape)} float32 ({extractor.kind}), path [{len(vectors)}]")

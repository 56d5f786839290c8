"""Rank the pictures of a gallery by their similarity to a query, with pooled tokens of the encoder."""

import json
import pathlib

from hap_jax.data.sources import folder
from hap_jax.inference import embed
from hap_jax.io import picture_file
from hap_jax.io.progress import Progress
from hap_jax.metrics import retrieval
from hap_jax.viz import ranks


def add_arguments(
  parser,
  *,
  pictures="picture of the person to find",
  gallery="folder of pictures to search, sub-folders included",
  required=True,
):
  """Adds the arguments of `run`.

  Args:
    parser: the parser of the command.
    pictures: help text of PICTURES.
    gallery: help text of --gallery.
    required: True if --gallery must be given.
  """
  parser.add_argument("pictures", metavar="PICTURES", help=pictures)
  parser.add_argument("--gallery", metavar="FOLDER", required=required, help=gallery)
  parser.add_argument(
    "--top", type=int, default=10, metavar="K", help="number of pictures to show (default: %(default)s)"
  )
  embed.add_arguments(parser)


def run(args):
  """Writes ranking.json and ranking.png into the new folder `args.out`, and prints the ranking."""
  query = folder.open_file(args.pictures, exif=args.exif)
  gallery = folder.open_source(root=args.gallery, exif=args.exif)
  with Progress("predict") as progress:
    progress.stage("reading the checkpoint")
    extractor = embed.load_extractor(args.checkpoint, args.feature)
    progress.begin(len(query) + len(gallery), "pictures")
    (query_vectors, _), (gallery_vectors, _) = (
      embed.extract(extractor, source, batch_size=args.batch_size, workers=workers, progress=progress)
      for source, workers in ((query, 0), (gallery, args.workers))
    )
    progress.stage("ranking")
    found = retrieval.rank_list(query_vectors, gallery_vectors, k=args.top)
  files = [gallery.paths[i] for i in found.index[0]]
  sheet = ranks.rank_sheet(
    [query[0]["image"]],
    [[gallery[int(i)]["image"] for i in found.index[0]]],
    found.distance,
    query_labels=[query.paths[0]],
    gallery_labels=[files],
  )
  ranking = [
    {"rank": rank, "file": file, "distance": round(float(distance), 6)}
    for rank, (file, distance) in enumerate(zip(files, found.distance[0], strict=True), 1)
  ]
  content = {
    "checkpoint": args.checkpoint,
    "query": args.pictures,
    "gallery": args.gallery,
    "exif": args.exif,
    "feature": extractor.kind,
    "distance": "squared Euclidean between vectors of length 1, 0 to 4",
    "ranking": ranking,
  }
  out = pathlib.Path(args.out)
  out.mkdir(parents=True)
  (out / "ranking.json").write_text(json.dumps(content, indent=2) + "\n")
  picture_file.write(out / "ranking.png", sheet)
  for entry in ranking:
    print(f"{entry['rank']:4d}  {entry['distance']:.4f}  {entry['file']}")
  print(f"written: {out}")

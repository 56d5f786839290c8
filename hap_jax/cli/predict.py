"""Label the pictures of a folder with attributes, or find those most like a query: a sheet and JSON."""

import json
import pathlib

from hap_jax import features, labelling
from hap_jax.cli import _options
from hap_jax.convert import read as reading
from hap_jax.data.sources import folder
from hap_jax.io import picture_file
from hap_jax.metrics import retrieval
from hap_jax.viz import ranks


def add_arguments(parser):
  parser.add_argument("checkpoint", help=_options.CHECKPOINT)
  parser.add_argument(
    "pictures",
    metavar="PICTURES",
    help="picture of the person to find; of a checkpoint for attributes: folder to label, sub-folders too",
  )
  parser.add_argument("--gallery", metavar="FOLDER", help="pictures to search, sub-folders too")
  parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
  parser.add_argument(
    "--top", type=int, default=10, metavar="K", help="how many to show (default: %(default)s)"
  )
  _options.add_extraction(parser)


def run(args):
  out = pathlib.Path(args.out)
  _options.check_new(out)
  if args.gallery is None:
    _label(args, out)
  else:
    _rank(args, out)


def _label(args, out):
  weights = reading.read(args.checkpoint)
  if weights.task != "attributes":
    raise ValueError(
      f"{args.checkpoint} is a checkpoint for {weights.task}, which ranks a gallery: expected "
      "--gallery=FOLDER, or a checkpoint for attributes, which labels a folder"
    )
  labelling.label(
    args.checkpoint, weights, args.pictures, out, batch_size=args.batch_size, workers=args.workers
  )


def _rank(args, out):
  query, gallery = folder.open_file(args.pictures), folder.open_source(root=args.gallery)
  extractor = features.load_extractor(args.checkpoint, args.feature)
  asked, searched = (
    features.extract(extractor, source, batch_size=args.batch_size, workers=workers)
    for source, workers in ((query, 0), (gallery, args.workers))
  )
  found = retrieval.rank_list(asked, searched, k=args.top)
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
  told = {
    "checkpoint": args.checkpoint,
    "query": args.pictures,
    "gallery": args.gallery,
    "feature": extractor.kind,
    "distance": "squared Euclidean between vectors of length 1, 0 to 4",
    "ranking": ranking,
  }
  out.mkdir(parents=True)
  (out / "ranking.json").write_text(json.dumps(told, indent=2) + "\n")
  picture_file.write(out / "ranking.png", sheet)
  for entry in ranking:
    print(f"{entry['rank']:4d}  {entry['distance']:.4f}  {entry['file']}")
  print(f"written: {out}")

"""Rank the pictures of a gallery by their similarity to a query, with pooled tokens of the encoder."""

import dataclasses
import json
import os
import pathlib

import numpy as np

from hap_jax.data.sources import folder
from hap_jax.inference import embed
from hap_jax.inference import vectors as vector_file
from hap_jax.inference.vectors import Vectors
from hap_jax.io import picture_file, unfinished
from hap_jax.io.progress import Progress
from hap_jax.metrics import retrieval
from hap_jax.viz import ranks

_SHOWN = 12  # queries in the sheet and in the printed ranking


@dataclasses.dataclass(frozen=True, eq=False)
class Gallery:
  """The pictures that are searched.

  Attributes:
    source: a `folder.FolderSource`.
    vectors: the `Vectors` of the pictures. None: they must be computed.
  """

  source: folder.FolderSource
  vectors: Vectors | None = None

  @property
  def num_pictures(self):
    """Returns the number of pictures that must go through the model."""
    return len(self.source) if self.vectors is None else 0


def add_arguments(
  parser,
  *,
  pictures="picture of the person to find",
  gallery="folder of pictures to search, including sub-folders; or a file of vectors from hap embed",
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
  add_search_arguments(parser, gallery=gallery, required=required)


def add_search_arguments(parser, *, gallery, required=True):
  """Adds the arguments of `add_arguments`, except PICTURES."""
  parser.add_argument("--gallery", metavar="FOLDER", required=required, help=gallery)
  parser.add_argument(
    "--top", type=int, default=10, metavar="K", help="number of pictures to show (default: %(default)s)"
  )
  embed.add_arguments(parser)


def run(args):
  """Ranks the gallery for the picture `args.pictures`, and writes the folder `args.out`."""
  query = folder.open_file(args.pictures, exif=args.exif)
  gallery = open_gallery(args)
  with Progress("predict") as progress:
    progress.stage("reading the checkpoint")
    extractor = embed.load_extractor(args.checkpoint, args.feature, args.selection)
    progress.begin(len(query) + gallery.num_pictures, "pictures")
    query_vectors, _ = embed.extract(extractor, query, batch_size=args.batch_size, progress=progress)
    found = rank(args, query_vectors, gallery, extractor, progress)
  write(args, [args.pictures], [query[0]["image"]], gallery, found, extractor.kind, labels=query.paths)


def open_gallery(args):
  """Opens the folder or the file of vectors `args.gallery` as a Gallery."""
  path = args.gallery
  if os.path.isfile(path) or (path.endswith(".npz") and not os.path.isdir(path)):
    stored = vector_file.read(path)
    return Gallery(vector_file.open_pictures(path, stored, exif=args.exif), stored)
  return Gallery(folder.open_source(root=path, exif=args.exif))


def rank(args, query_vectors, gallery, extractor, progress):
  """Returns the `retrieval.RankList` of the queries.

  Args:
    args: the arguments of the command.
    query_vectors: [Q, D] float32.
    gallery: Gallery.
    extractor: the `embed.Extractor` of the pictures.
    progress: a started `Progress` that counts the pictures.
  Raises:
    ValueError: if a picture cannot be read, or another model computed the stored vectors.
  """
  if gallery.vectors is None:
    vectors, _ = embed.extract(
      extractor, gallery.source, batch_size=args.batch_size, workers=args.workers, progress=progress
    )
  else:
    progress.stage("checking the vectors")
    vector_file.check(args.gallery, gallery.vectors, extractor, gallery.source, args.checkpoint)
    vectors = gallery.vectors.feature
  progress.stage("ranking")
  return retrieval.rank_list(query_vectors, vectors, k=args.top)


def write(args, names, queries, gallery, found, kind, *, labels=None, are_many=False):
  """Writes ranking.json and ranking.png into the new folder `args.out`, and prints the ranking.

  Args:
    args: the arguments of the command.
    names: the Q queries as the user gave them: paths or sentences.
    queries: the Q queries as the sheet shows them: pictures or texts.
    gallery: Gallery.
    found: the `retrieval.RankList`.
    kind: the kind of the vectors.
    labels: Q texts that are drawn below the queries. None: no texts.
    are_many: True: ranking.json has a list of queries. False: there is one query.
  """
  rankings = [_entries(gallery.source.paths, *row) for row in zip(found.index, found.distance, strict=True)]
  content = {
    "checkpoint": args.checkpoint,
    **({} if are_many else {"query": names[0]}),
    "gallery": args.gallery,
    **({} if gallery.vectors is None else {"folder": gallery.source.root}),
    "exif": args.exif,
    "feature": kind,
    "distance": "squared Euclidean between vectors of length 1, 0 to 4",
  }
  if are_many:
    pairs = zip(names, rankings, strict=True)
    content["queries"] = [{"query": name, "ranking": ranking} for name, ranking in pairs]
  else:
    content["ranking"] = rankings[0]
  sheet = _draw(queries[:_SHOWN], gallery.source, found.index[:_SHOWN], found.distance[:_SHOWN], labels)
  with unfinished.new_folder(pathlib.Path(args.out)) as out:
    (out / "ranking.json").write_text(json.dumps(content, indent=2) + "\n")
    picture_file.write(out / "ranking.png", sheet)
  for name, ranking in list(zip(names, rankings, strict=True))[:_SHOWN]:
    if are_many:
      print(name)
    for entry in ranking:
      print(f"{entry['rank']:4d}  {entry['distance']:.4f}  {entry['file']}")
  if len(names) > _SHOWN:
    print(f"{len(names) - _SHOWN:,} more queries are only in {pathlib.Path(args.out) / 'ranking.json'}")
  print(f"written: {args.out}")


def _entries(paths, index, distance):
  """Returns the ranking of a query as plain JSON values."""
  return [
    {"rank": k, "file": paths[i], "distance": round(float(number), 6)}
    for k, (i, number) in enumerate(zip(index, distance, strict=True), 1)
  ]


def _draw(queries, source, index, distance, labels):
  """Draws the sheet of the shown queries."""
  # Queries often find the same pictures. Each picture is read only once.
  pictures = {i: source[i]["image"] for i in np.unique(index).tolist()}
  return ranks.rank_sheet(
    queries,
    [[pictures[i] for i in row] for row in index.tolist()],
    distance,
    query_labels=labels,
    gallery_labels=[[source.paths[i] for i in row] for row in index],
  )

"""Rank the pictures of a gallery by their similarity to a query, with pooled tokens of the encoder."""

import dataclasses
import json
import os
import pathlib

import numpy as np

from hap_jax.convert import read as reading
from hap_jax.data.sources import folder
from hap_jax.inference import calibration_file, embed
from hap_jax.inference import vectors as vector_file
from hap_jax.inference.vectors import Vectors
from hap_jax.io import picture_file, unfinished
from hap_jax.io.progress import Progress
from hap_jax.metrics import retrieval
from hap_jax.viz import ranks

IN_GALLERY, NOT_IN_GALLERY = "in the gallery", "not in the gallery"  # answers to a query
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


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
  """The rank lists of queries, and the calibration that judges their scores.

  Attributes:
    found: the `retrieval.RankList`.
    query_kind: the kind of the queries, see `calibration_file.KINDS`.
    feature: the kind of the vectors.
    calibration: a `calibration_file.QueryCalibration`, or None.
  """

  found: retrieval.RankList
  query_kind: str
  feature: str
  calibration: calibration_file.QueryCalibration | None

  def passes(self):
    """Returns [Q, k] bool, the entries that pass the threshold, or None without a calibration."""
    return None if self.calibration is None else self.found.score >= self.calibration.threshold

  def rankings(self, paths):
    """Returns one ranking per query, as plain JSON values. `paths` are the paths of the gallery."""
    rows = zip(self.found.index, self.found.distance, self.found.score, strict=True)
    return [self._ranking(paths, *row) for row in rows]

  def _ranking(self, paths, index, distance, score):
    """Returns {"answer": ..., "ranking": [...]} of one query. Without a calibration, there is no answer."""
    entries = [
      {
        "rank": k,
        "file": paths[i],
        "distance": round(float(distance[k - 1]), 6),
        "score": round(float(score[k - 1]), 6),
        **({} if self.calibration is None else self.calibration.judge(score[k - 1])),
      }
      for k, i in enumerate(index, 1)
    ]
    if self.calibration is None:
      return {"ranking": entries}
    # The entries are sorted, so the first one passes if any entry of the gallery passes.
    return {"answer": IN_GALLERY if entries[0]["passes"] else NOT_IN_GALLERY, "ranking": entries}


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
  calibration_file.add_argument(parser)
  embed.add_arguments(parser)


def run(args):
  """Ranks the gallery for the picture `args.pictures`, and writes the folder `args.out`."""
  query = folder.open_file(args.pictures, exif=args.exif)
  gallery = open_gallery(args)
  with Progress("predict") as progress:
    progress.stage("reading the checkpoint")
    weights = reading.read(args.checkpoint, selection=args.selection)
    extractor = embed.make_extractor(args.checkpoint, weights, args.feature)
    calibration = calibration_file.find_for_query(
      args.calibration, args.checkpoint, weights, feature=extractor.kind, kind="picture"
    )
    progress.begin(len(query) + gallery.num_pictures, "pictures")
    query_vectors, _ = embed.extract(extractor, query, batch_size=args.batch_size, progress=progress)
    found = rank(args, query_vectors, gallery, extractor, progress)
  judged = Judged(found, "picture", extractor.kind, calibration)
  write(args, [args.pictures], [query[0]["image"]], gallery, judged, labels=query.paths)


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


def write(args, names, queries, gallery, judged, *, labels=None, are_many=False):
  """Writes ranking.json and ranking.png into the new folder `args.out`, and prints the ranking.

  Args:
    args: the arguments of the command.
    names: the Q queries as the user gave them: paths or sentences.
    queries: the Q queries as the sheet shows them: pictures or texts.
    gallery: Gallery.
    judged: the `Judged` rank lists.
    labels: Q texts that are drawn below the queries. None: no texts.
    are_many: True: ranking.json has a list of queries. False: there is one query.
  """
  rankings = judged.rankings(gallery.source.paths)
  calibration = judged.calibration
  content = {
    "checkpoint": args.checkpoint,
    **({} if are_many else {"query": names[0]}),
    "gallery": args.gallery,
    **({} if gallery.vectors is None else {"folder": gallery.source.root}),
    "exif": args.exif,
    "feature": judged.feature,
    "distance": "squared Euclidean between vectors of length 1, 0 to 4",
    "score": "cosine similarity, -1 to 1",
    "calibration": None if calibration is None else calibration.to_json(),
  }
  if are_many:
    pairs = zip(names, rankings, strict=True)
    content["queries"] = [{"query": name, **ranking} for name, ranking in pairs]
  else:
    content |= rankings[0]
  sheet = _draw(queries[:_SHOWN], gallery.source, judged, labels)
  with unfinished.new_folder(pathlib.Path(args.out)) as out:
    (out / "ranking.json").write_text(json.dumps(content, indent=2) + "\n")
    picture_file.write(out / "ranking.png", sheet)
  for name, ranking in list(zip(names, rankings, strict=True))[:_SHOWN]:
    if are_many:
      print(name)
    for line in _describe(ranking, calibration):
      print(line)
  if len(names) > _SHOWN:
    print(f"{len(names) - _SHOWN:,} more queries are only in {pathlib.Path(args.out) / 'ranking.json'}")
  if calibration is None:
    print(calibration_file.explain_missing(args.checkpoint, judged.feature, judged.query_kind))
  print(f"written: {args.out}")


def _describe(ranking, calibration):
  """Returns the ranking of a query as lines of text."""
  lines = []
  for entry in ranking["ranking"]:
    judged = ""
    if calibration is not None:
      word = "passes" if entry["passes"] else "below"
      judged = f"  probability {entry['probability']:.3f}  {word:6s}"
    numbers = f"distance {entry['distance']:.4f}  score {entry['score']:.6f}{judged}"
    lines.append(f"{entry['rank']:4d}  {numbers}  {entry['file']}")
  if calibration is not None:
    limit = f"threshold {calibration.threshold:.6f}, FAR {calibration.far:g}"
    lines.append(f"answer: {ranking['answer']} ({limit})")
  return lines


def _draw(queries, source, judged, labels):
  """Draws the sheet of the shown queries."""
  count, passes = len(queries), judged.passes()
  index = judged.found.index[:count]
  # Queries often find the same pictures. Each picture is read only once.
  pictures = {i: source[i]["image"] for i in np.unique(index).tolist()}
  return ranks.rank_sheet(
    queries,
    [[pictures[i] for i in row] for row in index.tolist()],
    judged.found.distance[:count],
    passes=None if passes is None else passes[:count].tolist(),
    query_labels=labels,
    gallery_labels=[[source.paths[i] for i in row] for row in index],
  )

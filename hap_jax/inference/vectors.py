"""Reads and writes the file of vectors that `hap embed` makes. `hap predict` can search in it."""

import dataclasses
import pathlib

import jax
import numpy as np

from hap_jax.data.sources import folder
from hap_jax.data.sources.base import check_relative
from hap_jax.inference import embed
from hap_jax.io import npz_file, unfinished

# {name of an array: (kind of its type, number of dimensions)}
_ARRAYS = {
  "feature": ("f", 2),
  "path": ("U", 1),
  "kind": ("U", 0),
  "folder": ("U", 0),
  "checkpoint": ("U", 0),
  "exif": ("U", 0),
}
# Largest distance between two vectors of the same picture. They differ a little if a device multiplies with
# fewer bits. With other weights, they differ far more.
_MAX_DIFFERENCE = 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class Vectors:
  """One vector per picture.

  Attributes:
    feature: [N, D] float32 vectors of length 1.
    paths: paths of the N pictures relative to `folder`.
    kind: the kind of the vectors, see `embed.Extractor`.
    folder: absolute path of the folder of the pictures.
    checkpoint: absolute path of the checkpoint that computed the vectors.
    exif: "apply" or "ignore", see `data/sources/folder.py`.
  """

  feature: np.ndarray
  paths: tuple[str, ...]
  kind: str
  folder: str
  checkpoint: str
  exif: str


def write(path, vectors):
  """Writes `Vectors` to an .npz file, completely or not at all. Its arrays are listed in `_ARRAYS`."""
  texts = {name: np.array(getattr(vectors, name)) for name in ("kind", "folder", "checkpoint", "exif")}
  with unfinished.new_file(pathlib.Path(path)) as file:
    np.savez(file, feature=vectors.feature, path=np.array(vectors.paths), **texts)


def read(path):
  """Reads a file that `write` made. No pickle is read.

  Raises:
    OSError: if the file is missing or cannot be opened.
    ValueError: if it is not such a file, or an earlier version wrote it.
  """
  try:
    found = npz_file.read_stored(path, _ARRAYS)
  except ValueError as error:
    raise ValueError(
      f"{path}: expected a folder, or a file of vectors that hap embed wrote: {error}"
    ) from error
  missing = _ARRAYS.keys() - found.keys()
  if {"feature", "path", "kind"} & missing:
    raise ValueError(
      f"{path}: expected a file of vectors that hap embed wrote, but it has no {', '.join(sorted(missing))}"
    )
  if missing:
    raise ValueError(
      f"{path}: does not record the folder of its pictures, because an earlier version wrote it: make it "
      "again with hap embed CHECKPOINT FOLDER --out=FILE.npz"
    )
  paths = tuple(found["path"].tolist())
  check_relative(paths, lambda i: f"{path}: picture {i + 1}")
  if not paths or len(found["feature"]) != len(paths):
    raise ValueError(f"{path}: has {len(found['feature'])} vectors of {len(paths)} pictures; make it again")
  texts = {name: str(found[name]) for name in ("kind", "folder", "checkpoint", "exif")}
  return Vectors(found["feature"], paths, **texts)


def open_pictures(path, vectors, *, exif):
  """Opens the pictures of `Vectors` as a `folder.FolderSource`.

  Args:
    path: the file of vectors, for error messages.
    vectors: Vectors.
    exif: the value of --exif.
  Raises:
    ValueError: if the folder or a picture is missing, or `exif` differs from the file.
  """
  if vectors.exif != exif:
    raise ValueError(f"{path}: was made with --exif={vectors.exif}; pass --exif={vectors.exif} here, too")
  try:
    return folder.open_files(vectors.folder, vectors.paths, exif=exif)
  except ValueError as error:
    raise ValueError(
      f"{path}: {error}; move the pictures back, or make the file again with hap embed"
    ) from error


def check(path, vectors, extractor, source, checkpoint):
  """Raises ValueError if an Extractor does not compute the same vectors as in a file.

  The vector of the first picture is computed again, because the weights at the path of a checkpoint can
  change.

  Args:
    path: the file of vectors, for error messages.
    vectors: Vectors.
    extractor: an `embed.Extractor`.
    source: the `FolderSource` of the pictures.
    checkpoint: path of the checkpoint of the Extractor, for error messages.
  """
  remedy = f"hap embed {checkpoint} {vectors.folder} --out=FILE.npz"
  if vectors.kind != extractor.kind:
    raise ValueError(
      f"{path}: has vectors of the kind {vectors.kind}, but the query has the kind {extractor.kind}: set "
      f"--feature={vectors.kind}, or make the file again with {remedy} --feature={extractor.kind}"
    )
  first = folder.open_files(source.root, source.paths[:1], exif=source.spec.exif)
  again, _ = embed.extract(extractor, first, batch_size=jax.device_count())
  found = vectors.feature[:1]
  width, expected = found.shape[1], again.shape[1]
  problem = ""
  if width != expected:
    problem = f"its vectors have {width} numbers, but vectors of {checkpoint} have {expected}"
  elif not np.linalg.norm(found - again) <= _MAX_DIFFERENCE:  # "not <=", so that NaN is an error too
    problem = f"its vector of {source.name(0)} differs from the vector that {checkpoint} computes"
  if problem:
    raise ValueError(
      f"{path}: {problem}; it was made with {vectors.checkpoint}: use that checkpoint, or make the file "
      f"again with {remedy}"
    )

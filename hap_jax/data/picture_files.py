"""A source of picture files and columns. The sources for re-identification and attributes use it."""

import dataclasses
import os
from collections.abc import Mapping

import numpy as np
from absl import logging

from hap_jax.data.sources.base import SourceSpec, read_image


@dataclasses.dataclass(frozen=True, eq=False)
class PictureFiles:
  """A source of N picture files. Record i is picture i with row i of each column.

  All values are in arrays, so the pickle of a source is small: the gallery of MSMT17 takes 5 MB.

  Attributes:
    folder: folder of the pictures.
    paths: [N] bytes, paths relative to `folder`.
    columns: {field: [N, ...] array}.
    spec: facts about the source.
  """

  folder: str
  paths: np.ndarray
  columns: Mapping[str, np.ndarray]
  spec: SourceSpec

  def __len__(self):
    return len(self.paths)

  def __getitem__(self, index):
    image = read_image(self.name(index), self.spec.exif)
    return {"image": image} | {field: column[index] for field, column in self.columns.items()}

  def name(self, index):
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    return os.path.join(self.folder, os.fsdecode(self.paths[index]))

  def file(self, index):
    return self.name(index)


def make(folder, paths, columns, name, *, licence, notes, **facts):
  """Makes a source of picture files and logs the notes.

  Args:
    folder: folder of the pictures.
    paths: [N] texts, paths relative to `folder`.
    columns: {field: [N, ...] array}.
    name: name of the source.
    licence: licence of the data.
    notes: list of sentences about the split, which are also logged.
    **facts: `labels`, `people` or `exif` of the `SourceSpec`.
  Returns:
    PictureFiles.
  """
  for note in notes:
    logging.warning("%s: %s", name, note)
  spec = SourceSpec(name, None, licence, fields=("image", *columns), notes=tuple(notes), **facts)
  return PictureFiles(folder, np.array([os.fsencode(path) for path in paths]), columns, spec)

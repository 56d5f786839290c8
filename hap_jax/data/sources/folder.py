"""Source: all pictures in a folder and its sub-folders, in the order of their paths, without identities."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Sequence

from absl import logging

from hap_jax.data.sources import base

SPLITS = ("all",)


@dataclasses.dataclass(frozen=True)
class FolderSource:
  """A source with a record {"image": [H, W, 3] uint8} per file. `paths` are relative to `root`.

  `paths` may also be `Names`, which take less memory.
  """

  root: str
  paths: Sequence[str]
  spec: base.SourceSpec

  def __len__(self):
    return len(self.paths)

  def __getitem__(self, i):
    return {"image": base.read_image(self.file(i), self.spec.exif)}

  @property
  def columns(self):
    return {}

  def name(self, i):
    return self.paths[i]

  def file(self, i):
    return os.path.join(self.root, self.paths[i])


def open_source(*, root, split="all", seed=0, exif="apply"):
  """Opens a folder of pictures and its sub-folders, without hidden files and folders.

  Pictures of other formats and links to files that do not exist are left out. Their number is logged.

  Args:
    root: the folder.
    split: "all", the only split.
    seed: not used.
    exif: "apply": turn the pictures as their EXIF headers say. "ignore": keep the stored pixels.
  Returns:
    FolderSource.
  Raises:
    ValueError: if the folder does not exist or has no picture, or if `split` or `exif` has another value.
  """
  del seed
  if split != "all":
    raise ValueError(f'split={split!r}: a plain folder of pictures has only the split "all"')
  base.check_exif(exif, "config.data.folder.exif")
  base.check_folder(root, "a folder of pictures")
  left_out = collections.Counter()
  paths = tuple(sorted(_list_below(root, left_out)))
  notes = base.note_left_out(left_out)
  if not paths:
    endings = ", ".join(base.PICTURE_ENDINGS)
    problem = f"{root}: no picture in this folder or below it; expected files {endings}"
    raise ValueError("; ".join([problem, *notes]))
  for note in notes:
    logging.warning("folder: %s", note)
  return FolderSource(str(root), paths, _spec(exif, notes))


def _list_below(root, left_out, above=()):
  """Yields the paths of the pictures in `root` and its sub-folders, relative to `root`, without hidden names.

  Links to folders are followed, except links to a folder that contains the link, because they would never
  end.

  Args:
    root: the folder.
    left_out: collections.Counter. Files that are left out are counted in it, as in `base.list_pictures`.
    above: real paths of the folders that contain `root`.
  """
  above = (*above, os.path.realpath(root))
  yield from base.list_pictures(root, left_out)
  for folder in base.list_folders(root):
    if os.path.realpath(os.path.join(root, folder)) not in above:
      yield from (f"{folder}/{path}" for path in _list_below(os.path.join(root, folder), left_out, above))


def open_file(path, *, exif="apply"):
  """Opens one picture as a source of one record.

  Args:
    path: the picture file.
    exif: as in `open_source`.
  Raises:
    ValueError: if there is no such file.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f"{path}: no such picture; expected a picture file")
  return FolderSource(str(path.parent), (path.name,), _spec(exif))


def open_paths(paths, *, exif="apply"):
  """Opens pictures of any folders as a source with one record each.

  Args:
    paths: the picture files.
    exif: as in `open_source`.
  Raises:
    ValueError: if there is no such file.
  """
  for path in paths:
    open_file(path)
  return FolderSource("", tuple(map(str, paths)), _spec(exif))


def open_files(root, paths, *, exif="apply"):
  """Opens a list of pictures below a folder.

  Args:
    root: the folder.
    paths: paths of pictures relative to `root`, at least one.
    exif: as in `open_source`.
  Raises:
    ValueError: if there is no such folder, or if a picture is missing.
  """
  base.check_folder(root, "a folder of pictures")
  source = FolderSource(str(root), tuple(paths), _spec(exif))
  missing = [path for i, path in enumerate(source.paths) if not os.path.isfile(source.file(i))]
  if missing:
    raise ValueError(
      f"{len(missing):,} of {len(source):,} pictures are not in {root} any more, starting with "
      f"{base.printable(missing[0])}"
    )
  return source


def _spec(exif, notes=()):
  return base.SourceSpec(
    "folder", skeleton=None, licence="not known", fields=("image",), notes=tuple(notes), exif=exif
  )

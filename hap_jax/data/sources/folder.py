"""Source: all pictures below a folder, in the order of their paths. It knows nothing about their persons."""

import dataclasses
import os
import pathlib

from hap_jax.data.sources import base

SPLITS = ("all",)
_SPEC = base.SourceSpec("folder", skeleton=None, licence="not known", fields=("image",))


@dataclasses.dataclass(frozen=True)
class FolderSource:
  """Records {"image": [H, W, 3] uint8}, one per file of `paths`, which are relative to `root`."""

  root: str
  paths: tuple[str, ...]
  spec: base.SourceSpec

  def __len__(self):
    return len(self.paths)

  def __getitem__(self, i):
    return {"image": base.read_image(self.file(i))}

  @property
  def columns(self):
    return {}

  def name(self, i):
    return self.paths[i]

  def file(self, i):
    return os.path.join(self.root, self.paths[i])


def open_source(*, root, split="all", seed=0):
  """Opens a folder of pictures and its sub-folders, without hidden files and folders.

  Args:
    root: the folder.
    split: "all", the only split.
    seed: not used.
  Returns:
    FolderSource.
  Raises:
    ValueError: if the folder does not exist or has no picture, or if `split` is not "all".
  """
  del seed
  if split != "all":
    raise ValueError(f'split={split!r}: a plain folder of pictures has only the split "all"')
  base.check_folder(root, "a folder of pictures")
  paths = tuple(sorted(_list_below(root)))
  if not paths:
    endings = ", ".join(base.PICTURE_ENDINGS)
    raise ValueError(f"{root}: no picture in this folder or below it; expected files {endings}")
  return FolderSource(str(root), paths, _SPEC)


def _list_below(root, above=()):
  """Yields the paths of the pictures in `root` and below it, relative to `root`, without hidden names.

  Links to folders are followed, except a link to a folder that contains the link, which would never end.
  """
  above = (*above, os.path.realpath(root))
  yield from base.list_pictures(root)
  for folder in base.list_folders(root):
    if os.path.realpath(os.path.join(root, folder)) not in above:
      yield from (f"{folder}/{path}" for path in _list_below(os.path.join(root, folder), above))


def open_file(path):
  """Opens one picture as a source of one record.

  Raises:
    ValueError: if there is no such file.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f"{path}: no such picture; expected a picture file")
  return FolderSource(str(path.parent), (path.name,), _SPEC)

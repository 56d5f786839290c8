"""A source of people on whole pictures. The sources for 2D pose and for 3D pose use it."""

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from hap_jax.data.names import Names
from hap_jax.data.sources import base
from hap_jax.io import picture_orientation


@dataclasses.dataclass(frozen=True, eq=False)
class PicturePeople:
  """A source of N people on P pictures. A record has a whole picture and the fields of one person.

  All values are in arrays, so the pickle is small: COCO's 150,000 people take 40 MB.

  Attributes:
    folder: folder of the pictures.
    path: path of the annotation file.
    kind: name of an entry of the file for messages, such as "annotation".
    names: `Names` of the P picture files.
    picture_size: [P, 2] int32, (H, W) of the pictures from the annotation file. None: the file has no sizes.
    id: [N] int64, id of the person's entry in the file.
    picture: [N] int32, index of the person's picture in `names`.
    columns: {field: [N, ...] array}, all fields of a record except the image. The field box is [N, 4]
      float32, (left, top, right, bottom) of the person in pixels of the picture.
    spec: facts about the source.
  """

  folder: str
  path: str
  kind: str
  names: Names
  picture_size: np.ndarray | None
  id: np.ndarray
  picture: np.ndarray
  columns: Mapping[str, np.ndarray]
  spec: base.SourceSpec

  def __len__(self):
    return len(self.id)

  def __getitem__(self, index):
    path = self.file(index)
    base.check_utf8(self.names[self.picture[index]], f"{self.path}: {self.kind} {self.id[index]}")
    data = base.read_bytes(path)
    image = base.decode_image(data, path)
    self._check_size(index, image.shape[:2], data)
    return {"image": image} | {field: column[index] for field, column in self.columns.items()}

  def name(self, index):
    return f"{self.file(index)} ({self.kind} {self.id[index]})"

  def file(self, index):
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    return os.path.join(self.folder, self.names[self.picture[index]])

  def _check_size(self, index, found, data):
    """Raises BadRecordError if the annotations do not fit a picture of the size `found`, (H, W).

    Args:
      index: index of the record.
      found: (H, W) of the decoded picture.
      data: bytes of the picture file.
    """
    path, entry = self.file(index), f"{self.kind} {self.id[index]}"
    if self.picture_size is None:
      left, top, right, bottom = self.columns["box"][index].tolist()
      if left >= found[1] or top >= found[0] or right <= 0 or bottom <= 0:
        raise base.BadRecordError(
          f"{path}: the picture of {found} pixels (H, W) contains no part of the box of {entry} in "
          f"{self.path}"
        )
      return
    # A different size means that the file is another version of the picture. The annotations do not fit it.
    size = tuple(self.picture_size[self.picture[index]].tolist())
    if found == size:
      return
    problem = f"{path}: {found} pixels (H, W), but the annotation file states {size}"
    if found != size[::-1]:
      raise base.BadRecordError(f"{problem}: the file is another version of the picture")
    is_turned = picture_orientation.is_sideways(data)
    cause = (
      "the EXIF header says to turn the picture, but the pixels are read as they are stored"
      if is_turned
      else "the picture was turned and saved again"
    )
    raise base.BadRecordError(f"{problem}: height and width are exchanged, because {cause}")

"""Finds people in whole pictures, and writes a picture and the joints of each person, part by part."""

import dataclasses
import itertools

import cv2
import jax
import numpy as np

from hap_jax import sharding
from hap_jax.data import pose_parts
from hap_jax.data.sources import base
from hap_jax.inference import pose_folder
from hap_jax.io import picture_file
from hap_jax.io.progress import SILENT
from hap_jax.models import movenet

PICTURES = "pictures"  # folder of the pictures of people
_QUALITY = 95  # quality of their JPEG files


@dataclasses.dataclass(frozen=True)
class Settings:
  """The settings that change the people of a picture. They are the same for all processes and restarts.

  Attributes:
    side: the longer side of the pictures that the network sees, in pixels, a multiple of 32.
    threshold: people with a lower mean score of their joints are left out.
    margin: distance by which each side of a box moves outwards, as a share of its width or height.
    batch_size: pictures per batch. It changes the people by rounding errors.
  """

  side: int = 512
  threshold: float = 0.2
  margin: float = 0.1
  batch_size: int = 8

  def __post_init__(self):
    if self.side < movenet.MULTIPLE or self.side % movenet.MULTIPLE:
      raise ValueError(f"--side={self.side}: expected a multiple of {movenet.MULTIPLE}")
    if not 0 <= self.margin < np.inf:
      raise ValueError(f"--margin={self.margin}: expected at least 0")


def crop(
  model_path, pictures, out, settings, *, shard=(0, 1), max_bad_share=0.01, say=print, progress=SILENT
):
  """Finds people in the parts of this process, and writes the folder `out`.

  `out` is a folder of poses, see `data/pose_parts.py`. Its sub-folder `pictures` has a JPEG file per person.
  The parts have these further arrays with a row per person:
    frame    [n] int64, number of the frame; only for a video
    picture  [n] texts, path of the whole picture; only for pictures
    box      [n, 4] float32, (left, top, right, bottom) of the person in pixels of the whole picture. It is
             the box of the model, without margin
    score    [n] float32, mean score of the joints

  Args:
    model_path: file or folder of a MoveNet model for several people.
    pictures: a `whole_pictures.VideoFrames` or `FolderPictures`.
    out: pathlib.Path of the folder. If it has complete parts of the same settings, they are kept.
    settings: `Settings`.
    shard: (number of this process from 0, number of processes).
    max_bad_share: largest share of unreadable pictures or frames.
    say: prints a line.
    progress: a started `Progress` that counts pictures or frames.
  Raises:
    ValueError: if the model, the pictures or the folder do not fit, or if too many pictures cannot be read.
      Parts that are complete remain.
  """
  finder = Finder(model_path, settings.side, settings.batch_size, pictures.is_square)
  facts = {"model": finder.facts["digest"], **pictures.facts(), **dataclasses.asdict(settings)}
  pose_parts.start(out, facts)
  if pose_folder.is_complete(out, say):
    return
  (out / PICTURES).mkdir(exist_ok=True)
  allowed = pose_folder.Allowance(max_bad_share, pictures.num_items())
  with pictures.open(out, shard, say, progress) as items:
    for part, group in itertools.groupby(items, key=lambda item: item.part):
      rows = _crop_part(finder, group, out / PICTURES, settings, progress)
      people, unreadable = rows.pop("source"), rows["unreadable"]
      pose_parts.write_part(out / pictures.part_name(part), **rows, **pictures.columns(people))
      say(f"{pictures.part_name(part)}: {len(people):,} people, {len(unreadable):,} unreadable")
      allowed.add(unreadable)
      allowed.check()
  total = pictures.num_items()
  for line in pictures.remarks():
    say(line)
  pose_folder.finish(
    out,
    pictures.parts(),
    {**finder.facts, "exif": base.IGNORE, "settings": facts},
    total=total,
    unit=pictures.unit,
    max_bad_share=max_bad_share,
    layout=pose_folder.PARTS,
    read=lambda part, name: base.read_image(out / PICTURES / name),
    say=say,
  )


def _crop_part(finder, items, folder, settings, progress):
  """Writes the pictures of the people of a part. Returns the rows of the part, and "source", their names."""
  rows = {name: [] for name in ("name", "keypoints", "image_size", "box", "score", "source", "unreadable")}
  while batch := list(itertools.islice(items, settings.batch_size)):
    readable = [item for item in batch if item.image is not None]
    rows["unreadable"] += [item.name for item in batch if item.image is None]
    for item, found in zip(readable, finder.find([item.image for item in readable]), strict=True):
      for number, person in enumerate(_choose(found, item.image.shape[:2], settings)):
        name = f"{item.name}-{number}.jpg"
        left, top, right, bottom = person.crop
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # After a kill, an incomplete file is written again, because its part is not there.
        path.write_bytes(picture_file.encode_jpeg(item.image[top:bottom, left:right], _QUALITY))
        rows["name"].append(name)
        rows["keypoints"].append(person.keypoints - (left, top, 0))
        rows["image_size"].append((bottom - top, right - left))
        rows["box"].append(person.box)
        rows["score"].append(person.score)
        rows["source"].append(item.name)
    progress.add(len(batch))
  rows["box"] = np.asarray(rows["box"], np.float32).reshape(-1, 4)
  rows["score"] = np.asarray(rows["score"], np.float32)
  return rows


@dataclasses.dataclass(frozen=True)
class _Person:
  """A person in a picture: joints and box in pixels, the mean score of the joints, and the cut-out."""

  keypoints: np.ndarray
  box: np.ndarray
  score: float
  crop: tuple[int, int, int, int]


def _choose(found, size, settings):
  """Returns the list of `_Person` whose joints have a high enough score, the highest score first.

  Args:
    found: (keypoints [6, 17, 3], box [6, 4]), in pixels of the picture.
    size: (H, W) of the picture.
    settings: `Settings`.
  """
  people, (H, W) = [], size
  for keypoints, box in zip(*found, strict=True):
    score = float(keypoints[:, 2].mean())
    left, top, right, bottom = box.tolist()
    dx, dy = settings.margin * (right - left), settings.margin * (bottom - top)
    low = max(0, int(np.floor(left - dx))), max(0, int(np.floor(top - dy)))
    high = min(W, int(np.ceil(right + dx))), min(H, int(np.ceil(bottom + dy)))
    if score >= settings.threshold and high[0] > low[0] and high[1] > low[1]:
      people.append(_Person(keypoints, box, score, (*low, *high)))
  return sorted(people, key=lambda person: -person.score)


class Finder:
  """Finds people in pictures with MoveNet.

  Attributes:
    facts: plain JSON values about the model, see `pose_models.PoseModel`.
  """

  def __init__(self, path, side, batch_size, is_square):
    """Loads a model.

    Args:
      path: the file or the folder of the model.
      side: the longer side of the pictures that the network sees, in pixels.
      batch_size: pictures per batch. A smaller batch is filled up.
      is_square: True: the network sees squares, so that pictures of all shapes are one batch. False: it sees
        pictures of the shape of the first picture.
    Raises:
      ValueError: if the model does not find several people.
    """
    self._model = movenet.read(path)
    if movenet.side_of(self._model) is not None:
      raise ValueError(
        f"{path}: a model for one person; expected a model for several people, such as movenet-multipose"
      )
    self._mesh = sharding.make_mesh()
    sharding.check_batch_size(batch_size, self._mesh, "--batch_size")
    self._side, self._batch_size, self._is_square = side, batch_size, is_square
    self._variables = sharding.put_replicated(movenet.variables_of(self._model), self._mesh)
    self._find = jax.jit(
      lambda variables, image: movenet.find_people(self._model, variables, image),
      in_shardings=(None, sharding.batch_split(self._mesh)),
      out_shardings=sharding.replicated(self._mesh),
    )
    self.facts = movenet.facts(path, self._model)

  def find(self, images):
    """Finds people in at most `batch_size` pictures [H, W, 3] uint8.

    Returns:
      a list with (keypoints [6, 17, 3], box [6, 4]) per picture: x, y and score of each joint, and (left,
      top, right, bottom) of each person, in pixels of the picture. float32.
    """
    found = [None] * len(images)
    # Frames of a video may change their size. Each size of the network's input is one batch.
    sizes = [self._network_size(*image.shape[:2]) for image in images]
    for size in dict.fromkeys(sizes):
      rows = [i for i, other in enumerate(sizes) if other == size]
      for i, people in zip(rows, self._find_batch([images[i] for i in rows], size), strict=True):
        found[i] = people
    return found

  def _find_batch(self, images, size):
    batch = np.zeros((self._batch_size, *size, 3), np.uint8)
    factors = []
    for row, image in zip(batch, images, strict=False):
      H, W = image.shape[:2]
      h, w = self._scaled_size(H, W)
      kernel = cv2.INTER_AREA if h < H else cv2.INTER_LINEAR
      row[:h, :w] = cv2.resize(image, (w, h), interpolation=kernel)
      factors.append((size[1] * W / w, size[0] * H / h))  # shares of the network's input -> pixels
    image = sharding.put_batch({"image": batch}, self._mesh)["image"]
    people = jax.device_get(self._find(self._variables, image))
    for k, (x, y) in enumerate(factors):
      keypoints = people.keypoints[k][..., [1, 0, 2]] * np.float32((x, y, 1))
      yield keypoints, people.box[k][:, [1, 0, 3, 2]] * np.float32((x, y, x, y))

  def _scaled_size(self, H, W):
    """Returns (h, w) of a picture whose longer side becomes `side` pixels."""
    scale = self._side / max(H, W)
    return max(1, round(H * scale)), max(1, round(W * scale))

  def _network_size(self, H, W):
    """Returns (H, W) of the network's input for a picture. The picture is at its upper left corner."""
    if self._is_square:
      return self._side, self._side
    return tuple(-(-side // movenet.MULTIPLE) * movenet.MULTIPLE for side in self._scaled_size(H, W))

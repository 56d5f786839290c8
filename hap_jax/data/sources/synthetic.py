"""Source: synthetic people. Pictures are drawn when they are read, or all at the start.

The splits "train", "val" and "test" show different people. The eight pictures of a person follow each other.
"trainval" is "train" followed by "val".

For re-identification, the pictures of the test people are divided as in Market-1501. The first two pictures
of each person, by two cameras, are "query". The other six are "gallery". The last two of them are by the same
cameras as the query pictures. In Market-1501's rule, a gallery picture by the query's own camera is not a
match. The gallery has such pictures, so that this rule has an effect.
"""

import dataclasses
import functools

import numpy as np

from hap_jax.data import source_options
from hap_jax.data.columns import LazyColumns
from hap_jax.data.pose_truth import CocoTruth
from hap_jax.data.skeletons import COCO17, SKELETONS
from hap_jax.data.sources import base
from hap_jax.synthetic import camera, captions, coco_labels, draw, parallel, smpl_body, smpl_fit

SPLITS = ("train", "val", "test")
JOINTS = True
_FIELDS = (
  *("image", "keypoints_xy", "keypoints_visible", "keypoints_occluded", "box", "area"),
  *("attributes", "pid", "camid"),
  *("keypoints_3d", "joints_3d", "rotations", "intrinsics"),
  *("smpl_pose", "smpl_betas", "smpl_translation"),
)
_LABELS = ("keypoints_xy", "keypoints_visible", "keypoints_occluded", "box", "area")  # fields for `truth`
_JOINT_FIELDS = ("keypoints_xy", "keypoints_visible", "keypoints_occluded", "keypoints_3d")
_QUERIES = 2  # query pictures of each test person
_CHUNK = 128  # pictures drawn by one call to a worker process
_WORTH_A_POOL = 1000  # fewer pictures are drawn faster in this process than in new processes


@dataclasses.dataclass(frozen=True, eq=False)
class SyntheticSource:
  """Records of synthetic people; see `open_source`.

  Attributes:
    split: name of the split.
    seed: seed of the people and of the places.
    image_size: (H, W) of the pictures in pixels.
    indices: [N] int32, index of each record's picture for `draw.draw_person`.
    held: {field: [N, ...] array} if all records are kept in memory. None: a record is drawn when it is read.
    spec: facts about the source. Its skeleton is the order of the joints in the records.
  """

  split: str
  seed: int
  image_size: tuple[int, int]
  indices: np.ndarray
  held: dict[str, np.ndarray] | None
  spec: base.SourceSpec

  def __len__(self):
    return len(self.indices)

  def __getitem__(self, i):
    self._check(i)
    if self.held is not None:
      record = {name: value[i] for name, value in self.held.items()}
    else:
      record = _record(self.seed, int(self.indices[i]), self.image_size)
    return _in_order(record, self.spec.skeleton)

  def name(self, i):
    self._check(i)
    return f"synthetic/{self.split}/{i:06d} (seed {self.seed})"

  @functools.cached_property
  def columns(self):
    """`pid` and `camid`, [N] int32, and `attributes`, [N, 27] bool. Each is computed at its first use."""
    return LazyColumns({"pid": self._pids, "camid": self._camids, "attributes": self._attributes})

  def body(self):
    """Returns the body model for the fields smpl_pose, smpl_betas and smpl_translation, see `own_body`."""
    return own_body()

  def truth(self):
    """Returns the correct joints of all records, a CocoTruth, as in the files of `prepare synthetic`.

    The file names of the pictures are the names of the records. If the records are not held in memory, the
    first call draws all pictures.
    """
    return self._truth

  @functools.cached_property
  def _truth(self):
    held = self.held or _draw_all(self.seed, self.image_size, self.indices, _LABELS)
    skeleton = self.spec.skeleton
    records = (_in_order({name: held[name][i] for name in _LABELS}, skeleton) for i in range(len(self)))
    labels = [coco_labels.of_person(record, record["area"], self.image_size) for record in records]
    files = [self.name(i) for i in range(len(self))]
    content = coco_labels.file_content(self.image_size, files, labels, skeleton)
    numbers = np.arange(1, len(self) + 1)
    return CocoTruth(content, coco_labels.CATEGORY, numbers, np.ones(len(self), np.float32), numbers)

  def __getstate__(self):
    return {name: value for name, value in self.__dict__.items() if name not in ("columns", "_truth")}

  def _pids(self):
    return self.indices // draw.PICTURES_PER_PERSON

  def _camids(self):
    # The ids of the cameras depend on the place, and the place depends on the person.
    pids, person = np.unique(self._pids(), return_inverse=True)
    camids = np.array([draw.camids_of(self.seed, pid) for pid in pids.tolist()])
    return camids[person, self.indices % draw.PICTURES_PER_PERSON]

  def _attributes(self):
    pids, person = np.unique(self._pids(), return_inverse=True)
    looks = (draw.look_of(self.seed, pid) for pid in pids.tolist())
    return np.array([captions.attributes_of(look) for look in looks])[person]

  def captions(self, i):
    """Returns two descriptions of the person of record i, (str, str), without drawing the picture."""
    self._check(i)
    return captions.captions_of(draw.look_of(self.seed, int(self.indices[i]) // draw.PICTURES_PER_PERSON))

  def _check(self, i):
    if not 0 <= i < len(self):
      raise IndexError(f"record {i} of synthetic/{self.split}, which has {len(self)}")


def open_source(
  *,
  root="",
  split="train",
  seed=0,
  num_train=12000,
  num_val=1024,
  num_test=1024,
  image_size=(256, 128),
  hold_in_memory=False,
  skeleton="coco17",
):
  """Opens one split of synthetic people.

  Args:
    root: not used, because the people are drawn. It may be empty.
    split: "train", "val" or "test", which share no people. "query" and "gallery" are the two parts of "test".
      "trainval" is "train" followed by "val". With num_val=0 it is only "train".
    seed: whole number >= 0. Another seed gives other people and places.
    num_train, num_val, num_test: number of pictures of each split. num_test counts query plus gallery.
    image_size: (H, W) of the pictures in pixels.
    hold_in_memory: True: all pictures are drawn now, on all processors, and kept in memory. One picture takes
      H * W * 3 bytes.
    skeleton: order of the joints in the fields `keypoints_*`, a name in `skeletons.SKELETONS`, such as
      "aic14". Only the joints of COCO are known. Other joints of the skeleton are missing.
  Returns:
    SyntheticSource. Its records have the fields of person and re-identification records, and
      keypoints_occluded [K] bool (True: inside the picture, but hidden by the body itself or by an object)
      box [4] float32 (left, top, right, bottom in pixels)
      area [] float32 (number of pixels that show the person)
      attributes [27] bool
      keypoints_3d [K, 3], joints_3d [24, 3], rotations [24, 3, 3], intrinsics [3, 3] float32
      smpl_pose [72] float32 (24 rotation vectors in radians, the root in the camera frame)
      smpl_betas [10] float32, smpl_translation [3] float32 (metres in the camera frame)
    `draw.draw_person` describes most of them. SMPL's parameters are for the body model `body()`. `truth()`
    returns a CocoTruth.
  Raises:
    ValueError: if the split or the skeleton is unknown, or if the image size or the number of pictures is out
      of range.
  """
  del root
  return open_people(
    "synthetic",
    split=split,
    seed=seed,
    counts={"train": num_train, "val": num_val, "test": num_test},
    image_size=image_size,
    hold_in_memory=hold_in_memory,
    skeleton=skeleton,
  )


def published(split, options):
  """Returns the sizes of the drawn people of a split, see `base.py`."""
  defaults = source_options.defaults()["synthetic"]
  parts = ("train", "val") if split == "trainval" else (split,)
  records = sum(options.get(name, defaults[name]) for name in (f"num_{part}" for part in parts))
  return {
    "records": records,
    "persons": -(-records // draw.PICTURES_PER_PERSON),
    "attributes": len(captions.ATTRIBUTES),
    "joints": len(COCO17.joints),
  }


def open_people(name, *, split, seed, counts, image_size, hold_in_memory, skeleton=COCO17.name):
  """Opens one split of synthetic people for a source.

  Args:
    name: name of the source, for error messages.
    split, seed, image_size, hold_in_memory, skeleton: same as in `open_source`.
    counts: {"train": ..., "val": ..., "test": number of pictures}.
  Returns:
    SyntheticSource.
  Raises:
    ValueError: in the same cases as `open_source`.
  """
  people = "test" if split in ("query", "gallery") else split
  if people == "trainval":
    parts = ["train", "val"] if counts["val"] else ["train"]
    indices = np.concatenate([_split_indices(name, part, part, counts[part]) for part in parts])
  elif people in counts:
    indices = _split_indices(name, split, people, counts[people])
  else:
    raise ValueError(
      f"{name}: split={split!r}; expected one of {', '.join(counts)}, trainval, query, gallery"
    )
  size = tuple(int(side) for side in image_size)
  highest, widest = camera.MAX_SIZE
  if len(size) != 2 or not (16 <= size[0] <= highest and 16 <= size[1] <= widest):
    raise ValueError(
      f"{name}: image_size={image_size}; expected (H, W) from (16, 16) to ({highest}, {widest}) pixels "
      f"(config.data.{name}.image_size)"
    )
  if skeleton not in SKELETONS:
    raise ValueError(
      f"{name}: skeleton={skeleton!r}; expected one of {', '.join(SKELETONS)} (config.data.{name}.skeleton)"
    )
  return SyntheticSource(
    split=split,
    seed=int(seed),
    image_size=size,
    indices=indices,
    held=_draw_all(int(seed), size, indices) if hold_in_memory else None,
    spec=base.SourceSpec(
      "synthetic",
      SKELETONS[skeleton],
      licence="Apache-2.0 (made by this project)",
      fields=_FIELDS,
      labels={"attributes": captions.ATTRIBUTES},
      people=f"synthetic, seed {int(seed)}",  # with another seed, the same id means another person
    ),
  )


def own_body():
  """Returns the project's own body model in the layout of SMPL, a BodySet with one body for all genders."""
  return smpl_body.make_body_set()


def write_files(out, **options):
  """Draws people and writes them as plain files; see `export.write_folder`."""
  from hap_jax.synthetic import export  # the import is here because `export` imports this file

  return export.write_folder(out, **options)


def write_3dpw(out, **options):
  """Draws people and writes them in the layout of 3DPW; see `export_3dpw.write_folder`."""
  from hap_jax.synthetic import export_3dpw  # the import is here because `export_3dpw` imports this file

  return export_3dpw.write_folder(out, **options)


def _split_indices(name, split, people, count):
  """Returns the indices of a split's pictures, [n] int32.

  Args:
    name: name of the source, for error messages.
    split: name of the split: `people`, "query" or "gallery".
    people: "train", "val" or "test", the split that contains the pictures.
    count: number of pictures of `people`.
  """
  # The pictures of "val" begin at this index, so a larger "train" would contain people of "val".
  limit = draw.FIRST_INDEX["val"]
  least = {"query": 1, "gallery": _QUERIES + 1}.get(split, 1)
  if not least <= count <= limit:
    raise ValueError(
      f"{name}: num_{people}={count}; expected {least} to {limit} pictures "
      f"(config.data.{'' if people == 'val' else f'{name}.'}num_{people})"
    )
  indices = np.arange(draw.FIRST_INDEX[people], draw.FIRST_INDEX[people] + count, dtype=np.int32)
  if split == people:
    return indices
  is_query = indices % draw.PICTURES_PER_PERSON < _QUERIES
  return indices[is_query == (split == "query")]


def _record(seed, index, size):
  drawn = draw.draw_person(seed, index, size)
  drawn["area"] = np.float32(coco_labels.visible_area(drawn["parts"]))
  drawn |= smpl_fit.parameters_of(seed, drawn)
  record = {name: drawn[name] for name in _FIELDS}
  return record | {name: np.int32(record[name]) for name in ("pid", "camid")}


def _in_order(record, skeleton):
  """Returns a record with its joints in the order of a skeleton. Joints that COCO lacks are missing."""
  if skeleton is COCO17:
    return record
  rows = np.array([COCO17.joints.index(name) if name in COCO17.joints else -1 for name in skeleton.joints])
  ordered = dict(record)
  for field in _JOINT_FIELDS:
    if field in record:
      ordered[field] = record[field][rows]
      ordered[field][rows < 0] = 0
  return ordered


def _draw_chunk(seed, size, fields, indices):
  records = [_record(seed, index, size) for index in indices.tolist()]
  return {name: np.stack([record[name] for record in records]) for name in fields}


def _draw_all(seed, size, indices, fields=_FIELDS):
  """Draws records and returns {field: [N, ...] array}. The number of processes does not change the result."""
  chunks = [indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)]
  draw_chunk = functools.partial(_draw_chunk, seed, size, fields)
  parts = parallel.map_in_processes(draw_chunk, chunks, 0 if len(indices) < _WORTH_A_POOL else None)
  return {name: np.concatenate([part[name] for part in parts]) for name in fields}

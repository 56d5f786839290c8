"""Source: people of the test set of 3DPW (von Marcard et al., ECCV 2018) on whole pictures, for 3D pose.

  <root>/3DPW_latest_test.json
  <root>/imageFiles/<sequence>/*.jpg

3DCrowdNet publishes the annotation file, in COCO's layout. It has all people of the test sequences, with the
parameters of SMPL and with joints that OpenPose found. The box of a person is the tight box of these joints
(confidence above 0.05), enlarged by 1.2. A person without such joints has the annotated box. The records are
in the order of the annotation file.
"""

import os

import numpy as np
from absl import logging

from hap_jax.data import coco_annotations, json_entries
from hap_jax.data.body_model import GENDERS
from hap_jax.data.names import Names
from hap_jax.data.picture_people import PicturePeople
from hap_jax.data.sources import base
from hap_jax.data.transforms import square_crop

SPLITS = ("test",)
PLACES = ("annotations", "images")
FIELDS = ("image", "box", "smpl_pose", "smpl_betas", "smpl_translation", "gender", "intrinsics")
_LICENCE = "3DPW: non-commercial research (Max Planck); SMPL parameters: licence of SMPL"
_FILE = "3DPW_latest_test.json"
_FORMAT = "the annotations of 3DPW that 3DCrowdNet publishes"
_OPTION = "config.data.pw3d"
_CONFIDENCE = 0.05  # only joints of OpenPose with a higher confidence determine the box (official)
_NUM_OPENPOSE = 18
_OTHER_SPLITS = "courtyard_"  # prefix of sequences of train and validation, but not of test
_SIZES = {"pose": 72, "shape": 10, "trans": 3}


def open_source(*, root, split, seed, annotations="", images=""):
  """Opens the people of 3DPW's test set.

  Args:
    root: folder of the data set, which has imageFiles/ (config.data.eval_root, or config.data.root).
    split: "test".
    seed: not used, because the order is the order of the file.
    annotations: path of the annotation file, relative to `root`. "": 3DPW_latest_test.json.
    images: folder of the sequences, relative to `root`. "": imageFiles.
  Returns:
    PicturePeople. Its records have image, box, and
      smpl_pose [72] float32, axis-angles; the first one turns the body frame to the camera frame
      smpl_betas [10] float32
      smpl_translation [3] float32, metres in the camera frame
      gender int32, index in `body_model.GENDERS`
      intrinsics [3, 3] float32, pixels of the picture
  Raises:
    ValueError: if a file or key is missing, or if the format does not allow a value.
  """
  del seed
  base.check_root(root, f"{_FILE} and imageFiles/")
  if split not in SPLITS:
    raise ValueError(
      f'split={split!r}: pw3d has only "test", because the official code trains on other data sets'
    )
  path = os.path.join(root, annotations or _FILE)
  _check_kind(path, root)
  folder = os.path.join(root, images or "imageFiles")
  base.check_folder(folder, f"one folder per sequence of 3DPW ({_OPTION}.images)")
  file = coco_annotations.read(path, f"{_OPTION}.annotations")
  names, intrinsics = _read_pictures(file)
  columns, ids, pictures, num_fallback = _read_people(file)
  notes = []
  if num_fallback:
    notes.append(
      f"{path}: {num_fallback:,} people have no joints of OpenPose, so their annotated boxes are used"
    )
  for note in notes:
    logging.warning("pw3d: %s", note)
  return PicturePeople(
    folder=folder,
    path=path,
    kind="annotation",
    names=Names.of(names),
    picture_size=file.picture_size,
    id=ids,
    picture=pictures,
    columns=columns | {"intrinsics": intrinsics[pictures]},
    spec=base.SourceSpec("pw3d", None, _LICENCE, fields=FIELDS, notes=tuple(notes)),
  )


def _check_kind(path, root):
  """Raises ValueError if the annotation file is one of 3DPW's own pickles, or if only such pickles exist."""
  remedy = f"expected {_FILE}, {_FORMAT} (github.com/hongsukchoi/3DCrowdNet_RELEASE)"
  if path.endswith(".pkl"):
    raise ValueError(f"{path}: a pickle of 3DPW's sequenceFiles, which is not read; {remedy}")
  if not os.path.isfile(path) and os.path.isdir(os.path.join(root, "sequenceFiles")):
    raise ValueError(f"{path}: no such file, and the pickles in sequenceFiles/ are not read; {remedy}")


def _read_pictures(file):
  """Reads the list `images`. Returns (names below the folder, intrinsics [P, 3, 3] float32)."""
  names, intrinsics = [], np.zeros((len(file.picture_id), 3, 3), np.float32)
  sequences = [
    json_entries.text(image, "sequence", f"{file.path}: image {number}")
    for image, number in zip(file.content["images"], file.picture_id.tolist(), strict=True)
  ]
  base.check_relative(sequences, lambda i: f"{file.path}: image {file.picture_id[i]}")
  for row, (image, sequence) in enumerate(zip(file.content["images"], sequences, strict=True)):
    where = f"{file.path}: image {file.picture_id[row]}"
    if sequence.startswith(_OTHER_SPLITS):
      raise ValueError(
        f"{where} is of the sequence {sequence}, which is in 3DPW's train or validation set: expected {_FILE}"
      )
    camera = _object(image, "cam_param", where)
    focal = json_entries.numbers(camera, "focal", where, 2, "pixels")
    center = json_entries.numbers(camera, "princpt", where, 2, "pixels")
    if min(focal) <= 0:
      raise ValueError(f"{where} has {json_entries.show(focal)} under focal, expected numbers above 0")
    intrinsics[row] = ((focal[0], 0, center[0]), (0, focal[1], center[1]), (0, 0, 1))
    names.append(f"{sequence}/{file.names[row]}")
  return names, intrinsics


def _read_people(file):
  """Reads the list `annotations`. Returns (columns, ids [N], pictures [N], number of fallbacks)."""
  ids, pictures, rows, num_fallback = [], [], [], 0
  for annotation, number, row, where in coco_annotations.entries(file):
    smpl = _object(annotation, "smpl_param", where)
    values = {
      key: json_entries.numbers(smpl, key, where, count, f"{key} of SMPL") for key, count in _SIZES.items()
    }
    gender = json_entries.text(smpl, "gender", where)
    if gender not in GENDERS:
      raise ValueError(f"{where} has {gender!r} under gender, expected one of {', '.join(GENDERS)}")
    box, is_fallback = _box(annotation, where)
    num_fallback += is_fallback
    ids.append(number)
    pictures.append(row)
    rows.append((box, *values.values(), GENDERS.index(gender)))
  if not rows:
    raise ValueError(f"{file.path}: no annotations; expected {_FORMAT}")
  box, pose, betas, translation, gender = zip(*rows, strict=True)
  columns = {
    "box": np.array(box, np.float32),
    "smpl_pose": np.array(pose, np.float32),
    "smpl_betas": np.array(betas, np.float32),
    "smpl_translation": np.array(translation, np.float32),
    "gender": np.array(gender, np.int32),
  }
  return columns, np.array(ids, np.int64), np.array(pictures, np.int32), num_fallback


def _box(annotation, where):
  """Returns ((left, top, right, bottom), whether it is the annotated box)."""
  x, y, width, height = coco_annotations.read_box(annotation, where)
  joints = json_entries.list_of(
    annotation, "openpose_result", where, _NUM_OPENPOSE, "joints of OpenPose (x, y, confidence)"
  )
  joints = np.array(
    [json_entries.numbers({"joint": joint}, "joint", where, 3, "x, y, confidence") for joint in joints]
  )
  tight = square_crop.joint_box(joints[:, :2], joints[:, 2] > _CONFIDENCE)
  is_fallback = tight is None or not (tight[2:] > tight[:2]).all()  # the box of a single joint has no area
  return (x, y, x + width, y + height) if is_fallback else tight, is_fallback


def _object(entry, key, where):
  value = json_entries.get(entry, key, where)
  json_entries.check_object(value, f"{where}: {key}", _FORMAT)
  return value

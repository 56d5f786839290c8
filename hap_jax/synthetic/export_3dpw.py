"""Writes pictures of synthetic people and their bodies to a folder, in the layout of 3DPW.

  imageFiles/person_0003/image_00005.jpg  picture 5 of person 3: one sequence per person
  3DPW_latest_test.json                   camera, box, SMPL's parameters and OpenPose's joints
  body/                                   the body model of these parameters, in the format of `hap body`
  README.txt                              description of the folder

The JSON file has the layout of the file with the same name by the authors of 3DCrowdNet. A picture has
{id, width, height, sequence, file_name, cam_param {focal, princpt}}. A person has {id, image_id, bbox,
smpl_param {pose, shape, trans, gender}, openpose_result}. The people are the split "test".
"""

import dataclasses
import pathlib

import numpy as np

from hap_jax.data import body_model
from hap_jax.data.skeletons import JOINT_ORDERS
from hap_jax.data.sources.synthetic import open_source, own_body
from hap_jax.io import unfinished
from hap_jax.io.progress import SILENT
from hap_jax.synthetic import camera, draw, export, smpl_fit
from hap_jax.synthetic.body import JOINT_INDEX

PICTURES = "imageFiles"
LIST = "3DPW_latest_test.json"
BODY = "body"
# The 18 joints of OpenPose. Nose, eyes and ears are points on the skin.
OPENPOSE = JOINT_ORDERS["openpose18_pelvis"][:18]
_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")  # the first rows of keypoints_3d
_ROW_OF = JOINT_INDEX | {name: len(JOINT_INDEX) + k for k, name in enumerate(_FACE)}
_OPENPOSE_ROWS = [_ROW_OF[name] for name in OPENPOSE]


@dataclasses.dataclass(frozen=True)
class _Row:
  """One picture.

  Attributes:
    file: path relative to the folder.
    sequence: name of the person's sequence.
    index: index of the picture for `draw.draw_person`.
  """

  file: str
  sequence: str
  index: int


def write_folder(out, *, seed=0, num_test=1024, image_size=(256, 128), workers=None, progress=SILENT):
  """Draws people and writes pictures, parameters and body to a new folder.

  The folder has a temporary name until it is complete. So the folder `out` is never incomplete.

  Args:
    out: folder to create.
    seed: same as in `sources.synthetic`.
    num_test: same as in `sources.synthetic`.
    image_size: same as in `sources.synthetic`.
    workers: same as in `export.write_folder`.
    progress: same as in `export.write_folder`.

  Returns:
    {"test": number of pictures}.

  Raises:
    ValueError: if `out` exists, its parent folder does not exist, or a number is out of range.
  """
  out, size = pathlib.Path(out), tuple(image_size)
  unfinished.check_new(out)
  source = open_source(split="test", seed=seed, num_test=num_test, image_size=size)
  rows = _list_rows(source)
  with unfinished.new_folder(out) as part:
    for sequence in dict.fromkeys(row.sequence for row in rows):
      (part / PICTURES / sequence).mkdir(parents=True)
    progress.begin(len(rows), "pictures")
    people = export.write_pictures(part, seed, size, rows, _label, workers, progress)
    progress.stage("writing annotations and body")
    export.write_json(part / LIST, _content(size, rows, people))
    body_model.write_body_set(part / BODY, own_body())
    (part / "README.txt").write_text(_readme(seed, size, len(rows)), encoding="utf-8")
  return {"test": len(rows)}


def _list_rows(source):
  """Lists the pictures of a split. Persons are numbered from 1, the pictures of a person from 0."""
  rows, numbers = [], {}
  for index, pid in zip(source.indices.tolist(), source.columns["pid"].tolist(), strict=True):
    sequence = f"person_{numbers.setdefault(pid, len(numbers) + 1):04d}"
    file = f"{PICTURES}/{sequence}/image_{index % draw.PICTURES_PER_PERSON:05d}.jpg"
    rows.append(_Row(file, sequence, index))
  return rows


def _label(seed, size, drawn):
  """Returns the camera and the person of a picture, in the layout of the JSON file."""
  parameters = smpl_fit.parameters_of(seed, drawn)
  focal, center = drawn["intrinsics"].diagonal()[:2], drawn["intrinsics"][:2, 2]
  return {
    "cam_param": {"focal": focal.tolist(), "princpt": center.tolist()},
    "person": {
      "bbox": _box(drawn["box"].astype(float), size),
      "smpl_param": {
        "pose": parameters["smpl_pose"].tolist(),
        "shape": parameters["smpl_betas"].tolist(),
        "trans": parameters["smpl_translation"].tolist(),
        "gender": "female" if draw.look_of(seed, drawn["pid"]).is_female else "male",
      },
      "openpose_result": _openpose(drawn, size),
    },
  }


def _box(box, size):
  """Returns a person's box inside the picture as (x, y, w, h), from pixel x to pixel x + w - 1."""
  H, W = size
  left, top = np.clip(np.floor(box[:2] + 0.5), 0, (W - 1, H - 1))
  right, bottom = np.clip(np.floor(box[2:] + 0.5), 0, (W - 1, H - 1))
  return [left, top, right - left + 1, bottom - top + 1]


def _openpose(drawn, size):
  """Returns 18 joints in the form of OpenPose: x, y, confidence. A joint outside the picture is 0, 0, 0."""
  points = np.concatenate([drawn["joints_3d"], drawn["keypoints_3d"][: len(_FACE)]])[_OPENPOSE_ROWS]
  xy = camera.project(points.astype(float), drawn["intrinsics"].astype(float))
  # The picture ends half a pixel outside the centres of its border pixels.
  inside = ((xy >= -0.5) & (xy < np.array(size[::-1]) - 0.5)).all(axis=1)
  rows = np.where(inside[:, None], np.concatenate([xy.round(3), np.ones((len(xy), 1))], axis=1), 0)
  return rows.tolist()


def _content(size, rows, people):
  H, W = size
  pairs = list(enumerate(zip(rows, people, strict=True)))
  return {
    "images": [
      {
        "id": k,
        "width": W,
        "height": H,
        "sequence": row.sequence,
        "file_name": pathlib.PurePosixPath(row.file).name,
        "cam_param": person["cam_param"],
      }
      for k, (row, person) in pairs
    ],
    "annotations": [{"id": k, "image_id": k} | person["person"] for k, (_, person) in pairs],
  }


def _readme(seed, size, count):
  H, W = size
  return f"""Synthetic people in the layout of 3DPW, drawn by hap_jax: nobody in these pictures exists.

seed {seed}, {H}x{W} pixels (height x width), {count} pictures, {draw.PICTURES_PER_PERSON} of each person
The command was

  python -m hap_jax.cli prepare synthetic --format=3dpw --out=DIR --seed={seed} --image_size={H}x{W}
    --num_test={count}

{PICTURES}/
    one sequence per person.
{LIST}
    camera, box, SMPL's parameters and the 18 joints of OpenPose. The parameters are in the camera frame (x
    right, y down, z forward), in radians and metres. They pose the body in {BODY}/, not SMPL's body. In
    pixel positions, pixel centres are whole numbers: the centre of the first pixel is (0, 0). A box (x, y,
    w, h) goes from pixel x to pixel x + w - 1. The confidence of a joint is 1 inside the picture and 0
    outside it.
{BODY}/
    the body, for people of every gender.

Pictures are JPEG files of quality 95 with colours at full resolution.
Licence: Apache-2.0 (https://www.apache.org/licenses/LICENSE-2.0), for the pictures, the labels and the body.
"""

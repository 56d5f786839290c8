"""Returns joints, boxes and areas of drawn people in COCO's keypoint format."""

import numpy as np

from hap_jax.data.skeletons import COCO17
from hap_jax.synthetic import anatomy

CATEGORY = 1  # id of the category "person"
_BODY = (anatomy.PART_INDEX["head"], anatomy.PART_INDEX["right_foot"])  # first and last part of the person


def visible_area(parts):
  """Returns the number of pixels that show the person. `parts` has the part label of each pixel, [H, W]."""
  return int(((parts >= _BODY[0]) & (parts <= _BODY[1])).sum())


def of_person(drawn, area, size):
  """Returns the joints, box and area of a record in COCO's format.

  A joint is labelled if 0 <= x < W and 0 <= y < H. COCO's flag v is 0 for a joint that is not labelled, 1 for
  a hidden joint and 2 for a visible joint. The box encloses body and clothes. It is clipped to the
  picture and measured between pixel edges.

  Args:
    drawn: the record, with keypoints_xy, keypoints_visible, keypoints_occluded and box.
    area: number of pixels that show the person.
    size: (H, W) of the picture in pixels.
  Returns:
    dict with keypoints, num_keypoints, bbox and area.
  """
  H, W = size
  # Coordinates are rounded before this test, because the file has rounded coordinates and must fit its flags.
  xy = np.round(drawn["keypoints_xy"].astype(float), 2)
  labelled = drawn["keypoints_visible"] & (xy >= 0).all(axis=1) & (xy < (W, H)).all(axis=1)
  v = np.where(labelled, 2 - drawn["keypoints_occluded"].astype(int), 0)
  keypoints = [
    [*point, flag] if flag else [0, 0, 0] for point, flag in zip(xy.tolist(), v.tolist(), strict=True)
  ]
  # COCO's origin is the edge of the first pixel. The origin of the record is the centre of this pixel.
  left, top, right, bottom = np.clip(drawn["box"].astype(float) + 0.5, 0, (W, H, W, H)).round(2).tolist()
  return {
    "keypoints": [value for joint in keypoints for value in joint],
    "num_keypoints": int(labelled.sum()),
    "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
    "area": int(area),
  }


def file_content(size, files, labels, skeleton=COCO17):
  """Returns the content of a COCO keypoint file with one person per picture, numbered from 1.

  Args:
    size: (H, W) of the pictures in pixels.
    files: names of the picture files.
    labels: the result of `of_person` for each picture.
    skeleton: the `Skeleton` of the joints.
  """
  height, width = size
  licence = {"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
  person = {
    "id": CATEGORY,
    "name": "person",
    "supercategory": "person",
    "keypoints": skeleton.joints,
    "skeleton": [[a + 1, b + 1] for a, b in skeleton.bones],  # COCO counts joints from 1
  }
  return {
    "info": {"description": "synthetic people of hap_jax"},
    "licenses": [licence],
    "categories": [person],
    "images": [
      {"id": k, "file_name": file, "height": height, "width": width, "license": 1}
      for k, file in enumerate(files, start=1)
    ],
    "annotations": [
      {"id": k, "image_id": k, "category_id": CATEGORY, "iscrowd": 0} | label
      for k, label in enumerate(labels, start=1)
    ],
  }

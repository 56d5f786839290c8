"""The correct joints of a data set for 2D pose, in the form that its score needs.

A source for 2D pose has a method `truth()`, which returns one of these records, or None if its split cannot
be scored.
"""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class CocoTruth:
  """The truth of N records that are scored by average precision (AP), as in COCO.

  Attributes:
    annotations: the content of the annotation file, unchanged: a dict with the lists "images", "annotations"
      and "categories". It includes crowds and people without joints, because the score needs them.
    category_id: id of the category of people in this file.
    image_id: [N] int64, id of the picture of each record in the annotation file.
    box_score: [N] float32, confidence of the box of each record; 1 for a box of the annotation file.
    person_id: [N] int64, id of the annotation of each record. None: the boxes come from a detector.
  """

  annotations: dict[str, Any]
  category_id: int
  image_id: np.ndarray
  box_score: np.ndarray
  person_id: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False)
class MpiiTruth:
  """The truth of N records that are scored by PCKh, as in MPII.

  Attributes:
    xy_one_based: [N, 16, 2] float64, joints (x, y) in pixels, counted from 1.
    is_missing: [N, 16] bool. True: the joint is not annotated, and its xy has no meaning.
    head_box: [N, 2, 2] float64, two opposite corners (x, y) of the box of the head in pixels.
  """

  xy_one_based: np.ndarray
  is_missing: np.ndarray
  head_box: np.ndarray

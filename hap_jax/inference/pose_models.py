"""Models that find COCO's 17 joints of the person in a box, for `hap extract_poses`.

A model is a checkpoint for 2D pose in any format that `convert.read` reads.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hap_jax.convert import lineage as lineages
from hap_jax.convert import read as reading
from hap_jax.convert.weights import flatten
from hap_jax.data.skeletons import COCO17
from hap_jax.data.transforms import topdown
from hap_jax.inference.predict import pose2d as predicting
from hap_jax.tasks import pose2d


@dataclasses.dataclass(frozen=True)
class PoseModel:
  """A model that finds the joints of one person.

  Attributes:
    predict: a pure function (variables, batch) -> {"keypoints_xy": [B, 17, 2] float32, joints in pixels of
      the whole picture, "score": [B, 17] float32}.
    variables: the variables of the model.
    view: transforms of a record with the whole picture and the box, see `transforms.topdown`.
    fields: names of the fields that `predict` reads from the batch.
    facts: plain JSON values: "file", "family", "licence", "lineage" (lines of text) and "digest" (SHA-256 of
      the weights).
  """

  predict: Callable
  variables: Any
  view: tuple[Callable, ...]
  fields: tuple[str, ...]
  facts: Mapping[str, Any]


def load(path, *, padding=topdown.PADDING, flip_test=True):
  """Loads a model.

  Args:
    path: a checkpoint for 2D pose.
    padding: width of the region that the model sees divided by the width of the box. The same for the height.
    flip_test: True: the heat maps are averaged with the heat maps of the mirrored image.
  Raises:
    ValueError: if the file is no such model, or if it does not find all 17 joints of COCO.
  """
  weights = reading.read(path)
  skeleton = predicting.skeleton_of(path, weights)
  _check_joints(path, skeleton)
  description = weights.description
  facts = {
    "file": str(path),
    "family": weights.family,
    "licence": weights.licence,
    "lineage": [lineages.text(origin) for origin in weights.lineage],
    "digest": digest(weights.variables),
  }
  return PoseModel(
    predict=pose2d.make_predict(description, COCO17, flip_test),
    variables=weights.variables,
    view=predicting.view_of(description, padding=padding),
    fields=("image", "region", "is_udp"),
    facts=facts,
  )


def _check_joints(path, skeleton):
  missing = [joint for joint in COCO17.joints if joint not in skeleton.joints]
  if skeleton is not COCO17:
    raise ValueError(
      f"{path}: it finds the {len(skeleton.joints)} joints of {skeleton.name}, without "
      f"{', '.join(missing)}; expected a model for the 17 joints of COCO, because body parts need "
      "them"
    )


def digest(variables):
  """Returns the SHA-256 of all arrays of nested dicts, as a text."""
  result = hashlib.sha256()
  for name, array in sorted(flatten(variables).items()):
    array = np.ascontiguousarray(array)
    result.update(f"{name} {array.dtype} {array.shape}\n".encode())
    result.update(array.tobytes())
  return result.hexdigest()

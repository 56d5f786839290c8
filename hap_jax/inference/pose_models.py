"""Models that find COCO's 17 joints of the person in a box, for `hap extract_poses`.

A model is a checkpoint for 2D pose in any format that `convert.read` reads, or MoveNet for one person.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hap_jax.convert import lineage as lineages
from hap_jax.convert import read as reading
from hap_jax.convert.selection import WHOLE
from hap_jax.convert.weights import flatten
from hap_jax.data.skeletons import COCO17
from hap_jax.data.transforms import topdown
from hap_jax.inference.predict import pose2d as predicting
from hap_jax.io import tfjs_file
from hap_jax.models import movenet
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


def load(path, *, padding=topdown.PADDING, flip_test=True, selection=WHOLE, data_set=""):
  """Loads a model.

  Args:
    path: a checkpoint for 2D pose, or the file or folder of a MoveNet model for one person.
    padding: width of the region that the model sees divided by the width of the box. The same for the height.
    flip_test: True: the result is averaged with the result of the mirrored image. For checkpoints of 2D pose,
      it is the mean of the heat maps. For MoveNet, it is the mean of the joints and of their scores.
    selection: a `Selection`, the part of a checkpoint to read.
    data_set: label of the data set whose expert and head are used, if the checkpoint has several. "": the
      first.
  Raises:
    ValueError: if the file is no such model, if it does not find all 17 joints of COCO, or if it has no such
      data set.
  """
  if tfjs_file.find(path) is not None:
    if data_set:
      raise ValueError(f"{path}: MoveNet has no data set {data_set}: remove --dataset")
    return _load_movenet(path, padding, flip_test)
  weights = pose2d.of_data_set(reading.read(path, selection=selection), data_set)
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


def _load_movenet(path, padding, flip_test):
  model = movenet.read(path)
  side = movenet.side_of(model)
  if side is None:
    raise ValueError(
      f"{path}: it finds several people in a picture, but extract_poses needs a model for one person, such "
      "as movenet-thunder: use this model with hap crop"
    )

  def predict(variables, batch):
    share, score = movenet.find_joints(model, variables, batch["image"])
    if flip_test:
      mirrored, its_score = movenet.find_joints(model, variables, batch["image"][:, :, ::-1])
      mirrored = mirrored.at[..., 0].set((side - 1) / side - mirrored[..., 0])  # pixel x becomes side - 1 - x
      share = (share + mirrored[:, _MIRRORED]) / 2
      score = (score + its_score[:, _MIRRORED]) / 2
    # The region is a square. It was cut out by the rule "msra", whose inverse this is.
    region = batch["region"][:, None]
    return {"keypoints_xy": region[..., :2] + (share - 0.5) * region[..., 2:], "score": score}

  view = topdown.make_view(
    image_size=(side, side), codec="msra", fit_aspect=True, clip=False, padding=padding
  )
  return PoseModel(
    predict, movenet.variables_of(model), view, ("image", "region"), movenet.facts(path, model)
  )


def _mirrored_order():
  """Returns [17] integers: the row of each joint in a mirrored person."""
  order = np.arange(len(COCO17.joints))
  for left, right in COCO17.flip_pairs:
    order[[left, right]] = right, left
  return order


_MIRRORED = _mirrored_order()


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

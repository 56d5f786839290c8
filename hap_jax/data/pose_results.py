"""Reads and writes predicted poses: COCO's results (keypoints.json) and predictions for MPII (pred.mat)."""

import io
import json
import os

import numpy as np

from hap_jax.data.json_entries import show
from hap_jax.data.skeletons import MPII16
from hap_jax.io import mat_file, regular_file, unfinished

_MAX_ID = 2**63 - 1  # ids are stored as int64
_MAX_NUMBER = float(np.finfo(np.float32).max)  # joints are stored as float32
_MPII_KEY = "preds"


def write_coco_results(path, results):
  """Writes COCO results to a JSON file. An older file is replaced in one step.

  Args:
    path: the file.
    results: list of dicts with plain Python numbers, such as the result of `keypoints2d.make_results`.
  Raises:
    ValueError: if a number is not finite.
  """
  try:
    text = json.dumps(results, allow_nan=False, separators=(",", ":"))
  except ValueError as error:
    raise ValueError(f"{path}: the results cannot be written as JSON: {error}") from error
  unfinished.write(path, text)


def read_coco_results(path, skeleton):
  """Reads a JSON file of COCO results from any program.

  Args:
    path: the file, a list of results.
    skeleton: `Skeleton` of the data set.
  Returns:
    list of dicts {"image_id", "category_id", "keypoints", "score"}; "keypoints" is a list with x, y and score
    of each joint. Other values in the file are left out.
  Raises:
    OSError: if the file cannot be read.
    ValueError: if the file is missing or is not a list of results of this skeleton. The message has the
      position of the first wrong result, from 1.
  """
  results = _read_json(path)
  if not isinstance(results, list):
    raise ValueError(f"{path}: found {show(results)}; expected a list of COCO results")
  return [
    _check_result(result, skeleton, f"{path}: result number {number} of {len(results)}")
    for number, result in enumerate(results, start=1)
  ]


def _read_json(path):
  _check_file(path, "a JSON file of COCO results")
  try:
    return json.loads(regular_file.read_bytes(path).decode("utf-8-sig"))
  except RecursionError as error:
    raise ValueError(f"{path}: its lists or objects are nested too deeply to be read") from error
  except ValueError as error:
    raise ValueError(f"{path}: not a readable JSON file: {error}") from error


def _check_result(result, skeleton, where):
  """Returns the values of a result that the score needs."""
  if not isinstance(result, dict):
    raise ValueError(f"{where} is {show(result)}; expected an object of COCO results")
  for key in ("image_id", "category_id", "keypoints", "score"):
    if key not in result:
      raise ValueError(f'{where} has no key "{key}"; expected image_id, category_id, keypoints and score')
  keypoints, K = result["keypoints"], len(skeleton.joints)
  what = f"{3 * K} numbers: x, y and score of the {K} joints of {skeleton.name}"
  if not isinstance(keypoints, list):
    raise ValueError(f"{where} has {show(keypoints)} under keypoints; expected {what}")
  if len(keypoints) != 3 * K:
    found = f"{len(keypoints)} values" + ("" if len(keypoints) % 3 else f" ({len(keypoints) // 3} joints)")
    raise ValueError(f"{where} has {found} under keypoints; expected {what}")
  for value in keypoints:
    if not _is_number(value):
      raise ValueError(f"{where} has {show(value)} among the values under keypoints; expected {what}")
  if not _is_number(result["score"]):
    raise ValueError(f"{where} has {show(result['score'])} under score; expected a finite number")
  return {
    "image_id": _whole_number(result, "image_id", where),
    "category_id": _whole_number(result, "category_id", where),
    "keypoints": keypoints,
    "score": result["score"],
  }


def _is_number(value):
  # A bool is not accepted, although bool is a kind of int in Python. The comparison is False for NaN.
  return type(value) in (int, float) and -_MAX_NUMBER <= value <= _MAX_NUMBER


def _whole_number(result, key, where):
  value = result[key]
  # Some programs write 7.0 for 7.
  number = int(value) if type(value) is float and value.is_integer() else value
  if type(number) is not int or not -_MAX_ID <= number <= _MAX_ID:
    raise ValueError(f"{where} has {show(value)} under {key}; expected a whole number")
  return number


def write_mpii_results(path, xy_one_based):
  """Writes predicted joints to a .mat file (version 5), as the official code does for MPII.

  Args:
    path: the file. An older file is replaced in one step.
    xy_one_based: [N, 16, 2], joints in pixels, counted from 1. NaN: no prediction.
  Raises:
    ValueError: if the array has another shape, or contains infinite numbers.
  """
  import scipy.io  # imported here because it takes 0.4 s, and workers of a loader may import this module

  xy = np.atleast_1d(xy_one_based)
  file = io.BytesIO()
  scipy.io.savemat(file, {_MPII_KEY: _check_joints(xy, len(xy), path)})
  unfinished.write(path, file.getvalue())


def read_mpii_results(path, num_people):
  """Reads a .mat file with predicted joints for MPII.

  Args:
    path: the file, with the variable "preds".
    num_people: number of people N in the data set.
  Returns:
    [N, 16, 2] float64, joints in pixels, counted from 1. NaN: no prediction.
  Raises:
    OSError: if the file cannot be read.
    ValueError: if the file is missing, is not a .mat file, or has no variable "preds" with finite numbers or
      NaN of this shape.
  """
  _check_file(path, f'a .mat file of predicted joints, with the variable "{_MPII_KEY}"')
  values = mat_file.pick(mat_file.load(path), (_MPII_KEY,), path)
  return _check_joints(values[_MPII_KEY], num_people, f"{path}: variable {_MPII_KEY}")


def _check_joints(xy, num_people, where):
  """Returns joints as [num_people, 16, 2] float64. Raises ValueError for wrong shapes or infinite numbers."""
  shape = (num_people, len(MPII16.joints), 2)
  if not isinstance(xy, np.ndarray) or xy.dtype.kind not in "iuf" or xy.shape != shape:
    raise ValueError(
      f"{where}: found {mat_file.describe(xy)}; expected numbers of shape {shape}: people, joints, x and y"
    )
  xy = xy.astype(np.float64)
  is_infinite = np.isinf(xy).any(axis=(1, 2))
  if is_infinite.any():
    raise ValueError(
      f"{where}: the joints of {is_infinite.sum()} people are infinite, the first in row "
      f"{np.argmax(is_infinite)}; expected finite numbers, or NaN for no prediction"
    )
  return xy


def _check_file(path, what):
  if not os.path.exists(path):
    raise ValueError(f"{path}: no such file; expected {what}")

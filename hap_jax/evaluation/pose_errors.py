"""Compares predicted poses with the truth, person by person, for the pictures of an evaluation."""

import collections
import dataclasses

import numpy as np

from hap_jax.metrics import keypoints2d, oks

_PADDING = 1.25  # side of the shown region divided by the side of the annotated box


@dataclasses.dataclass(frozen=True)
class Scale:
  """The definition of a score: the length by which errors are divided, and the threshold.

  Attributes:
    score: name of the score. The score is the share of joints with an error of at most `threshold`.
    threshold: largest error of a correct joint, in units of the length.
    unit: name of the length.
    limit: largest threshold in the curve.
    full: value of the score if all joints are correct, 1 or 100.
  """

  score: str
  threshold: float
  unit: str
  limit: float
  full: int


PCK = Scale("PCK@0.1", 0.1, "longer side of the box", 0.3, 1)
PCKH = Scale("PCKh", 0.5, "size of the head", 1.0, 100)


@dataclasses.dataclass(frozen=True, eq=False)
class PoseErrors:
  """Predictions and truth of P people with at least one labelled joint.

  Attributes:
    record: [P] int64, index of a record with the picture of the person. -1: there is no such record, or its
      picture cannot be read.
    xy: [P, K, 2] float64, predicted joints in pixels. NaN: the person has no prediction.
    truth_xy: [P, K, 2] float64, true joints in pixels.
    is_labelled: [P, K] bool, True for the joints that are annotated.
    is_counted: [K] bool, True for the joints that count in the total.
    error: [P, K] float64, distance to the truth divided by the length of `scale`. inf: the person has no
      prediction or no size.
    region: [P, 4] float64, (centre x, centre y, width, height) in pixels, the part of the picture to show.
    quality: [P] float64, such as the OKS. The person with the lowest quality is the worst.
    remarks: [P] texts about the quality, such as "OKS 0.52".
    scale: the `Scale` of the errors.
    note: a sentence about the choice of the predictions, or "".
  """

  record: np.ndarray
  xy: np.ndarray
  truth_xy: np.ndarray
  is_labelled: np.ndarray
  is_counted: np.ndarray
  error: np.ndarray
  region: np.ndarray
  quality: np.ndarray
  remarks: tuple[str, ...]
  scale: Scale
  note: str = ""

  def joint_shares(self):
    """Returns [K] float64, the score of each joint. NaN: the joint is never labelled."""
    count = self.is_labelled.sum(axis=0)
    hits = ((self.error <= self.scale.threshold) & self.is_labelled).sum(axis=0)
    return np.where(count, self.scale.full * hits / np.maximum(count, 1), np.nan)

  def curve(self, thresholds):
    """Returns [T] float64, the score over all counted joints for each of T thresholds."""
    errors = np.sort(self.error[self.is_labelled & self.is_counted])
    return self.scale.full * np.searchsorted(errors, thresholds, side="right") / max(len(errors), 1)

  def worst(self, count):
    """Returns the indices of the `count` worst people with a readable picture, worst first."""
    order = np.argsort(self.quality, kind="stable")
    return order[self.record[order] >= 0][:count]


def of_annotated_boxes(rows, truth, skeleton):
  """Returns the PoseErrors of predictions in annotated boxes, one person per record.

  The size of a person is the longer side of the annotated box, and the quality is the OKS.

  Args:
    rows: {"keypoints_xy": [n, K, 2], "region": [n, 4], "index": [n]}, the predictions for the n records with
      the indices `index`.
    truth: a `CocoTruth` with the ids of the annotations (`person_id`).
    skeleton: the `Skeleton` of the joints.
  """
  annotations = {entry["id"]: entry for entry in truth.annotations["annotations"]}
  people = [_person(annotations[number], skeleton) for number in truth.person_id.tolist()]
  row = np.full(len(people), -1)
  row[rows["index"]] = np.arange(len(rows["index"]))
  return _of_people(people, row, np.where(row >= 0, np.arange(len(row)), -1), rows, skeleton)


def of_detections(rows, kept, truth, skeleton):
  """Returns the PoseErrors of predictions in the boxes of a detector, one person per annotation.

  The prediction of a person is the prediction with the highest OKS in the same picture. Two people may share
  a prediction.

  Args:
    rows: same as in `of_annotated_boxes`.
    kept: [m] indices of the rows that remain after OKS-NMS.
    truth: a `CocoTruth`.
    skeleton: the `Skeleton` of the joints.
  """
  in_picture, record_of = collections.defaultdict(list), {}
  pictures = truth.image_id[rows["index"]].tolist()
  for number, picture in enumerate(pictures):
    record_of.setdefault(picture, int(rows["index"][number]))
  for number in np.asarray(kept).tolist():
    in_picture[pictures[number]].append(number)
  has_categories = bool(truth.annotations.get("categories"))
  people = [
    _person(entry, skeleton)
    for entry in truth.annotations["annotations"]
    if not entry.get("iscrowd") and (not has_categories or entry["category_id"] == truth.category_id)
  ]
  people = [person for person in people if person["num_keypoints"] and person["keypoints"][:, 2].any()]
  row, record = np.full(len(people), -1), np.full(len(people), -1)
  for number, person in enumerate(people):
    record[number] = record_of.get(person["image_id"], -1)
    if candidates := in_picture.get(person["image_id"]):
      row[number] = candidates[np.argmax(_oks(rows["keypoints_xy"][candidates], person, skeleton))]
      record[number] = rows["index"][row[number]]
  note = "The prediction of a person is the prediction with the highest OKS in the picture."
  return _of_people(people, row, record, rows, skeleton, note)


def of_mpii(rows, truth, is_counted):
  """Returns the PoseErrors of predictions for MPII, for people with at least one labelled joint that counts.

  The length is the size of the head. The quality is minus the mean error of the labelled joints that count.

  Args:
    rows: same as in `of_annotated_boxes`.
    truth: an `MpiiTruth`.
    is_counted: [16] bool, the joints that PCKh counts.
  """
  is_labelled = ~np.asarray(truth.is_missing, bool)
  number = np.flatnonzero((is_labelled & is_counted).any(axis=1))
  truth_xy, labelled = truth.xy_one_based[number] - 1, is_labelled[number]
  row = np.full(len(is_labelled), -1)
  row[rows["index"]] = np.arange(len(rows["index"]))
  row = row[number]
  xy = _take(rows["keypoints_xy"], row)
  error = _relative(xy, truth_xy, keypoints2d.head_size(truth)[number])
  used = labelled & is_counted
  mean = np.where(used, error, 0).sum(axis=1) / used.sum(axis=1)
  return PoseErrors(
    record=np.where(row >= 0, number, -1),
    xy=xy,
    truth_xy=truth_xy,
    is_labelled=labelled,
    is_counted=np.asarray(is_counted, bool),
    error=error,
    region=_take(rows["region"], row),
    quality=-mean,
    remarks=tuple(f"mean error {value:.2f} heads" for value in mean.tolist()),
    scale=PCKH,
  )


def _of_people(people, row, record, rows, skeleton, note=""):
  """Returns the PoseErrors of P annotated people.

  Args:
    people: list of P annotations.
    row: [P] index of the prediction of each person in `rows`. -1: no prediction.
    record: [P], see `PoseErrors`.
    rows: the predictions.
    skeleton: the `Skeleton` of the joints.
    note: see `PoseErrors`.
  """
  joints = np.array([person["keypoints"] for person in people]).reshape(len(people), -1, 3)
  xy, quality = _take(rows["keypoints_xy"], row), np.zeros(len(people))
  for number in np.flatnonzero(row >= 0).tolist():
    quality[number] = _oks(xy[number][None], people[number], skeleton)[0]
  boxes = np.array([person["bbox"] for person in people], np.float64).reshape(-1, 4)
  return PoseErrors(
    record=record,
    xy=xy,
    truth_xy=joints[..., :2],
    is_labelled=joints[..., 2] > 0,
    is_counted=np.ones(joints.shape[1], bool),
    error=_relative(xy, joints[..., :2], boxes[:, 2:].max(axis=1)),
    region=np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, _PADDING * np.maximum(boxes[:, 2:], 1)], axis=1),
    quality=quality,
    remarks=tuple(
      f"OKS {value:.2f}" if number >= 0 else "no prediction"
      for value, number in zip(quality.tolist(), row.tolist(), strict=True)
    ),
    scale=PCK,
    note=note,
  )


def _person(annotation, skeleton):
  return keypoints2d.read_person(annotation, annotation["id"], skeleton)


def _oks(xy, person, skeleton):
  return oks.compare_with_person(xy, person["keypoints"], person["bbox"], person["area"], skeleton.sigmas)


def _take(values, row):
  """Returns the rows of an array with the indices `row`, as float64. The index -1 gives a row of NaN."""
  taken = np.full((len(row), *values.shape[1:]), np.nan)
  taken[row >= 0] = values[row[row >= 0]]
  return taken


def _relative(xy, truth_xy, size):
  """Returns [P, K], the distances divided by `size` [P]. inf: there is no prediction, or the size is 0."""
  distance = np.linalg.norm(xy - truth_xy, axis=-1)
  with np.errstate(divide="ignore", invalid="ignore"):
    error = distance / size[:, None]
  return np.where(np.isnan(error), np.inf, error)

"""Scorers of 2D pose. Each scorer scores, writes and reads predictions by the rules of a data set."""

import dataclasses
import pathlib

import numpy as np

from hap_jax.data import pose_results
from hap_jax.data.pose_truth import CocoTruth, MpiiTruth
from hap_jax.data.skeletons import MPII16, Skeleton
from hap_jax.evaluation import pose_errors
from hap_jax.metrics import keypoints2d as metrics


def of(truth, skeleton):
  """Returns the scorer for a truth.

  Args:
    truth: a `CocoTruth` or a `MpiiTruth`.
    skeleton: the `Skeleton` of the joints.
  """
  return CocoScorer(truth, skeleton) if isinstance(truth, CocoTruth) else MpiiScorer(truth)


@dataclasses.dataclass(frozen=True)
class CocoScorer:
  """Scores, writes and reads predictions by the rules of COCO: AP, and PCK@0.1 in annotated boxes.

  Attributes:
    truth: a `CocoTruth` of N records.
    skeleton: the `Skeleton` of the joints.
  """

  truth: CocoTruth
  skeleton: Skeleton

  # The metric that selects the best checkpoint.
  select = "AP"

  @property
  def note(self):
    """A note on the origin of the boxes, because the AP depends on the origin."""
    return f"boxes of {'a detector' if self.truth.person_id is None else 'the annotations'}"

  def score(self, rows):
    """Returns {metric: float} for predictions.

    Args:
      rows: {"keypoints_xy": [n, K, 2], "score": [n, K], "region": [n, 4], "index": [n]}, the predictions for
        the n records with the indices `index`. A record without a row is treated as not found.
    """
    scores = self._score_results(self.results(rows))
    if self.truth.person_id is not None:
      scores["PCK@0.1"] = self.pck(rows)
    return scores

  def results(self, rows):
    """Returns the predictions after OKS-NMS, as a list in COCO's format."""
    index, region, truth = rows["index"], rows["region"], self.truth
    kept, score = self._suppress(rows)
    kept_rows = (rows[name][kept] for name in ("keypoints_xy", "score"))
    return metrics.make_results(
      *kept_rows, score, truth.image_id[index[kept]], truth.category_id, region[kept]
    )

  def errors(self, rows):
    """Returns the `pose_errors.PoseErrors` of predictions, for the pictures of an evaluation."""
    if self.truth.person_id is not None:
      return pose_errors.of_annotated_boxes(rows, self.truth, self.skeleton)
    kept, _ = self._suppress(rows)
    return pose_errors.of_detections(rows, kept, self.truth, self.skeleton)

  def pck(self, rows):
    """Returns the share of annotated joints whose error is below a tenth of the longer side of the box."""
    people = {person["id"]: person for person in self.truth.annotations["annotations"]}
    people = [people[number] for number in self.truth.person_id.tolist()]
    joints = np.array([person["keypoints"] for person in people], np.float64).reshape(len(people), -1, 3)
    sides = np.array([max(person["bbox"][2:]) for person in people], np.float64)
    predicted = _fill(rows, len(people))
    return metrics.pck(predicted, joints[..., :2], joints[..., 2] > 0, sides)

  def write(self, rows, folder):
    """Writes the predictions to keypoints.json in a folder."""
    pose_results.write_coco_results(pathlib.Path(folder) / "keypoints.json", self.results(rows))

  def read(self, path):
    """Returns {metric: float} for a file in COCO's format."""
    _check_ending(path, ".json", "COCO's list of results")
    return self._score_results(pose_results.read_coco_results(path, self.skeleton))

  def _suppress(self, rows):
    """Returns (indices of the rows that remain after OKS-NMS, their scores)."""
    index, region = rows["index"], rows["region"]
    return metrics.suppress(
      rows["keypoints_xy"],
      rows["score"],
      region[:, 2] * region[:, 3],
      self.truth.box_score[index],
      self.truth.image_id[index],
      self.skeleton,
    )

  def _score_results(self, results):
    truth = self.truth
    return metrics.coco_scores(results, truth.annotations, self.skeleton, category_id=truth.category_id)


@dataclasses.dataclass(frozen=True)
class MpiiScorer:
  """Scores, writes and reads predictions by the rules of MPII: PCKh.

  Attributes:
    truth: a `MpiiTruth` of N records.
  """

  truth: MpiiTruth

  select = "PCKh"
  note = ""
  skeleton = MPII16

  def score(self, rows):
    """Returns {metric: float} for predictions, see `CocoScorer.score`."""
    return metrics.pckh(self._one_based(rows), self.truth)

  def errors(self, rows):
    """Returns the `pose_errors.PoseErrors` of predictions, for the pictures of an evaluation."""
    return pose_errors.of_mpii(rows, self.truth, metrics.counted_by_pckh())

  def write(self, rows, folder):
    """Writes the predictions to pred.mat in a folder."""
    pose_results.write_mpii_results(pathlib.Path(folder) / "pred.mat", self._one_based(rows))

  def read(self, path):
    """Returns {metric: float} for a pred.mat."""
    _check_ending(path, ".mat", "the pred.mat of MPII")
    return metrics.pckh(pose_results.read_mpii_results(path, self._num_people), self.truth)

  @property
  def _num_people(self):
    return len(self.truth.xy_one_based)

  def _one_based(self, rows):
    return _fill(rows, self._num_people) + 1


def _check_ending(path, ending, what):
  """Raises ValueError if the name of a results file has another ending."""
  if pathlib.Path(path).suffix != ending:
    raise ValueError(f"{path}: expected a {ending} file for this data set ({what}): check --config")


def _fill(rows, num_records):
  """Returns [N, K, 2] float64, the joints of all records. A record without a prediction has NaN."""
  xy = np.full((num_records, *rows["keypoints_xy"].shape[1:]), np.nan)
  xy[rows["index"]] = rows["keypoints_xy"]
  return xy

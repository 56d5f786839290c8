"""Predicted poses compared with the truth: errors, worst people, and the pictures that show these people."""

import dataclasses

import numpy as np
import pytest

from hap_jax.data.pose_truth import CocoTruth, MpiiTruth
from hap_jax.data.skeletons import COCO17, MPII16
from hap_jax.data.sources import base
from hap_jax.evaluation import pose_errors, pose_evaluation, pose_scorers
from hap_jax.metrics import keypoints2d
from hap_jax.viz import pose_report

N, K = 30, 17
RNG = np.random.default_rng(0)


@dataclasses.dataclass
class Pictures:
  """A source of N pictures. The picture of record i has the grey level 5 * i."""

  spec: base.SourceSpec = None

  def __len__(self):
    return N

  def __getitem__(self, i):
    return {"image": np.full((200, 160, 3), 5 * i, np.uint8)}

  def name(self, i):
    return f"/somewhere/{i}.jpg"


@pytest.fixture
def truth():
  """Returns a CocoTruth with one person per picture. Person i has the number 100 + i."""
  joints = RNG.uniform(40, 120, (N, K, 2))
  visible = RNG.integers(0, 3, (N, K))
  visible[:, 0] = 2
  annotations = [
    {
      "id": 100 + i,
      "image_id": i,
      "category_id": 1,
      "keypoints": np.concatenate([joints[i], visible[i, :, None]], axis=1).ravel().tolist(),
      "num_keypoints": int((visible[i] > 0).sum()),
      "bbox": [30, 30, 60 + i, 100],
      "area": 4_000 + i,
      "iscrowd": 0,
    }
    for i in range(N)
  ]
  content = {
    "images": [{"id": i} for i in range(N)],
    "annotations": annotations,
    "categories": [{"id": 1, "name": "person"}],
  }
  return CocoTruth(content, 1, np.arange(N), np.ones(N, np.float32), 100 + np.arange(N))


def rows_of(truth, noise):
  """Returns predictions that differ from the truth by normal noise; `noise` has one scale per person."""
  joints = np.array([entry["keypoints"] for entry in truth.annotations["annotations"]]).reshape(N, K, 3)
  xy = joints[..., :2] + RNG.normal(size=(N, K, 2)) * np.asarray(noise)[:, None, None]
  region = np.tile([80.0, 80, 120, 160], (N, 1))
  return {"keypoints_xy": xy, "score": RNG.random((N, K)), "region": region, "index": np.arange(N)}


def without(rows, *missing):
  keep = ~np.isin(rows["index"], missing)
  return {name: values[keep] for name, values in rows.items()}


def test_the_curve_passes_through_the_reported_pck(truth):
  rows = without(rows_of(truth, np.linspace(1, 20, N)), 4, 9)
  scorer = pose_scorers.of(truth, COCO17)
  errors = scorer.errors(rows)
  assert errors.curve([0.1])[0] == pytest.approx(scorer.pck(rows))
  missing = errors.is_labelled[[4, 9]].sum() / errors.is_labelled.sum()
  assert errors.curve([1e9])[0] == pytest.approx(1 - missing)
  count = errors.is_labelled.sum(axis=0)
  assert (errors.joint_shares() * count).sum() / count.sum() == pytest.approx(scorer.pck(rows))
  assert errors.record[[4, 9]].tolist() == [-1, -1]
  assert errors.remarks[4] == "no prediction"
  order = [i for i in np.argsort(errors.quality).tolist() if i not in (4, 9)]
  assert errors.worst(3).tolist() == order[:3]
  assert errors.worst(N).tolist() == order


def test_the_quality_of_a_person_is_its_oks(truth):
  rows = rows_of(truth, np.full(N, 5.0))
  errors = pose_scorers.of(truth, COCO17).errors(rows)
  # For one person, the AP of pycocotools is the share of the ten thresholds that its OKS reaches.
  for i in (0, 7):
    alone = {
      "images": [{"id": i}],
      "annotations": [truth.annotations["annotations"][i]],
      "categories": truth.annotations["categories"],
    }
    row = {name: values[[i]] for name, values in rows.items()}
    results = keypoints2d.make_results(row["keypoints_xy"], row["score"], [1], [i], 1, row["region"])
    average = keypoints2d.coco_scores(results, alone, COCO17)["AP"]
    thresholds = np.arange(0.5, 1, 0.05)
    assert average == pytest.approx((errors.quality[i] >= thresholds).mean(), abs=1e-6)


def test_with_boxes_of_a_detector_each_annotated_person_gets_the_best_pose_of_its_picture(truth):
  exact = rows_of(truth, np.zeros(N))
  crowd = {**truth.annotations["annotations"][0], "id": 999, "iscrowd": 1}
  other = {**truth.annotations["annotations"][0], "id": 998, "category_id": 2}
  empty = {**truth.annotations["annotations"][0], "id": 997, "keypoints": [0] * 3 * K, "num_keypoints": 0}
  content = {**truth.annotations, "annotations": [*truth.annotations["annotations"], crowd, other, empty]}
  # Picture i has two boxes: the poses of person i, once exact and once 40 pixels away. Picture 3 has no box.
  index = np.arange(2 * N)
  rows = {name: np.repeat(values, 2, axis=0) for name, values in exact.items()} | {"index": index}
  rows["keypoints_xy"][::2] += 40
  rows = without(rows, 6, 7)
  detected = CocoTruth(content, 1, index // 2, np.ones(2 * N, np.float32), None)
  errors = pose_scorers.of(detected, COCO17).errors(rows)
  assert len(errors.record) == N
  others = np.delete(np.arange(N), 3)
  np.testing.assert_allclose(errors.quality[others], 1)
  np.testing.assert_array_equal(errors.xy[others], exact["keypoints_xy"][others])
  assert (errors.quality[3], errors.record[3]) == (0, -1)
  assert np.isnan(errors.xy[3]).all()
  assert errors.curve([0.1])[0] == pytest.approx(1 - errors.is_labelled[3].sum() / errors.is_labelled.sum())
  # A person whose only pose was removed as a copy of another pose still has a picture.
  kept = pose_errors.of_detections(rows, [], detected, COCO17)
  assert kept.record[0] == 0
  np.testing.assert_allclose(kept.region[0], [60, 80, 75, 125])


def test_the_curve_passes_through_the_reported_pckh():
  xy = RNG.uniform(50, 150, (N, 16, 2))
  missing = RNG.random((N, 16)) < 0.2
  missing[5] = True
  head = np.stack([np.full((N, 2), 10.0), np.full((N, 2), 40.0)], axis=1)
  truth = MpiiTruth(xy, missing, head)
  found = xy - 1 + RNG.normal(size=xy.shape) * np.linspace(1, 30, N)[:, None, None]
  rows = {"keypoints_xy": found, "region": np.tile([80.0, 80, 160, 160], (N, 1)), "index": np.arange(N)}
  rows = without(rows, 8)
  scorer = pose_scorers.of(truth, MPII16)
  errors, scores = scorer.errors(rows), scorer.score(rows)
  assert len(errors.record) == N - 1  # person 5 has no joint
  np.testing.assert_allclose(errors.curve([0.5, 0.1]), [scores["PCKh"], scores["PCKh@0.1"]])
  for joint, share in zip(MPII16.joints, errors.joint_shares(), strict=True):
    assert share == pytest.approx(scores[f"PCKh_{joint}"])
  # The worst person has the largest mean error over the head size, without pelvis and thorax.
  used = ~missing & keypoints2d.counted_by_pckh()
  distance = np.linalg.norm(found - (xy - 1), axis=-1) / (0.6 * np.hypot(30, 30))
  mean = np.array([d[u].mean() if u.any() else -1 for d, u in zip(distance, used, strict=True)])
  mean[8] = -1  # its picture cannot be read
  worst = errors.worst(3)
  assert errors.record[worst].tolist() == np.argsort(-mean)[:3].tolist()
  assert errors.remarks[worst[0]] == f"mean error {mean.max():.2f} heads"


def test_the_picture_of_the_worst_people_shows_the_worst_people(truth, monkeypatch):
  noise = np.full(N, 0.5)
  bad = [3, 17, 21, 28]
  noise[bad] = [30, 25, 20, 15]
  rows = rows_of(truth, noise)
  scorer, shown = pose_scorers.of(truth, COCO17), {}
  draw = pose_report.people_sheet

  def people_sheet(people, skeleton, **options):
    shown["people"] = people
    return draw(people, skeleton, **options)

  monkeypatch.setattr(pose_report, "people_sheet", people_sheet)
  pictures = pose_evaluation.make_row_figures(scorer, Pictures())({"val": rows})
  assert pictures.keys() == {"joints", "worst"}
  assert len(shown["people"]) == 24
  assert {person.name for person in shown["people"][:4]} == {f"{i}.jpg" for i in bad}
  values = [float(person.title.removeprefix("OKS ")) for person in shown["people"]]
  assert values == sorted(values)
  # The background of a cell is the picture of the person. Records 3 and 17 have the grey levels 15 and 85.
  for i in bad:
    assert (pictures["worst"] == 5 * i).all(axis=-1).sum() > 500
  best = int(np.argmax(scorer.errors(rows).quality))
  assert (pictures["worst"] == 5 * best).all(axis=-1).sum() < 500


def test_no_picture_of_the_worst_people_if_no_picture_can_be_read(truth):
  rows = without(rows_of(truth, np.ones(N)), *range(N))
  draw = pose_evaluation.make_row_figures(pose_scorers.of(truth, COCO17), Pictures())
  assert draw({"val": rows}).keys() == {"joints"}

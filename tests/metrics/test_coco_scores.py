"""The AP of 2D poses equals pycocotools on files: on sample files of COCO and AIC, and on random people."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hap_jax.data.skeletons import AIC14, COCO17
from hap_jax.metrics import keypoints2d

NAMES = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")


def score_files(folder, annotations, results, sigmas):
  """Returns the scores of pycocotools, which reads both lists from files."""
  (folder / "truth.json").write_text(json.dumps(annotations))
  (folder / "results.json").write_text(json.dumps(results))
  truth = COCO(str(folder / "truth.json"))
  evaluation = COCOeval(truth, truth.loadRes(str(folder / "results.json")), "keypoints")
  evaluation.params.kpt_oks_sigmas = np.array(sigmas)
  evaluation.evaluate()
  evaluation.accumulate()
  evaluation.summarize()
  return {name: value for name, value in zip(NAMES, evaluation.stats, strict=True) if value >= 0}


def filter_plainly(xy, joint_score, area, box_score, image_id, sigmas):
  """Rescores poses and removes similar ones, with loops over single numbers. Returns [(row, score)]."""
  scored = []
  for i in range(len(xy)):
    good = [value for value in joint_score[i] if value > 0.2]
    scored.append((float(box_score[i]) * (sum(good) / len(good) if good else 0.0), i))
  kept = []
  for score, i in sorted(scored, key=lambda pair: (-pair[0], pair[1])):
    is_new = True
    for j, _ in kept:
      if image_id[i] == image_id[j]:
        size = (area[i] + area[j]) / 2
        exponents = [
          ((xy[i, k] - xy[j, k]) ** 2).sum() / (8 * sigmas[k] ** 2 * size) for k in range(len(sigmas))
        ]
        is_new = is_new and sum(np.exp(-value) for value in exponents) / len(sigmas) <= 0.9
    if is_new:
      kept.append((i, score))
  return kept


def perturb(annotations, rng):
  """Returns five disturbed copies of each labelled person: joints, scores, regions and image ids.

  Some copies are nearly equal, so that OKS-NMS removes them. One has joints of low scores only.
  """
  people = [annotation for annotation in annotations if annotation["num_keypoints"]]
  people = [person for person in people for _ in range(5)]
  truth = np.array([person["keypoints"] for person in people], float).reshape(len(people), -1, 3)
  box = np.array([person["bbox"] for person in people], float)
  xy = truth[..., :2]
  # A joint without label is at (0, 0) in the file. A network predicts it somewhere in the box.
  xy = np.where(truth[..., 2:] > 0, xy, box[:, None, :2] + rng.random(xy.shape) * box[:, None, 2:])
  noise = rng.choice([0.002, 0.005, 0.02, 0.05], (len(people), 1, 1)) * box[:, 2:].max(axis=1)[:, None, None]
  xy = (xy + noise * rng.normal(size=xy.shape)).astype(np.float32)
  joint_score = rng.random(xy.shape[:2]).astype(np.float32)
  joint_score[0] *= 0.1
  region = np.concatenate([box[:, :2] + box[:, 2:] / 2, 1.25 * box[:, 2:]], axis=1).astype(np.float32)
  return xy, joint_score, region, np.array([person["image_id"] for person in people])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["coco", "aic"])
def test_scores_of_disturbed_sample_poses_equal_pycocotools(samples, tmp_path, name, seed):
  skeleton = {"coco": COCO17, "aic": AIC14}[name]
  annotations = json.loads((samples / f"pose2d/{name}/test_{name}.json").read_text())
  rng = np.random.default_rng(seed)
  xy, joint_score, region, image_id = perturb(annotations["annotations"], rng)
  box_score = rng.random(len(xy)) if name == "coco" else np.ones(len(xy))
  area = region[:, 2].astype(float) * region[:, 3]

  kept, score = keypoints2d.suppress(xy, joint_score, area, box_score, image_id, skeleton)
  results = keypoints2d.make_results(
    xy[kept], joint_score[kept], score, image_id[kept], category_id=1, region=region[kept]
  )
  found = keypoints2d.coco_scores(results, annotations, skeleton)

  xy, joint_score = xy.astype(float), joint_score.astype(float)
  plain = filter_plainly(xy, joint_score, area, box_score, image_id, skeleton.sigmas)
  assert kept.tolist() == sorted(i for i, _ in plain)
  assert len(xy) / 5 <= len(plain) < len(xy)
  plain_results = [
    {
      "image_id": int(image_id[i]),
      "category_id": 1,
      "keypoints": [float(value) for k in range(xy.shape[1]) for value in (*xy[i, k], joint_score[i, k])],
      "score": value,
    }
    for i, value in plain
  ]
  if name == "aic":
    for annotation in annotations["annotations"]:
      _, _, width, height = annotation["bbox"]
      annotation |= {"area": 0.53 * width * height, "iscrowd": 0}
  expected = score_files(tmp_path, annotations, plain_results, skeleton.sigmas)
  assert found == pytest.approx(expected, abs=1e-9)
  assert 0.05 < found["AP"] < 0.95


@pytest.mark.parametrize(("name", "skeleton"), [("coco", COCO17), ("aic", AIC14)])
def test_the_annotated_joints_of_the_sample_files_score_1(samples, name, skeleton):
  annotations = json.loads((samples / f"pose2d/{name}/test_{name}.json").read_text())
  people = [person for person in annotations["annotations"] if person["num_keypoints"]]
  keys = ("image_id", "category_id", "keypoints")
  results = [{"score": 0.5, **{key: person[key] for key in keys}} for person in people]
  scores = keypoints2d.coco_scores(results, annotations, skeleton)
  assert list(scores.values()) == [pytest.approx(1, abs=1e-9)] * len(scores)


def make_random_people(rng, num_images=25, K=17):
  """Returns annotations and results with crowds, people without joints, equal scores and two categories.

  Some pictures have no people, some have no results, and some have more than 20 results.
  """
  annotations, results = [], []
  for image_id in range(1, num_images + 1):
    truths = []
    for _ in range(rng.integers(4)):
      corner, size = rng.uniform(0, 200, 2), rng.uniform(20, 200, 2)
      keypoints = np.concatenate([corner + size * rng.random((K, 2)), rng.integers(3, size=(K, 1))], axis=1)
      keypoints[:, 2] *= rng.random() < 0.8
      keypoints[keypoints[:, 2] == 0] = 0
      truths.append(keypoints)
      annotations.append(
        {
          "id": len(annotations) + 1,
          "image_id": image_id,
          "category_id": int(rng.choice([3, 3, 3, 5])),
          "iscrowd": int(rng.random() < 0.1),
          "bbox": [*corner.tolist(), *size.tolist()],
          "area": float(0.6 * size.prod()),
          "keypoints": keypoints.ravel().tolist(),
          "num_keypoints": int(np.count_nonzero(keypoints[:, 2])),
        }
      )
    for _ in range(rng.choice([0, 6, 30])):
      keypoints = rng.uniform(0, 300, (K, 3))
      if truths and rng.random() < 0.7:
        keypoints = truths[rng.integers(len(truths))] + rng.normal(0, rng.uniform(0, 15), (K, 3))
      results.append(
        {
          "image_id": image_id,
          "category_id": int(rng.choice([3, 3, 3, 5])),
          "keypoints": keypoints.ravel().tolist(),
          "score": int(rng.integers(20)) / 20,
        }
      )
  images = [{"id": number, "file_name": "x.jpg"} for number in range(1, num_images + 1)]
  categories = [{"id": 3, "name": "person"}, {"id": 5, "name": "statue"}]
  return {"images": images, "annotations": annotations, "categories": categories}, results


@pytest.mark.parametrize("seed", [0, 1])
def test_scores_of_random_people_equal_pycocotools(tmp_path, seed):
  annotations, results = make_random_people(np.random.default_rng(seed))
  found = keypoints2d.coco_scores(results, annotations, COCO17)
  assert found == pytest.approx(score_files(tmp_path, annotations, results, COCO17.sigmas), abs=1e-9)
  assert set(found) == set(NAMES)
  assert 0.01 < found["AP"] < 0.9

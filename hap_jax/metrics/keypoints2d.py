"""Metrics of 2D poses on NumPy arrays: AP of COCO and AIC with its OKS-NMS, PCKh of MPII, and PCK.

As in publications, AP, AR and PCK are shares from 0 to 1, and PCKh is in percent.
"""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hap_jax.data.skeletons import MPII16
from hap_jax.metrics import oks

# pycocotools gives its ten scores in this order.
_COCO_SCORES = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")
_MAX_RESULTS = 20  # per picture; COCO's rule for joints
_MIN_JOINT_SCORE = 0.2  # joints with a lower score do not count in the score of a person
_MAX_OKS = 0.9  # OKS-NMS removes a pose that is more similar to a pose with a higher score
_PERSON = 1  # number of the category of people if an annotation file has no categories
_BLOCK = 2**20  # number of pairs of joints that OKS-NMS compares in one step
_MPII_LEFT_OUT = ("pelvis", "thorax")  # joints that the total of PCKh leaves out
_MPII_GROUPS = {
  "Head": ("head_top",),
  "Shoulder": ("right_shoulder", "left_shoulder"),
  "Elbow": ("right_elbow", "left_elbow"),
  "Wrist": ("right_wrist", "left_wrist"),
  "Hip": ("right_hip", "left_hip"),
  "Knee": ("right_knee", "left_knee"),
  "Ankle": ("right_ankle", "left_ankle"),
}


def rescore(keypoint_score, box_score):
  """Returns the scores of people: the score of the box times the mean score of the certain joints.

  The certain joints have a score above 0.2. A person without certain joints has the score 0. This is the rule
  of the official code.

  Args:
    keypoint_score: [N, K], scores of the joints.
    box_score: [N], scores of the boxes.
  Returns:
    [N] float64.
  """
  keypoint_score = np.asarray(keypoint_score, np.float64)
  is_certain = keypoint_score > _MIN_JOINT_SCORE
  total = np.where(is_certain, keypoint_score, 0).sum(axis=1)
  return total / np.maximum(is_certain.sum(axis=1), 1) * np.asarray(box_score, np.float64)


def suppress(keypoints_xy, keypoint_score, area, box_score, image_id, skeleton):
  """Computes the scores of people, and removes poses that are in a picture twice (OKS-NMS).

  In each picture, the pose with the highest score is kept. All poses whose OKS with it is above 0.9 are
  removed. This is repeated with the poses that are left. If scores are equal, the first row comes first.

  Args:
    keypoints_xy: [N, K, 2], joints in pixels of the picture.
    keypoint_score: [N, K], scores of the joints.
    area: [N], areas in square pixels. The official code uses the area of the region that the network sees,
      which is larger than the box.
    box_score: [N], scores of the boxes.
    image_id: [N] whole numbers, numbers of the pictures.
    skeleton: `Skeleton` with K joints.
  Returns:
    (kept, score). `kept` is [M] int64, the row numbers of the remaining poses, ascending. `score` is [M]
    float64, the scores of these poses (see `rescore`).
  Raises:
    ValueError: if a joint, a score or an area is not finite.
  """
  xy, area = np.asarray(keypoints_xy, np.float64), np.asarray(area, np.float64)
  score = rescore(keypoint_score, box_score)
  is_finite = np.isfinite(xy).all(axis=(1, 2)) & np.isfinite(keypoint_score).all(axis=1)
  _check_finite(is_finite & np.isfinite(area) & np.isfinite(score))
  # After this sort, each picture is one slice, and its best pose is first. The sort is stable.
  order = np.lexsort((-score, image_id))
  starts = np.flatnonzero(np.diff(np.asarray(image_id)[order])) + 1
  kept = [rows[_keep(xy[rows], area[rows], skeleton.sigmas)] for rows in np.split(order, starts)]
  kept = np.sort(np.concatenate(kept))
  return kept, score[kept]


def _keep(xy, area, sigmas):
  """Returns [n] bool, True for the poses of one picture that are kept. The best pose comes first."""
  is_kept = np.ones(len(xy), bool)
  # The poses are compared in blocks, so a picture with very many poses does not fill the memory.
  num_rows = max(1, _BLOCK // max(xy[..., 0].size, 1))
  for start in range(0, len(xy), num_rows):
    block = slice(start, start + num_rows)
    similarity = oks.compare(xy[block, None], xy[None, start:], area[block, None], area[None, start:], sigmas)
    for i, row in enumerate(similarity):
      if is_kept[start + i]:
        is_kept[start + i + 1 :] &= row[i + 1 :] <= _MAX_OKS
  return is_kept


def make_results(keypoints_xy, keypoint_score, score, image_id, category_id, region):
  """Returns poses in COCO's format of results, with plain Python numbers.

  Args:
    keypoints_xy: [M, K, 2], joints in pixels of the picture.
    keypoint_score: [M, K], scores of the joints.
    score: [M], scores of the people.
    image_id: [M] whole numbers, numbers of the pictures.
    category_id: number of the category of people.
    region: [M, 4], (centre x, centre y, width, height) in pixels of the region that the network sees. The
      results hold it as the official code writes it: "scale" is width and height divided by 200.
  Returns:
    M dicts with the keys image_id, category_id, keypoints (x, y and score of each joint), score, center and
    scale.
  """
  xy, region = np.asarray(keypoints_xy, np.float64), np.asarray(region, np.float64)
  keypoints = np.concatenate([xy, np.asarray(keypoint_score, np.float64)[..., None]], axis=-1)
  rows = zip(
    np.asarray(image_id, np.int64).tolist(),
    keypoints.reshape(len(xy), keypoints[0].size if len(xy) else 0).tolist(),
    np.asarray(score, np.float64).tolist(),
    region[:, :2].tolist(),
    (region[:, 2:] / 200).tolist(),
    strict=True,
  )
  return [
    {
      "image_id": picture,
      "category_id": int(category_id),
      "keypoints": joints,
      "score": value,
      "center": center,
      "scale": scale,
    }
    for picture, joints, value, center, scale in rows
  ]


def coco_scores(results, annotations, skeleton, *, category_id=None):
  """Scores poses by average precision and average recall, as in COCO, with pycocotools.

  Crowds, people without joints and pictures without results count as in pycocotools. In a picture, the 20
  results with the highest scores count. The size of a person comes from the area in the annotation, or from
  the rule `skeleton.area_per_box`. The size of a result is the area of the rectangle around its joints.

  Two differences to pycocotools: "iscrowd" may be missing and is then 0, and the ids of annotations may be 0
  or repeated.

  Args:
    results: list of COCO results, dicts with image_id, category_id, keypoints and score. Not changed.
    annotations: the content of the annotation file. Not changed. If it has no categories, all annotations and
      all results are people.
    skeleton: `Skeleton` of results and annotations.
    category_id: number of the category that is scored. None: the mean over all categories with people.
  Returns:
    {"AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L"}, shares from 0 to 1. AP_M and
    AR_M (medium people, 32^2 to 96^2 pixels) and AP_L and AR_L (larger people) are absent if no person has
    this size.
  Raises:
    ValueError: if results are of pictures or categories that are not in the annotation file, if they have
      another number of joints or numbers that are not finite, if an annotation has no area or box, or if no
      person can be scored.
  """
  categories = {category["id"] for category in annotations.get("categories") or ()}
  people, found = annotations["annotations"], _found(results, skeleton)
  if not categories:
    people = [{**annotation, "category_id": _PERSON} for annotation in people]
    found = [{**result, "category_id": _PERSON} for result in found]
    categories, category_id = {_PERSON}, _PERSON
  if category_id is not None:
    people = [annotation for annotation in people if annotation["category_id"] == category_id]
  people = [read_person(annotation, number, skeleton) for number, annotation in enumerate(people, start=1)]
  images = {image["id"] for image in annotations["images"]}
  _check_known("image_id", found, images)
  _check_known("category_id", found, categories)
  evaluation = _Evaluation(images, people, found, categories if category_id is None else {category_id})
  evaluation.params.maxDets = [_MAX_RESULTS]
  evaluation.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
  with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and its scores
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
  # pycocotools gives -1 for a score without people.
  scores = {
    name: float(value) for name, value in zip(_COCO_SCORES, evaluation.stats, strict=True) if value >= 0
  }
  if not scores:
    raise ValueError(
      f"none of the {len(people)} annotations can be scored: expected at least one person with joints who is "
      "not part of a crowd"
    )
  return scores


class _Evaluation(COCOeval):
  """pycocotools' evaluation, with a faster OKS.

  pycocotools computes the OKS of one result and one person at a time, from Python lists. This class computes
  it for all results of a picture at once, with the same formula.
  """

  def __init__(self, images, people, found, categories):
    truth, results = (self._index(images, entries, categories) for entries in (people, found))
    super().__init__(truth, results, "keypoints")

  @staticmethod
  def _index(images, entries, categories):
    """Returns pycocotools' index of a data set that is in memory."""
    index = COCO()
    index.dataset = {
      "images": [{"id": image} for image in images],
      "annotations": entries,
      "categories": [{"id": category} for category in categories],
    }
    with contextlib.redirect_stdout(io.StringIO()):
      index.createIndex()
    return index

  def computeOks(self, imgId, catId):
    """Returns [results, people] OKS of a picture, the results with the highest scores first."""
    people, found = self._gts[imgId, catId], self._dts[imgId, catId]
    if not people or not found:
      return []
    order = np.argsort([-entry["score"] for entry in found], kind="stable")[: self.params.maxDets[-1]]
    xy = np.stack([found[i]["keypoints"] for i in order])[..., :2]
    sigmas = self.params.kpt_oks_sigmas
    similarity = [
      oks.compare_with_person(xy, person["keypoints"], person["bbox"], person["area"], sigmas)
      for person in people
    ]
    return np.stack(similarity, axis=1)


def read_person(annotation, number, skeleton):
  """Returns an annotation as a new dict with the id `number`, because pycocotools changes the dict.

  The entry "keypoints" is [K, 3] float64, and "area" is the area that the OKS needs.

  Args:
    annotation: an entry of the annotation file.
    number: the new id, not 0.
    skeleton: `Skeleton` with K joints.
  Raises:
    ValueError: if the annotation has another number of joints, or no area or box.
  """
  K = len(skeleton.joints)
  keypoints = np.asarray(annotation.get("keypoints", [0] * 3 * K), np.float64)
  if keypoints.shape != (3 * K,):
    raise ValueError(
      f"annotation {annotation['id']} has keypoints of shape {list(keypoints.shape)}; expected {3 * K} "
      f"numbers: x, y and visibility of the {K} joints of {skeleton.name}"
    )
  keypoints = keypoints.reshape(K, 3)
  box = _value(annotation, "bbox")
  share = skeleton.area_per_box
  return {
    "id": number,  # pycocotools counts a match with the id 0 as a wrong result
    "image_id": annotation["image_id"],
    "category_id": annotation["category_id"],
    "keypoints": keypoints,
    "num_keypoints": annotation.get("num_keypoints", np.count_nonzero(keypoints[:, 2] > 0)),
    "bbox": box,
    "area": _value(annotation, "area") if share is None else share * box[2] * box[3],
    "iscrowd": annotation.get("iscrowd", 0),
  }


def _value(annotation, key):
  if key not in annotation:
    raise ValueError(
      f'annotation {annotation["id"]} has no "{key}"; expected a value in each annotation, because the score '
      "of COCO needs it"
    )
  return annotation[key]


def _found(results, skeleton):
  """Returns the results as new dicts with id and area, because pycocotools changes the dicts."""
  K = len(skeleton.joints)
  wrong = [number for number, result in enumerate(results, start=1) if len(result["keypoints"]) != 3 * K]
  if wrong:
    raise ValueError(
      f"{len(wrong)} results do not have the {K} joints of {skeleton.name}; the first is result number "
      f"{wrong[0]} with {len(results[wrong[0] - 1]['keypoints'])} numbers; expected {3 * K}: x, y and score "
      "of each joint"
    )
  keypoints = np.array([result["keypoints"] for result in results], np.float64).reshape(-1, K, 3)
  score = np.array([result["score"] for result in results], np.float64)
  _check_finite(np.isfinite(keypoints).all(axis=(1, 2)) & np.isfinite(score))
  area = np.ptp(keypoints[..., :2], axis=1).prod(axis=1).tolist()
  return [
    {
      "id": number + 1,
      "image_id": result["image_id"],
      "category_id": result["category_id"],
      "keypoints": keypoints[number],
      "score": result["score"],
      "area": area[number],
    }
    for number, result in enumerate(results)
  ]


def _check_finite(is_finite):
  wrong = np.flatnonzero(~is_finite)
  if len(wrong):
    raise ValueError(
      f"{len(wrong)} of {len(is_finite)} poses have numbers that are not finite, the first in row "
      f"{wrong[0]}; expected finite joints and scores: check the weights of the network"
    )


def _check_known(key, found, known):
  """Raises ValueError if results have an image_id or a category_id that is not in the set `known`."""
  strange = [result[key] for result in found if result[key] not in known]
  if strange:
    ids = list(dict.fromkeys(strange))
    raise ValueError(
      f"{len(strange)} of {len(found)} results have a value of {key} that is not in the annotation file "
      f"({len(ids)} different, the first: {', '.join(map(str, ids[:5]))}); expected results of its pictures: "
      "check that annotations and results belong to the same split"
    )


def pckh(xy_one_based, truth):
  """Scores poses by PCKh, as in MPII: the share of joints near the truth, relative to the size of the head.

  A joint is correct if its error is at most half of the head size, where the head size is 0.6 times the
  diagonal of the head's box. PCKh@0.1 allows a tenth of the head size. The total is over all annotated joints
  except pelvis and thorax. A group (such as "Knee") is the mean of left and right.

  Args:
    xy_one_based: [N, 16, 2], joints in pixels. The first pixel has the number 1. NaN counts as wrong.
    truth: `MpiiTruth` of the same N people.
  Returns:
    {"PCKh", "PCKh@0.1", "Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "PCKh_right_ankle" and
    the other joints of MPII16}, in percent. A joint or group is absent if nobody has it annotated.
  Raises:
    ValueError: if the shapes differ, or if no joint is annotated.
  """
  xy = np.asarray(xy_one_based, np.float64)
  if xy.shape != truth.xy_one_based.shape:
    raise ValueError(
      f"predictions of shape {list(xy.shape)}, but the truth has the shape {list(truth.xy_one_based.shape)}; "
      "expected [people, 16 joints, 2] of the same people"
    )
  is_annotated = ~np.asarray(truth.is_missing, bool)
  count = is_annotated.sum(axis=0)
  is_in_total = counted_by_pckh()
  if not count[is_in_total].any():
    raise ValueError(
      f"none of the {len(xy)} people has an annotated joint that PCKh counts: check the file of the truth"
    )
  # A head without size gives inf or nan, which counts as a wrong joint.
  with np.errstate(divide="ignore", invalid="ignore"):
    error = np.linalg.norm(xy - truth.xy_one_based, axis=-1) / head_size(truth)[:, None]
  hits = {threshold: ((error <= threshold) & is_annotated).sum(axis=0) for threshold in (0.5, 0.1)}
  total = {key: 100 * hit[is_in_total].sum() / count[is_in_total].sum() for key, hit in hits.items()}
  by_joint = {
    joint: float(100 * hits[0.5][j] / count[j]) for j, joint in enumerate(MPII16.joints) if count[j]
  }
  groups = {
    name: [by_joint[joint] for joint in joints if joint in by_joint] for name, joints in _MPII_GROUPS.items()
  }
  return {
    "PCKh": float(total[0.5]),
    "PCKh@0.1": float(total[0.1]),
    **{name: float(np.mean(values)) for name, values in groups.items() if values},
    **{f"PCKh_{joint}": value for joint, value in by_joint.items()},
  }


def counted_by_pckh():
  """Returns [16] bool, True for the joints of MPII that the total of PCKh counts."""
  return np.array([joint not in _MPII_LEFT_OUT for joint in MPII16.joints])


def head_size(truth):
  """Returns [N] float64, the sizes of the heads of an `MpiiTruth` in pixels, as PCKh defines them."""
  return 0.6 * np.linalg.norm(truth.head_box[:, 1] - truth.head_box[:, 0], axis=-1)


def pck(keypoints_xy, truth_xy, visible, box_side, threshold=0.1):
  """Returns PCK, the share of visible joints whose error is less than `threshold` times the person's size.

  Args:
    keypoints_xy: [N, K, 2], predicted joints in pixels. NaN counts as wrong.
    truth_xy: [N, K, 2], true joints in pixels.
    visible: [N, K] bool, the joints that count.
    box_side: [N], longer side of each person's box in pixels.
    threshold: largest error, relative to the box.
  Returns:
    a share from 0 to 1.
  Raises:
    ValueError: if no joint is visible.
  """
  visible = np.asarray(visible, bool)
  if not visible.any():
    raise ValueError(f"none of the {visible.size} joints is visible; expected at least one")
  distance = np.linalg.norm(np.subtract(keypoints_xy, truth_xy, dtype=np.float64), axis=-1)
  is_right = distance < threshold * np.asarray(box_side, np.float64)[:, None]
  return float(is_right[visible].mean())

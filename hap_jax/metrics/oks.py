"""The object keypoint similarity (OKS) of COCO, for pairs of predicted poses and for annotated people.

OKS is the mean over the joints of exp(-d^2 / (2 (2 sigma)^2 a)). Here d is the distance between the positions
of a joint in the two poses, sigma is the tolerance of this joint, and a is the area of the person. Source:
COCO's evaluation of keypoints, https://cocodataset.org/#keypoints-eval.
"""

import numpy as np

_EPS = np.spacing(1.0)  # Parity: pycocotools and the official code add this number to the area


def compare(xy, other_xy, area, other_area, sigmas):
  """Returns the OKS of predicted poses. All joints count, and a is the mean of both areas.

  The leading dimensions of the arguments are broadcast.

  Args:
    xy, other_xy: [..., K, 2], joints in pixels.
    area, other_area: [...], areas of the people in square pixels.
    sigmas: [K], tolerances of the joints.
  Returns:
    [...] float64, 0 to 1.
  """
  square = np.square(np.subtract(xy, other_xy, dtype=np.float64)).sum(axis=-1)
  mean_area = np.add(area, other_area, dtype=np.float64)[..., None] / 2
  return _similarity(square, mean_area, sigmas).mean(axis=-1)


def compare_with_person(xy, keypoints, box, area, sigmas):
  """Returns the OKS of predicted poses with an annotated person. Only the labelled joints count.

  If the person has no labelled joint, all joints count. Then d is the distance of a joint to the person's
  enlarged box. The box grows by its width on the left and on the right, and by its height at the top and at
  the bottom.

  Args:
    xy: [N, K, 2], predicted joints in pixels.
    keypoints: [K, 3], x, y and COCO's v of the person's joints.
    box: [4], x, y, width and height of the person's box.
    area: area of the person in square pixels.
    sigmas: [K], tolerances of the joints.
  Returns:
    [N] float64, 0 to 1.
  """
  is_labelled = keypoints[:, 2] > 0
  if is_labelled.any():
    offset = xy - keypoints[:, :2]
  else:
    corner, size = np.split(np.asarray(box, np.float64), 2)
    offset = np.maximum(0, corner - size - xy) + np.maximum(0, xy - (corner + 2 * size))
    is_labelled = np.ones(len(keypoints), bool)
  similarity = _similarity(np.square(offset).sum(axis=-1), area, sigmas)
  return similarity[:, is_labelled].mean(axis=-1)


def _similarity(square, area, sigmas):
  """Returns exp(-d^2 / (2 (2 sigma)^2 a)); `square` is d^2, [..., K]."""
  spread = np.square(2 * np.asarray(sigmas, np.float64))
  return np.exp(-square / spread / (area + _EPS) / 2)

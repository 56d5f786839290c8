"""Synthetic people are not trivial to recognise, and the background gives no hint about the person."""

import functools
import statistics

import cv2
import numpy as np

from hap_jax.data.sources import synthetic
from hap_jax.metrics import retrieval
from hap_jax.synthetic import anatomy, captions, draw

SEED = 5
SIZE = (48, 24)
FAMILY_LEVEL = 1 - statistics.NormalDist().cdf(2)  # level of a family of tests: 2 standard errors, one-sided


def features(images):
  """Returns the standardised colours of 16 x 8 areas of each picture, [N, 384]."""
  small = [cv2.resize(image, (8, 16), interpolation=cv2.INTER_AREA).ravel() for image in images]
  x = np.array(small, float)
  return (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)


def fit_linear(x, y):
  """Returns the weights [D, C] of ridge regression of y [N, C] on x [N, D]."""
  # The dual form is faster, because there are fewer pictures than features.
  return x.T @ np.linalg.solve(x @ x.T + 100 * np.eye(len(x)), y)


@functools.cache
def draw_pictures(indices, is_empty):
  return [draw.draw_person(SEED, index, SIZE, is_empty=is_empty) for index in indices]


def colour_histogram(image, stripes=6, bins=8):
  """Returns the square roots of the shares of bins^3 colours in horizontal stripes.

  The dot product of two such vectors is the sum of the stripes' Bhattacharyya coefficients.
  """
  shares = []
  for stripe in np.array_split(image.astype(int) // (256 // bins), stripes):
    code = (stripe[..., 0] * bins + stripe[..., 1]) * bins + stripe[..., 2]
    shares.append(np.bincount(code.ravel(), minlength=bins**3) / code.size)
  return np.sqrt(np.concatenate(shares)).astype(np.float32)


def test_colour_histograms_find_persons_better_than_chance_but_far_from_always():
  query, gallery = (
    synthetic.open_source(split=split, seed=0, num_test=192, image_size=(64, 32))
    for split in ("query", "gallery")
  )
  identities = {
    f"{name}_{key}": source.columns[key]
    for name, source in (("query", query), ("gallery", gallery))
    for key in ("pid", "camid")
  }
  vectors = [
    np.array([colour_histogram(source[k]["image"]) for k in range(len(source))])
    for source in (query, gallery)
  ]
  mean_ap = retrieval.evaluate(*vectors, **identities).mean_ap
  assert 1.5 * retrieval.chance_mean_ap(**identities) < mean_ap < 0.5


def recognise_persons(is_empty, num_persons=64):
  """Trains a linear probe on one picture per person and camera, and tests it on a second one by this camera.

  Args:
    is_empty: whether the pictures are drawn without the person.
    num_persons: number of persons.
  Returns:
    (share of persons that are recognised, share by chance, standard error of the latter).
  """
  pictures = range(num_persons * draw.PICTURES_PER_PERSON)
  chosen = tuple(k for k in pictures if k % draw.PICTURES_PER_PERSON in (0, 1, 6, 7))  # the repeated cameras
  records = draw_pictures(chosen, is_empty)
  camid, pid = (np.array([record[name] for record in records]) for name in ("camid", "pid"))
  x = features([record["image"] for record in records])
  is_second = np.array(chosen) % draw.PICTURES_PER_PERSON >= 6
  right, chances = [], []
  for camera in np.unique(camid):
    first, second = (
      np.flatnonzero((camid == camera) & ~is_second),
      np.flatnonzero((camid == camera) & is_second),
    )
    # Within one camera the background has one source, so a difference between cameras cannot help.
    if len(first) > 1:
      weights = fit_linear(x[first] - x[first].mean(axis=0), np.eye(len(first)))
      found = ((x[second] - x[first].mean(axis=0)) @ weights).argmax(axis=1)
      right += (pid[first][found] == pid[second]).tolist()
      chances += [1 / len(first)] * len(second)
  chances = np.array(chances)
  return np.mean(right), chances.mean(), np.sqrt((chances * (1 - chances)).sum()) / len(chances)


def test_a_linear_probe_recognises_persons_within_a_camera_but_not_by_the_background():
  full, chance, error = recognise_persons(is_empty=False)
  empty, _, _ = recognise_persons(is_empty=True)
  assert full > chance + 4 * error
  assert empty < chance + 2 * error


def recognise_attributes(is_empty, num_persons=320):
  """Trains a linear probe on half of the persons, one picture per person, and tests it on the other half.

  Args:
    is_empty: whether the pictures are drawn without the person.
    num_persons: number of persons.
  Returns:
    [A] float, (AUC - 1/2) / its standard error, for each attribute that occurs in the other half.
  """
  records = draw_pictures(tuple(8 * pid + pid % 8 for pid in range(num_persons)), is_empty)
  x = features([record["image"] for record in records])
  y = np.array([record["attributes"] for record in records])
  # The two halves have different persons, so the probe cannot remember a person.
  half = num_persons // 2
  scores = x[half:] @ fit_linear(x[:half], y[:half] - y[:half].mean(axis=0))
  return np.array([auc_excess(scores[:, k], y[half:, k]) for k in range(y.shape[1]) if y[half:, k].any()])


def auc_excess(scores, labels):
  """Returns (AUC - 1/2) / its standard error for scores that are independent of the labels."""
  rank = np.empty(len(scores))
  rank[np.argsort(scores)] = np.arange(1, len(scores) + 1)
  positive, negative = labels.sum(), (~labels).sum()
  auc = (rank[labels].sum() - positive * (positive + 1) / 2) / (positive * negative)
  return (auc - 0.5) / np.sqrt((positive + negative + 1) / (12 * positive * negative))


def test_a_linear_probe_recognises_attributes_but_not_by_the_background():
  full, empty = recognise_attributes(is_empty=False), recognise_attributes(is_empty=True)
  limit = statistics.NormalDist().inv_cdf(1 - FAMILY_LEVEL / len(captions.ATTRIBUTES))  # Bonferroni
  assert (full > limit).sum() >= 3
  assert not (empty > limit).any()


def test_two_cameras_show_a_person_in_different_light_in_front_of_different_backgrounds():
  pairs = [
    [draw.draw_person(SEED, 8 * pid + k, SIZE, is_empty=is_empty) for k in (0, 1)]
    for pid in range(12)
    for is_empty in (False, True)
  ]
  behind = [np.abs(a["image"].astype(int) - b["image"]).mean() for a, b in pairs[1::2]]
  assert min(behind) > 10
  torso = anatomy.PART_INDEX["torso"]
  light = [[np.mean(record["image"][record["parts"] == torso]) for record in pair] for pair in pairs[::2]]
  ratio = np.abs(np.log([a / b for a, b in light]))
  assert np.median(ratio) > 0.1

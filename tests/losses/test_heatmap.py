"""Loss and accuracy of heat maps in small cases with known results."""

import jax
import numpy as np

from hap_jax.losses import heatmap

heatmap_loss = jax.jit(heatmap.heatmap_loss)
heatmap_accuracy = jax.jit(heatmap.heatmap_accuracy)

RNG = np.random.default_rng(0)
PRED, TARGET = RNG.normal(size=(2, 3, 20, 10, 4)).astype(np.float32)


def test_loss_is_the_mean_over_all_elements_with_squared_weights():
  weight = np.array([[1, 0, 1.5, 1], [0, 0, 1, 1], [1, 1, 1, 0]], np.float32)
  expected = np.mean((weight**2)[:, None, None] * (PRED.astype(float) - TARGET) ** 2)
  loss, grad = jax.value_and_grad(heatmap_loss)(PRED, TARGET, weight)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert not np.moveaxis(grad, -1, 1)[weight == 0].any()
  np.testing.assert_allclose(heatmap_loss(PRED, TARGET, np.zeros((3, 4))), 0)


def one_hot(x, y):
  heatmap = np.zeros((20, 10), np.float32)
  heatmap[y, x] = 1
  return heatmap


def accuracy(pred, target, weight, threshold):
  """Takes lists of (x, y): records by joints."""
  maps = (np.array([[one_hot(*xy) for xy in row] for row in rows]) for rows in (pred, target))
  pred, target = (heatmap.transpose(0, 2, 3, 1) for heatmap in maps)
  total, count = heatmap_accuracy(pred, target, np.array(weight, np.float32), threshold)
  return float(total), float(count)


def test_distances_are_divided_by_width_and_height_of_the_map():
  # Two cells in x are 0.2 of the width 10, and two cells in y are 0.1 of the height 20.
  assert accuracy([[(4, 5), (2, 7)]], [[(2, 5), (2, 5)]], [[1, 1]], threshold=0.15) == (1, 2)
  assert accuracy([[(4, 5), (2, 7)]], [[(2, 5), (2, 5)]], [[1, 1]], threshold=0.25) == (2, 2)
  # The distance must be less than the threshold.
  assert accuracy([[(2, 15)]], [[(2, 5)]], [[1]], threshold=0.5) == (0, 1)


def test_accuracy_is_the_mean_over_joints_that_are_visible_in_some_record():
  pred = [[(1, 1), (2, 2), (3, 3)], [(9, 9), (2, 2), (3, 3)]]
  target = [[(1, 1), (2, 2), (3, 3)], [(1, 1), (2, 2), (3, 3)]]
  # Joint 0 is correct in one of two records, joint 1 in its only record, and joint 2 is never visible.
  assert accuracy(pred, target, [[1, 0, 0], [1.5, 1, 0]], threshold=0.05) == (1.5, 2)
  assert accuracy(pred, target, np.zeros((2, 3)), threshold=0.05) == (0, 0)


def test_a_predicted_map_without_a_positive_value_is_not_correct_at_the_first_cell():
  target = one_hot(0, 0)[None, :, :, None]
  weight = np.ones((1, 1), np.float32)
  assert heatmap_accuracy(target - 2, target, weight)[0] == 0
  assert heatmap_accuracy(target, target, weight)[0] == 1

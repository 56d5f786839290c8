"""Loss of heat maps for 2D pose, and the accuracy that the training step logs."""

import jax.numpy as jnp
import numpy as np

from hap_jax.pixels.heatmap_decode import find_maximum


def heatmap_loss(pred, target, weight):
  """Returns the mean over all elements of (weight * (pred - target))^2.

  A joint with weight 0 adds nothing to the sum, but it counts in the mean. Source: ViTPose, JointsMSELoss.

  Args:
    pred: [B, h, w, K] float, heat maps of the network.
    target: [B, h, w, K] float32.
    weight: [B, K] float32.
  Returns:
    scalar float32.
  """
  # Parity: the weight is inside the square. All weights of the official recipes are 0 or 1.
  return jnp.mean(jnp.square(weight[:, None, None] * (pred.astype(jnp.float32) - target)))


def joint_heatmap_loss(preds, target, weight, dataset=None):
  """Returns (losses of the heads, accuracy), see `heatmap_loss` and `heatmap_accuracy`.

  The head of a data set has weight 0 for the records of other data sets. They still count in its mean, so a
  data set has the influence of its share in the batch.

  Args:
    preds: heat maps of each head, each [B, h, w, K].
    target, weight: see `heatmap_loss`.
    dataset: [B] int, the data set of each record. None: there is one data set.
  Returns:
    (list of scalars, (sum, count)). The accuracy counts the joints of all heads.
  """
  losses, total, count = [], jnp.float32(0), jnp.float32(0)
  for d, pred in enumerate(preds):
    own = weight if dataset is None else weight * (dataset == d)[:, None]
    losses.append(heatmap_loss(pred, target, own))
    correct, counted = heatmap_accuracy(pred, target, own)
    total, count = total + correct, count + counted
  return losses, (total, count)


def heatmap_accuracy(pred, target, weight, threshold=0.05):
  """Returns the accuracy of the maxima of heat maps, as (sum, count).

  A maximum is correct if its distance to the target's maximum is less than `threshold`. The distance in x is
  divided by the width of the map, and the distance in y by the height. The official code exchanges width and
  height.

  Args:
    pred, target, weight: see `heatmap_loss`. A joint counts in the records in which its weight is not 0.
    threshold: largest distance, in widths and heights of the map.
  Returns:
    (sum, count): scalars float32. sum is the sum over the joints of their share of correct maxima, and count
    is the number of joints that count in at least one record.
  """
  h, w = target.shape[1:3]
  pred_xy, target_xy = (_maximum_xy(heatmaps.astype(jnp.float32)) for heatmaps in (pred, target))
  size = np.array([w, h], np.float32)
  share, is_counted = joint_accuracy(pred_xy, target_xy, weight > 0, size, threshold)
  return jnp.sum(share), jnp.sum(is_counted.astype(jnp.float32))


def joint_accuracy(pred_xy, target_xy, is_counted, size, threshold):
  """Returns the share of correct positions of each joint.

  Args:
    pred_xy, target_xy: [B, K, 2] float, (x, y) of the joints.
    is_counted: [B, K] bool. False: the joint is missing in this record.
    size: [2] or [B, 1, 2] float, the unit of the distances in x and y.
    threshold: a position is correct if its distance is less than this.
  Returns:
    (share, has_records): [K] float32 and [K] bool. False: the joint counts in no record, and its share is 0.
  """
  distance = jnp.linalg.norm((pred_xy - target_xy) / size, axis=-1)
  correct = jnp.sum((distance < threshold) & is_counted, axis=0)
  count = jnp.sum(is_counted, axis=0)
  return correct / jnp.maximum(count, 1), count > 0


def _maximum_xy(heatmaps):
  """Returns the (x, y) of the maxima, [B, K, 2] float32; (-1, -1) for a map without a positive value."""
  cell, value = find_maximum(heatmaps)
  return jnp.where(value[..., None] > 0, cell, -1).astype(jnp.float32)

"""Measures the reconstruction error on held-out records, and compares it with the position mean.

The error is computed on masked patches. The position mean is the mean of the training patches at each
position. It is a simple prediction that ignores the picture.
"""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from hap_jax import sharding
from hap_jax.data import samplers
from hap_jax.evaluation.evaluate import EvalSplit, Evaluation
from hap_jax.losses.reconstruction import masked_patch_loss
from hap_jax.viz import reconstruction as viz
from hap_jax.viz.curves import Guide, Mark


def make_evaluation(
  forward_by_index,
  make_targets,
  *,
  train,
  val,
  num_mean_records,
  num_rows,
  encoder,
  norm_pix_loss,
  learned_ratio,
):
  """Returns the Evaluation of pre-training.

  This evaluation draws pictures of reconstructions. If there are held-out records, it also computes the
  held-out loss.

  Args:
    forward_by_index: (variables, batch) -> PretrainOutputs. The masks depend only on batch["index"].
    make_targets: [B, H, W, 3] uint8 images -> [B, L, P*P*3].
    train: ordered loader of the training records, for the position mean.
    val: ordered loader of the held-out records. None: nothing is held out.
    num_mean_records: number of training records in the position mean.
    num_rows: number of people in a picture, one per row.
    encoder: the `description.Encoder` of the model.
    norm_pix_loss: True if the targets are standardised per patch.
    learned_ratio: the goal for "val_ratio"; 0: no goal.
  """
  evals = {}
  if val is not None:
    mean = position_mean(train, num_mean_records, make_targets)
    evals["val"] = EvalSplit(loader=val, predict=make_predict(forward_by_index, mean))
  figures = make_figures(
    forward_by_index,
    val or train,
    num_rows=num_rows,
    grid=encoder.grid,
    patch=encoder.patch,
    norm_pix_loss=norm_pix_loss,
  )
  goal = Mark("learned", learned_ratio) if learned_ratio else None
  guide = Guide(baseline=Mark("position mean", 1.0), goal=goal)
  return Evaluation(evals=evals, score=score, figures=figures, guides={"val_ratio": guide})


def make_predict(forward_by_index, position_mean):
  """Returns a function (variables, batch) -> {"error": [B], "mean_error": [B], "count": [B]}.

  "error" is the squared error of the model, summed over the masked patches of each record. "mean_error" is
  the same sum for the position mean. "count" is the number of masked patches in these sums.

  Args:
    forward_by_index: (variables, batch) -> PretrainOutputs.
    position_mean: [L, P*P*3].
  """

  def predict(variables, batch):
    outputs = forward_by_index(variables, batch)
    is_masked = outputs.mask.is_masked
    error, count = masked_patch_loss(outputs.pred, outputs.target[:, None], is_masked)
    mean_error, _ = masked_patch_loss(jnp.asarray(position_mean), outputs.target[:, None], is_masked)
    return {"error": error.sum(1), "mean_error": mean_error.sum(1), "count": count.sum(1)}

  return predict


def score(splits):
  """Returns the scores of held-out records: loss of the model, loss of the position mean, and their ratio."""
  val = splits["val"]
  # Sums are divided once at the end, because records have different numbers of masked patches.
  count = val["count"].sum(dtype=np.float64)
  loss = val["error"].sum(dtype=np.float64) / count
  mean_loss = val["mean_error"].sum(dtype=np.float64) / count
  return {
    "val_loss_rec": float(loss),
    "val_loss_position_mean": float(mean_loss),
    "val_ratio": float(loss / mean_loss),
  }


def summarize(scores, learned_ratio=0.0):
  """Returns a list with one line about the result of a run, or [] without a held-out score.

  Args:
    scores: the result of `score`.
    learned_ratio: the goal for "val_ratio". The line then says whether the run reached it. 0: no goal.
  """
  if "val_ratio" not in scores:
    return []
  ratio = scores["val_ratio"]
  line = (
    f"held-out masked-patch loss {scores['val_loss_rec']:.4f}, position mean "
    f"{scores['val_loss_position_mean']:.4f}, ratio {ratio:.3f}"
  )
  if not learned_ratio:
    return [f"{line} (below 1: better than the position mean)"]
  verdict = (
    "it learned to fill in people" if ratio <= learned_ratio else "it has not learned to fill in people"
  )
  return [f"verdict: {line} (goal: at most {learned_ratio}): {verdict}"]


def position_mean(loader, num_records, make_targets):
  """Returns the mean target of each patch position, the best prediction that ignores the picture.

  Args:
    loader: an ordered loader. Its first batches are read, up to at least `num_records` records.
    num_records: number of records to average. It is rounded up to whole batches.
    make_targets: [B, H, W, 3] uint8 images -> [B, L, P*P*3].
  Returns:
    [L, P*P*3] float32.
  """
  sum_batch = jax.jit(
    lambda image, valid: jnp.einsum("blp,b->lp", make_targets(image), valid.astype(jnp.float32))
  )
  total, count = 0.0, 0
  loader = loader.whole()
  num_steps = min(-(-num_records // loader.sampler.batch_size), loader.num_steps)
  with contextlib.closing(loader.iterate(0, num_steps)) as batches:
    for batch in batches:
      # Batches are summed in float64 on the host, so that rounding errors stay small.
      total = total + np.asarray(sum_batch(batch["image"], batch["valid"]), np.float64)
      count += int(batch["valid"].sum())
  return (total / count).astype(np.float32)


def make_figures(forward_by_index, loader, *, num_rows, grid, patch, norm_pix_loss):
  """Returns a function variables -> {"reconstruction": [h, w, 3] uint8 picture}.

  The picture shows at most `num_rows` evenly spaced records of the loader. For the other arguments, see
  `make_evaluation`.
  """
  forward_by_index = jax.jit(forward_by_index)
  num_records = loader.sampler.num_records
  spread = samplers.Spread(num_records, min(num_rows, num_records))
  loader = dataclasses.replace(loader.whole(), sampler=spread)

  def figures(variables):
    batch = loader.batch(0)
    outputs = forward_by_index(variables, batch)
    # With several processes, the compiler may divide these arrays among the processes.
    cause, pred = sharding.fetch((outputs.mask.cause, outputs.pred))
    picture = viz.panel(
      images=batch["image"],
      cause=cause,
      pred=pred,
      grid=grid,
      patch=patch,
      keypoints_xy=batch.get("keypoints_xy"),
      keypoints_visible=batch.get("keypoints_visible"),
      target_space="normalized" if norm_pix_loss else "pixels",
    )
    return {"reconstruction": picture}

  return figures

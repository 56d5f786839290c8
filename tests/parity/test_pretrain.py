"""Model, losses and gradients of pre-training against the official implementation.

The notes of the golden vectors give the tolerances: 1e-5 relative for losses, 2e-5 for activations, and for
gradients 1e-4 of the largest gradient of each tensor.
"""

import jax
import numpy as np
import pytest

from hap_jax.losses.alignment import alignment_loss, info_nce
from hap_jax.losses.reconstruction import masked_patch_loss
from hap_jax.masking.sampler import mask_from_priority
from hap_jax.models import layers
from hap_jax.tasks.pretrain import make_target
from hap_jax.train.optim import path_name


@pytest.fixture(scope="module", params=["normpix", "plainpix"])
def case(request, golden):
  """Returns (True if patches are normalised, the official numbers)."""
  return request.param == "normpix", golden(f"pretrain_small_{request.param}")


def run(small, norm_pix_loss, params):
  """Returns (total loss, {name: value} of all values that the golden files hold)."""
  is_masked, ids_keep, ids_restore = mask_from_priority(small.noise, small.num_keep)
  latent = small.model.apply({"params": params}, small.image, ids_keep, method=encode)
  outputs = small.model.apply({"params": params}, small.image, ids_keep, ids_restore)
  target = make_target(small.image, small.model.encoder.patch, norm_pix_loss)
  sums, counts = masked_patch_loss(outputs.pred, target[:, None], is_masked)
  # This is the loss of the pre-training task, computed here so that each part can be compared.
  align = alignment_loss(outputs.cls[:, 0], outputs.cls[:, 1])
  loss_rec = sums.sum() / counts.sum()
  total = loss_rec + small.align_weight * align.mean()
  return total, {
    "loss_rec": loss_rec,
    "loss_align": align.mean(),
    "latent": latent,
    "pred": outputs.pred,
    "cls": outputs.cls,
    "rec_per_image": sums.mean(1) / counts.mean(1),
    "align_per_image": align,
  }


def encode(model, image, ids_keep):
  return model.encoder(layers.patchify(image, model.encoder.patch), ids_keep).normed


@pytest.fixture(scope="module")
def outcome(small, case):
  """Returns ((loss, parts), gradients) of our implementation."""
  norm_pix_loss, _ = case
  value_and_grad = jax.jit(jax.value_and_grad(lambda p: run(small, norm_pix_loss, p), has_aux=True))
  return value_and_grad(small.params)


def check_gradients(grads, state, ours):
  expected = jax.tree_util.tree_leaves_with_path(ours(state))
  found = dict(jax.tree_util.tree_leaves_with_path(grads))
  for path, gradient in expected:
    worst = np.abs(found[path] - gradient).max()
    assert worst <= 1e-4 * np.abs(gradient).max(), f"{path_name(path)}: off by {worst}"


def test_masks_from_given_priorities_agree_with_the_official_code(small, golden):
  inputs = golden("pretrain_small_inputs")
  is_masked, ids_keep, ids_restore = mask_from_priority(small.noise, small.num_keep)
  for view in range(2):
    np.testing.assert_array_equal(is_masked[:, view], inputs[f"mask_view{view + 1}"].astype(bool))
    np.testing.assert_array_equal(ids_restore[:, view], inputs[f"ids_restore_view{view + 1}"])
  np.testing.assert_array_equal(
    np.take_along_axis(np.asarray(ids_restore), np.asarray(ids_keep), -1),
    np.broadcast_to(np.arange(small.num_keep), ids_keep.shape),
  )


def test_pretraining_losses_agree_with_the_official_code(outcome, case):
  (total, parts), _ = outcome
  for name, value in (
    ("loss_total", total),
    ("loss_rec", parts["loss_rec"]),
    ("loss_align", parts["loss_align"]),
  ):
    np.testing.assert_allclose(value, case[1][name], rtol=1e-5, err_msg=name)


def test_pretraining_activations_agree_with_the_official_code(outcome, case):
  (_, parts), _ = outcome
  # Our encoder returns the views of all images on one axis; the file has one array per view.
  latent = np.asarray(parts["latent"]).reshape(*parts["cls"].shape[:2], -1, parts["cls"].shape[-1])
  for view in range(2):
    np.testing.assert_allclose(latent[:, view], case[1][f"encoder_view{view + 1}"], atol=2e-5, rtol=0)
    np.testing.assert_allclose(parts["cls"][:, view], latent[:, view, 0], atol=2e-5, rtol=0)
    np.testing.assert_allclose(parts["pred"][:, view], case[1][f"pred_view{view + 1}"], atol=2e-5, rtol=0)


def test_pretraining_gradients_agree_with_the_official_code(outcome, case, pick, ours):
  check_gradients(outcome[1], pick(case[1], "grad/"), ours)


def test_two_processes_give_the_losses_and_gradients_of_one(outcome, case, golden, pick, ours):
  """Compares with an official run of two processes.

  There, the queries of each rank are compared with the keys of both ranks, and the gradients are averaged.
  Our single process with the whole batch must give the same numbers.
  """
  if not case[0]:
    pytest.skip("the two-process file is of the normalised case")
  expected = golden("pretrain_small_2proc")
  (total, parts), grads = outcome
  ranks = len(expected["rank_loss_align"])
  per_rank = {
    name: np.asarray(parts[name]).reshape(ranks, -1).mean(1) for name in parts if "per_image" in name
  }
  np.testing.assert_allclose(per_rank["align_per_image"], expected["rank_loss_align"], rtol=1e-5)
  np.testing.assert_allclose(per_rank["rec_per_image"], expected["rank_loss_rec"], rtol=1e-5)
  np.testing.assert_allclose(total, expected["mean_loss_total"], rtol=1e-5)
  check_gradients(grads, pick(expected, "grad/"), ours)


def test_alignment_loss_and_gradients_agree_with_the_official_code(golden):
  unit = golden("pretrain_align_unit")
  temperature, labels = float(unit["temperature"]), np.arange(len(unit["cls1"]))
  one, two = unit["cls1"], unit["cls2"]
  np.testing.assert_allclose(info_nce(one, two, labels, temperature).mean(), unit["loss_1to2"], atol=1e-5)
  np.testing.assert_allclose(info_nce(two, one, labels, temperature).mean(), unit["loss_2to1"], atol=1e-5)
  value_and_grad = jax.value_and_grad(lambda a, b: alignment_loss(a, b, temperature).mean(), argnums=(0, 1))
  loss, grads = value_and_grad(one, two)
  np.testing.assert_allclose(loss, unit["loss_align"], atol=1e-5)
  for view, grad in enumerate(grads, start=1):
    np.testing.assert_allclose(grad, unit[f"grad_cls{view}"], atol=1e-5)
    wrong = unit[f"grad_cls{view}_if_keys_not_detached"]
    assert np.abs(grad - wrong).max() > 1e-3  # the tolerance is small enough to find keys with a gradient

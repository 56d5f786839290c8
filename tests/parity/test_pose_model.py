"""The networks of 2D pose against the official implementation: features, heat maps, loss and gradients.

The notes of the golden vectors give the tolerances: 1e-4 for features and heat maps, and for gradients 1e-3
of their size.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.convert import families, names
from hap_jax.convert.weights import unflatten
from hap_jax.description import Encoder
from hap_jax.models import image_encoder, pose_estimator
from hap_jax.train import optim

COLLECTIONS = ("params", "batch_stats")
PADDING = 2  # pixels, in all official pose networks
FIRST_GRADIENT = "backbone.blocks.0.attn.qkv.weight"
FINAL_BIAS = "keypoint_head.final_layer.bias"


@dataclasses.dataclass(frozen=True)
class Case:
  """A golden file and the network with its weights.

  Attributes:
    file: arrays of the golden file.
    rows: {official name: row of the name table}.
    model: PoseEstimator.
    variables: weights and running statistics of the model.
  """

  file: dict[str, np.ndarray]
  rows: dict[str, names.Entry]
  model: pose_estimator.PoseEstimator
  variables: dict[str, Any]


@pytest.fixture(scope="module", params=pose_estimator.HEADS)
def case(request, golden, pick):
  file = golden(f"pose_vit_{request.param}")
  cfg = {key: value.tolist() for key, value in pick(file, "cfg/").items()}
  width, depth, patch = cfg["embed_dim"], cfg["depth"], cfg["patch_size"]
  mlp_ratio = len(file["param/backbone.blocks.0.mlp.fc1.bias"]) / width
  grid = tuple(side // patch for side in cfg["img_size"])
  encoder = Encoder(width, depth, cfg["num_heads"], grid, patch, mlp_ratio, PADDING, class_token=False)
  model = pose_estimator.PoseEstimator(
    encoder.build(),
    num_joints=(len(file[f"param/{FINAL_BIAS}"]),),
    head=request.param,
    head_channels=tuple(cfg.get("deconv_filters", (256, 256))),
  )
  # Our batch norm does not count its batches, so the counters of PyTorch have no row.
  state = {k: v for k, v in pick(file, "param/").items() if not k.endswith("num_batches_tracked")}
  vitpose = families.load("vitpose").variant_of_file(state)
  found = {vitpose.in_file(row.reference): row for row in names.table(vitpose, depth=depth, decoder_depth=0)}
  assert found.keys() == state.keys()
  flat = names.assemble(list(found.values()), lambda row: state[vitpose.in_file(row.reference)])
  variables = {name: unflatten(flat[name]) for name in COLLECTIONS if name in flat}
  return Case(file, found, model, variables)


@pytest.fixture(scope="module")
def image(case):
  return case.file["images"].transpose(0, 2, 3, 1)


@pytest.fixture(scope="module")
def trained(case, image):
  """Returns (heat maps, loss, new batch statistics, {path: gradient}) of one training step."""
  target = case.file["train/target"].transpose(0, 2, 3, 1)
  weight = case.file["train/target_weight"][:, None, None, :, 0]

  def loss(params):
    variables = {**case.variables, "params": params}
    heatmaps, state = case.model.apply(variables, image, train=True, mutable=["batch_stats"])
    return jnp.mean(jnp.square(weight * (heatmaps - target))), (heatmaps, state)

  (value, (heatmaps, state)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    case.variables["params"]
  )
  return heatmaps, value, flat(state.get("batch_stats", {})), flat(grads)


def flat(tree):
  return {optim.path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def check_map(found, expected, atol=1e-4):
  """Compares a map [B, H, W, C] with the official map [B, C, H, W]."""
  np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), atol=atol, rtol=0)


def test_official_weights_fill_the_network_exactly(case, image):
  init = jax.eval_shape(lambda key: case.model.init(key, image, train=False), jax.random.key(0))
  expected = {name: leaf.shape for name, leaf in flat(init).items()}
  assert {name: leaf.shape for name, leaf in flat(case.variables).items()} == expected


def test_features_and_heat_maps_agree_with_the_official_code(case, image):
  encoder = image_encoder.ImageEncoder(case.model.encoder)

  def evaluate(variables):
    params = {"params": {"encoder": variables["params"]["encoder"]}}
    return encoder.apply(params, image), case.model.apply(variables, image, train=False)

  tokens, heatmaps = jax.jit(evaluate)(case.variables)
  features = tokens.reshape(len(image), *case.model.encoder.grid, -1)
  check_map(features, case.file["eval/backbone_features"])
  check_map(heatmaps, case.file["eval/heatmaps"])
  assert heatmaps.dtype == jnp.float32


def test_heat_maps_in_training_agree_with_the_official_code(case, trained):
  check_map(trained[0], case.file["train/heatmaps"])


def test_loss_agrees_with_the_official_code(case, trained):
  np.testing.assert_allclose(trained[1], case.file["train/loss"], rtol=1e-5)


def test_gradients_agree_with_the_official_code(case, trained):
  official = dict(zip(case.file["train/grad_norm_names"], case.file["train/grad_norms"], strict=True))
  assert official.keys() == {name for name, row in case.rows.items() if row.collection == "params"}
  for name, norm in official.items():
    row = case.rows[name]
    np.testing.assert_allclose(np.linalg.norm(row.of(trained[3][row.ours])), norm, rtol=1e-3, err_msg=name)

  def gradient(name):
    row = case.rows[name]
    return row.layout.to_reference(row.of(trained[3][row.ours]))

  expected = case.file["train/grad_first"]
  found = gradient(FIRST_GRADIENT)[:, : expected.shape[1]]
  np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max(), rtol=0)
  expected = case.file["train/grad_final_layer_bias"]
  np.testing.assert_allclose(gradient(FINAL_BIAS), expected, atol=1e-3 * np.abs(expected).max(), rtol=0)


def test_running_statistics_after_one_step_agree_with_the_official_code(case, trained, pick):
  """Checks the running statistics; a running variance of biased variances would exceed the tolerance."""
  official = pick(case.file, "train/bn_after/")
  assert {case.rows[name].ours for name in official} == trained[2].keys()
  for name, value in official.items():
    np.testing.assert_allclose(trained[2][case.rows[name].ours], value, rtol=1e-5, atol=1e-6, err_msg=name)

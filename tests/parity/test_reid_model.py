"""Networks, losses, gradients and running statistics of person ReID against the official implementation.

The notes of the golden vectors give the tolerances: 1e-4 for features and logits (1e-3 with the LEM in
training), and for gradients 1e-3 of the largest gradient of each tensor.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.convert import families, names
from hap_jax.convert.weights import unflatten
from hap_jax.losses.identity import identity_loss
from hap_jax.losses.triplet import triplet_loss
from hap_jax.models import embedder, vit
from hap_jax.train import optim
from tests import networks

# Golden file -> names of the features and logits of its heads, in the order of `EmbedderOutputs`.
FEATURES = {"reid_vit": ("feat",), "reid_lem": ("feat_cls", "feat_conv")}
LOGITS = {"reid_vit": ("logits",), "reid_lem": ("logits_cls", "logits_conv")}
COLLECTIONS = ("params", "batch_stats")


@dataclasses.dataclass(frozen=True)
class Case:
  """A golden file and the network with its weights.

  Attributes:
    name: name of the golden file.
    file: arrays of the golden file.
    model: Embedder or LocalityEmbedder.
    variables: weights and running statistics of the model.
  """

  name: str
  file: dict[str, np.ndarray]
  model: Any
  variables: dict[str, Any]

  @property
  def rows(self):
    """Returns {official name: row of the name table of the conversion}."""
    family = families.load(self.name.replace("_", "-"))
    rows = names.table(family, depth=self.model.encoder.depth, decoder_depth=0)
    return {row.reference: row for row in rows}

  def part(self, prefix):
    return {key.removeprefix(prefix): value for key, value in self.file.items() if key.startswith(prefix)}

  def ours(self, state):
    """Turns {official name: array} into {collection: {path: array}}. A name without a row is an error."""
    # Our batch norm does not count its batches, so the counters of PyTorch have no row.
    rows = [self.rows[name] for name in state if not name.endswith("num_batches_tracked")]
    return {name: {} for name in COLLECTIONS} | names.assemble(rows, lambda row: state[row.reference])


@pytest.fixture(scope="module", params=list(FEATURES))
def case(request, golden):
  file = golden(request.param)
  cfg = {key.removeprefix("cfg/"): value.tolist() for key, value in file.items() if key.startswith("cfg/")}
  model = networks.reid(
    vit.Variant(cfg["embed_dim"], cfg["depth"], cfg["num_heads"]),
    image_size=tuple(cfg["img_size"]),
    patch=cfg["patch_size"],
    num_classes=cfg["num_classes"],
    locality=request.param == "reid_lem",
    drop_path=0.0,
    dtype=jnp.float32,
    scan=True,
  )
  case = Case(request.param, file, model, {})
  flat = case.ours(case.part("param/"))
  return dataclasses.replace(case, variables={name: unflatten(flat[name]) for name in COLLECTIONS})


@pytest.fixture(scope="module")
def image(case):
  return case.file["images"].transpose(0, 2, 3, 1)


@pytest.fixture(scope="module")
def evaluated(case, image):
  """Returns the outputs of the network in evaluation, with the running statistics."""
  return jax.jit(lambda variables: case.model.apply(variables, image, train=False))(case.variables)


@pytest.fixture(scope="module")
def trained(case, image):
  """Returns (outputs, losses by name, new batch statistics, gradients) of one training step."""
  labels = case.file["labels"]

  def loss(params):
    variables = {**case.variables, "params": params}
    outputs, state = case.model.apply(variables, image, train=True, mutable=["batch_stats"])
    parts = {
      "id_loss": jnp.mean(jnp.stack([identity_loss(logits, labels) for logits in outputs.logits])),
      "triplet_loss": jnp.mean(jnp.stack([triplet_loss(feature, labels) for feature in outputs.features])),
    }
    # The official recipe takes the mean over the heads and gives both losses the weight 0.5.
    total = 0.5 * parts["id_loss"] + 0.5 * parts["triplet_loss"]
    return total, (outputs, parts | {"total_loss": total}, state)

  (_, aux), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(case.variables["params"])
  return *aux, grads


def check_outputs(case, outputs, mode, atol):
  for names_of, found in ((FEATURES, outputs.features), (LOGITS, outputs.logits)):
    for name, array in zip(names_of[case.name], found, strict=True):
      expected = case.file[f"{mode}/{name}"]
      np.testing.assert_allclose(array, expected, atol=atol, rtol=0, err_msg=name)
      assert array.dtype == jnp.float32


def flat(tree):
  return {optim.path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_official_weights_fill_the_network_exactly(case, image):
  init = jax.eval_shape(lambda key: case.model.init(key, image, train=False), jax.random.key(0))
  expected = {name: leaf.shape for name, leaf in flat(init).items()}
  found = {name: leaf.shape for name, leaf in flat(case.variables).items()}
  assert found == expected


def test_outputs_in_evaluation_agree_with_the_official_code(case, evaluated):
  check_outputs(case, evaluated, "eval", 1e-4)


def test_retrieval_features_are_joined_before_they_are_normalised(case, evaluated):
  found = embedder.embedding(evaluated)
  if case.name == "reid_lem":
    np.testing.assert_allclose(found, case.file["eval/feat_concat_normalised"], atol=1e-5, rtol=0)
  np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_outputs_in_training_agree_with_the_official_code(case, trained):
  check_outputs(case, trained[0], "train", 1e-3 if case.name == "reid_lem" else 1e-4)


def test_reid_losses_agree_with_the_official_code(case, trained):
  for name, value in trained[1].items():
    np.testing.assert_allclose(value, case.file[f"train/{name}"], rtol=1e-5, err_msg=name)


def test_reid_gradients_agree_with_the_official_code(case, trained):
  found = flat(trained[3])
  expected = case.ours(case.part("grad/"))["params"]
  # With the LEM, the exact gradient of the bias of the final norm is 0: distances and batch norms do not
  # change when a constant is added to all features. Both implementations have only rounding errors of the
  # larger gradients there, so the limit adds 10 float32 steps of the largest gradient.
  rounding = 10 * np.finfo(np.float32).eps * max(np.abs(gradient).max() for gradient in expected.values())
  for name in case.part("grad/"):
    row = case.rows[name]
    gradient = row.of(expected[row.ours])
    worst = np.abs(row.of(found[row.ours]) - gradient).max()
    assert worst <= 1e-3 * np.abs(gradient).max() + rounding, f"{name}: off by {worst}"


def test_running_statistics_after_one_step_agree_with_the_official_code(case, trained):
  """Checks the running statistics; a running variance of biased variances would exceed the tolerance."""
  expected = case.ours(case.part("after_one_train_step_stats/"))["batch_stats"]
  found = flat(trained[2].get("batch_stats", {}))
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_optimizer_groups_agree_with_the_official_code(case):
  if "optim/param_name" not in case.file:
    pytest.skip("the golden file has no optimizer groups")
  rules = optim.layer_decay_rules(case.model.encoder.depth, layer_decay=0.4, weight_decay=0.05)
  matched = flat(optim.match_rules(case.variables["params"], rules))
  matched_rows = set()
  official = [case.file[f"optim/{key}"] for key in ("param_name", "lr_scale", "weight_decay")]
  for name, lr_scale, weight_decay in zip(*(column.tolist() for column in official), strict=True):
    row = case.rows[name]
    rule = matched[row.ours]
    assert rule.trainable, name
    scale = rule.lr_scale if row.block is None else rule.lr_scale[row.block]
    np.testing.assert_allclose([scale, rule.weight_decay], [lr_scale, weight_decay], rtol=1e-6)
    matched_rows.add((row.ours, row.block))
  rows = (row for row in case.rows.values() if row.collection == "params")
  # Every parameter of the network must be in an official group.
  assert matched_rows == {(row.ours, row.block) for row in rows}

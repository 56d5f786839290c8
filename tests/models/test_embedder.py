"""Tests of the networks of person ReID: names, sizes, initial weights and the cost of each output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.convert import families, names
from hap_jax.models import embedder, vit
from tests import networks

TINY = vit.Variant(width=16, depth=1, num_heads=2)


def build(variant=TINY, image_size=(24, 16), patch=8, num_classes=5, locality=False, **changes):
  return networks.reid(
    variant,
    image_size=image_size,
    patch=patch,
    num_classes=num_classes,
    locality=locality,
    **{"drop_path": 0.0, "dtype": jnp.float32, "scan": True, **changes},
  )


def shapes(model, batch=2):
  H, W = (side * model.encoder.patch for side in model.encoder.grid)
  init = lambda key, image: model.init(key, image, train=False)  # noqa: E731
  return jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((batch, H, W, 3), "float32"))


def random_variables(model):
  """Returns random weights of the network's shapes. The init of the network would compile for seconds."""
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda x: rng.uniform(0.1, 0.3, x.shape).astype(x.dtype), shapes(model))


def random_image(model, batch=2):
  H, W = (side * model.encoder.patch for side in model.encoder.grid)
  return np.random.default_rng(1).normal(size=(batch, H, W, 3)).astype(np.float32)


@pytest.mark.parametrize(
  ("locality", "image_size", "num_classes", "num_params"),
  [
    (False, (256, 128), 1041, 86_546_961),
    (False, (256, 128), 751, 86_323_951),
    (True, (256, 128), 1041, 96_576_546),
    (True, (256, 128), 751, 95_907_806),
    (True, (384, 128), 751, 95_907_806 + 49_152),
  ],
)
def test_parameter_counts_are_the_official_ones(locality, image_size, num_classes, num_params):
  model = build(vit.variant("B"), image_size, 16, num_classes, locality)
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes(model)["params"])) == num_params


@pytest.mark.parametrize(("locality", "family", "num_entries"), [(False, "vit", 152), (True, "lem", 226)])
def test_every_weight_is_an_entry_of_official_files(locality, family, num_entries):
  family = families.load(f"reid-{family}")
  rows = names.table(family, depth=12, decoder_depth=0)
  # A counter is an entry of the file without a weight: PyTorch counts the batches of each batch norm.
  assert len(rows) + len(family.placeholders) == num_entries
  variables = shapes(build(vit.variant("B"), (256, 128), 16, locality=locality))
  paths = [
    "/".join(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(dict(variables))
  ]
  assert len({(row.collection, row.ours, row.block) for row in rows}) == len(rows)
  assert sorted(paths) == sorted({f"{row.collection}/{row.ours}" for row in rows})


def test_initial_weights_have_the_distributions_of_the_official_modules():
  model = build(variant=vit.Variant(width=16, depth=0, num_heads=2), num_classes=400, locality=True)
  image = random_image(model)

  @jax.jit
  def init(key):
    # Only the checked weights are returned, so the other weights need not be compiled.
    params = model.init(key, image, train=False)["params"]
    unit = params["conv_head_0"]
    fans = [(params["conv_fc"]["kernel"], 32), (params["conv_fc"]["bias"], 32), (unit["conv2"]["kernel"], 72)]
    return params["head"], fans, unit["bn3"]["scale"]

  head, fans, scale = init(jax.random.key(0))
  assert abs(head["kernel"].std() / 0.02 - 1) < 0.05
  assert not head["bias"].any()
  for weight, fan_in in fans:
    assert 0.95 < np.abs(weight).max() * fan_in**0.5 <= 1
    # The standard deviation of a uniform distribution within a is a / sqrt(3).
    assert abs(np.std(weight) * (3 * fan_in) ** 0.5 - 1) < 0.1
  assert (scale == 1).all()  # some ResNets start the last scale of a residual unit at 0


@pytest.mark.parametrize("locality", [False, True])
def test_shapes_and_types_of_outputs_in_bfloat16(locality):
  # The grid of 5 x 3 patches is odd, so the convolution with stride 2 must round up.
  model = build(image_size=(40, 24), locality=locality, dtype=jnp.bfloat16)
  apply = lambda variables, x: model.apply(variables, x, train=True, mutable=["batch_stats"])  # noqa: E731
  outputs, state = jax.eval_shape(apply, shapes(model), random_image(model))
  assert [feature.shape for feature in outputs.features] == [(2, 16), (2, 32)][: 1 + locality]
  assert [logits.shape for logits in outputs.logits] == [(2, 5)] * (1 + locality)
  assert {leaf.dtype for leaf in jax.tree.leaves((outputs, state))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("locality", [False, True])
def test_drop_path_draws_only_with_a_key(locality):
  model = build(locality=locality, drop_path=0.1)

  def program(drop_key):
    apply = lambda v, x: model.apply(v, x, train=False, drop_key=drop_key)  # noqa: E731
    return str(jax.make_jaxpr(apply)(shapes(model), random_image(model)))

  assert "random_bits" in program(jax.random.key(0))
  assert "random_bits" not in program(None)


def test_the_classifier_is_not_compiled_if_only_features_are_used():
  model = build(num_classes=977)
  apply = jax.jit(lambda v, x: embedder.embedding(model.apply(v, x, train=False)))
  compiled = apply.lower(shapes(model), random_image(model, batch=3)).compile()
  assert "[3,977]" not in compiled.as_text()  # the shape of the logits; no other array has it


def test_pictures_with_swapped_height_and_width_are_an_error():
  model = build()
  with pytest.raises(ValueError, match=r"shape \(2, 16, 24, 3\), this encoder takes \[B, 24, 16, 3\]"):
    model.apply(random_variables(model), random_image(model).swapaxes(1, 2), train=False)


def test_a_training_set_without_persons_is_an_error():
  with pytest.raises(ValueError, match="no persons"):
    build(num_classes=0)

"""The tables of names and the changes of layout, compared with the official model and with this project's."""

import jax
import numpy as np
import pytest

from hap_jax.convert import families, layouts, names
from hap_jax.models import layers, vit
from tests import networks

# The families that hold the model of pre-training under its official names.
FAMILIES = [families.load(name) for name in ("hap", "mae")]


def golden_table(golden, family):
  """Returns (names of the official tiny model, rows of the family's table for its depth)."""
  reference = [key.removeprefix("param/") for key in golden("pretrain_small_params")]
  depths = {stack: names.count_blocks(family, stack, reference) for stack in ("encoder", "decoder")}
  return reference, names.table(family, depth=depths["encoder"], decoder_depth=depths["decoder"])


@pytest.mark.parametrize(
  ("layout", "shape"),
  [
    (layouts.IDENTITY, (1, 5, 4)),
    (layouts.VECTOR, (6,)),
    (layouts.LINEAR, (6, 4)),
    (layouts.PATCH_CONV, (6, 3, 4, 4)),
    (layouts.CONV, (6, 4, 3, 2)),
    (layouts.CONV_1X1, (6, 4, 1, 1)),
    (layouts.DECONV, (4, 6, 3, 2)),
  ],
  ids=lambda value: getattr(value, "name", ""),
)
def test_each_layout_followed_by_its_inverse_is_the_identity(layout, shape):
  array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
  np.testing.assert_array_equal(layout.to_reference(layout.to_ours(array)), array)


def test_a_patch_kernel_gives_the_same_result_as_the_convolution():
  rng = np.random.default_rng(0)
  weight, image = rng.normal(size=(5, 3, 4, 4)), rng.normal(size=(2, 8, 12, 3))
  cells = image.reshape(2, 2, 4, 3, 4, 3)  # [B, Gh, P, Gw, P, C]
  want = np.einsum("bipjqc,dcpq->bijd", cells, weight).reshape(2, 6, 5)
  got = layers.patchify(image, 4) @ layouts.PATCH_CONV.to_ours(weight)
  np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_table_names_every_tensor_of_the_official_model_once(golden, family):
  reference, rows = golden_table(golden, family)
  assert sorted(row.reference for row in rows) == sorted(reference)
  assert len({(row.ours, row.block) for row in rows}) == len(rows)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_table_names_every_parameter_of_our_model_once(family):
  model = networks.pretraining(
    vit.Variant(16, 3, 2),
    image_size=(16, 8),
    patch=4,
    decoder_width=8,
    decoder_depth=2,
    decoder_heads=2,
    dtype=np.float32,
    scan=False,
  )
  # Only the shapes matter, so no real masks are needed.
  ids = np.zeros((1, 1, 4), np.int32), np.zeros((1, 1, 8), np.int32)
  params = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 16, 8, 3), np.float32), *ids)["params"]
  paths = ["/".join(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  rows = names.table(family, depth=3, decoder_depth=2)
  assert {row.ours for row in rows} == set(paths)
  for stack, depth in (("encoder", 3), ("decoder", 2)):
    blocks = [row.block for row in rows if row.ours == f"{stack}/blocks/mlp/fc1/kernel"]
    assert blocks == list(range(depth))


def test_a_table_without_decoder_has_only_the_rows_of_the_encoder():
  rows = names.table(families.load("mae"), depth=2, decoder_depth=0)
  assert {row.stack for row in rows} == {"encoder"}
  assert sum(row.reference.startswith("blocks.1.") for row in rows) == 12  # tensors of one block


def test_a_missing_block_number_is_an_error():
  with pytest.raises(ValueError, match=r"3 blocks blocks\.N but no block with number 1"):
    names.count_blocks(FAMILIES[0], "encoder", ["blocks.0.norm1.bias", "blocks.2.a", "blocks.3.a"])


# Arrays of this project that are several tensors in the file


def cut_rows(parts):
  """Returns two rows that cut one array of 768 columns into 576 and 192 columns."""
  return [
    names.Entry(f"part{k}", "encoder/kernel", layouts.LINEAR, (str(size), "4"), parts=parts, part=k)
    for k, size in enumerate((576, 192))
  ]


# The second pair has the same ratio in smaller numbers.
@pytest.mark.parametrize("parts", [(576, 192), (3, 1)])
def test_unequal_parts_are_joined_and_cut_again(parts):
  rng, rows = np.random.default_rng(0), cut_rows(parts)
  state = {row.reference: rng.normal(size=tuple(map(int, row.shape))).astype(np.float32) for row in rows}
  whole = names.assemble(rows, lambda row: state[row.reference])["params"]["encoder/kernel"]
  assert whole.shape == (4, 768)
  np.testing.assert_array_equal(whole, np.concatenate([state["part0"], state["part1"]]).T)
  for row in rows:
    back = row.layout.to_reference(row.of(whole))
    np.testing.assert_array_equal(back, state[row.reference], strict=True)


@pytest.mark.parametrize(
  ("lengths", "match"),
  [
    ((576, 200), r"part1: its part of encoder/kernel has shape \(4, 192\), but the tensor has \(4, 200\)"),
    ((577, 192), r"part0: 577 columns cannot be part 0 of 576 : 192"),
  ],
)
def test_parts_with_other_sizes_than_in_the_table_are_an_error(lengths, match):
  arrays = {f"part{k}": np.zeros((length, 4), np.float32) for k, length in enumerate(lengths)}
  with pytest.raises(ValueError, match=match):
    names.assemble(cut_rows((576, 192)), lambda row: arrays[row.reference])


def test_an_array_that_cannot_be_cut_into_the_parts_is_an_error():
  with pytest.raises(ValueError, match=r"encoder/kernel: 770 columns cannot be cut into parts of 576 : 192"):
    cut_rows((576, 192))[0].of(np.zeros((4, 770), np.float32))

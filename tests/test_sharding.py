"""Sizes of the mesh and shardings of the parameters."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from hap_jax import sharding


@pytest.mark.parametrize(
  ("sizes", "shape"),
  [({}, (8, 1, 1)), ({"fsdp": 4}, (2, 4, 1)), ({"data": 1, "fsdp": -1, "tensor": 2}, (1, 4, 2))],
)
def test_one_axis_takes_the_remaining_devices(sizes, shape):
  assert tuple(sharding.make_mesh(**sizes).shape.values()) == shape


@pytest.mark.parametrize("sizes", [{"data": 3}, {"fsdp": 3}, {"data": 0}, {"fsdp": -1}, {"data": 16}])
def test_mesh_sizes_that_do_not_fit_are_an_error(sizes):
  with pytest.raises(ValueError, match=r"config\.mesh: data="):
    sharding.make_mesh(**sizes)


def test_devices_of_several_processes_must_not_share_rows():
  sharding.check_rows([[0, 0], [1, 1]])
  with pytest.raises(ValueError, match=r"config\.mesh\.tensor=2: devices of several processes"):
    sharding.check_rows([[0, 1], [2, 3]])


def test_the_error_of_a_batch_size_names_sizes_that_divide():
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  sharding.check_batch_size(12, mesh)
  with pytest.raises(ValueError, match="use 8 or 16"):
    sharding.check_batch_size(12, mesh, parts=2)


def test_matrices_are_split_and_other_parameters_are_not():
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  shapes = {
    "encoder": {
      "blocks": {
        "attn": {"qkv": {"kernel": (4, 8, 24), "bias": (4, 24)}, "proj": {"kernel": (4, 8, 8)}},
        "norm1": {"scale": (4, 8)},
      },
      "pos_embed": (1, 3, 8),
    },
    "conv": {"kernel": (3, 3, 8, 4)},
    # 5 is not a multiple of fsdp=2, so this matrix stays whole.
    "odd": {"kernel": (5, 4)},
  }
  tree = jax.tree.map(np.zeros, shapes, is_leaf=lambda x: isinstance(x, tuple))
  specs = jax.tree.map(lambda place: place.spec, sharding.places(tree, mesh))
  block = specs["encoder"]["blocks"]
  assert block["attn"]["qkv"]["kernel"] == PartitionSpec(None, "fsdp", "tensor")
  assert block["attn"]["proj"]["kernel"] == PartitionSpec(None, "tensor", "fsdp")
  # Only the channels of a convolution are split, not its window.
  assert specs["conv"]["kernel"] == PartitionSpec(None, None, "fsdp", None)
  whole = (
    block["attn"]["qkv"]["bias"],
    block["norm1"]["scale"],
    specs["encoder"]["pos_embed"],
    specs["odd"]["kernel"],
  )
  for spec in whole:
    assert all(axis is None for axis in spec)

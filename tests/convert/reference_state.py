"""Tiny state dicts with random weights and with the names and shapes of official MAE and HAP checkpoints."""

import jax
import numpy as np

from hap_jax.convert import families, names, read

GRID = (4, 2)


def blocks(rng, prefix, depth, width):
  """Returns the tensors of a stack of blocks, {name: array}."""
  shapes = {
    **{f"norm{i}.{kind}": (width,) for i in (1, 2) for kind in ("weight", "bias")},
    "attn.qkv.weight": (3 * width, width),
    "attn.qkv.bias": (3 * width,),
    "attn.proj.weight": (width, width),
    "attn.proj.bias": (width,),
    "mlp.fc1.weight": (4 * width, width),
    "mlp.fc1.bias": (4 * width,),
    "mlp.fc2.weight": (width, 4 * width),
    "mlp.fc2.bias": (width,),
  }
  named = {f"{prefix}.{i}.{name}": shape for i in range(depth) for name, shape in shapes.items()}
  return {name: rng.normal(size=shape).astype(np.float32) for name, shape in named.items()}


def encoder_state(*, grid=GRID, width=16, depth=2, patch=4, table=None):
  """Returns an encoder's state dict. The position table has random numbers, unless `table` is given."""
  rng = np.random.default_rng(0)
  make = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
  return {
    "cls_token": make(1, 1, width),
    "pos_embed": make(1, 1 + grid[0] * grid[1], width) if table is None else table,
    "patch_embed.proj.weight": make(width, 3, patch, patch),
    "patch_embed.proj.bias": make(width),
    **blocks(rng, "blocks", depth, width),
    "norm.weight": make(width),
    "norm.bias": make(width),
  }


def full_state(*, grid=GRID, decoder_width=8, decoder_depth=1, patch=4, **encoder):
  """Returns the state dict of an encoder with a decoder."""
  rng = np.random.default_rng(1)
  make = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
  state = encoder_state(grid=grid, patch=patch, **encoder)
  width = len(state["norm.bias"])
  return {
    **state,
    "mask_token": make(1, 1, decoder_width),
    "decoder_pos_embed": make(1, 1 + grid[0] * grid[1], decoder_width),
    "decoder_embed.weight": make(decoder_width, width),
    "decoder_embed.bias": make(decoder_width),
    **blocks(rng, "decoder_blocks", decoder_depth, decoder_width),
    "decoder_norm.weight": make(decoder_width),
    "decoder_norm.bias": make(decoder_width),
    "decoder_pred.weight": make(patch * patch * 3, decoder_width),
    "decoder_pred.bias": make(patch * patch * 3),
  }


def exchange(monkeypatch, family):
  """Replaces the Family that has the name of this one until the end of the test."""
  module = f"hap_jax.convert.families.{family.name.replace('-', '_')}"
  monkeypatch.setattr(f"{module}.FAMILY", family)


def leaves(tree):
  """Returns nested dicts as {path with slashes: leaf}."""
  pairs = jax.tree_util.tree_leaves_with_path(tree)
  return {"/".join(key.key for key in path): leaf for path, leaf in pairs}


def family_state(
  family, *, grid=GRID, width=16, depth=2, patch=4, decoder_depth=1, num_classes=5, mlp_ratios=(4, 4)
):
  """Returns a state dict with the names and shapes of a family. The weights are as large as trained ones."""
  rng = np.random.default_rng(2)
  sizes = {"D": width, "E": 16, "P": patch, "T": 1 + grid[0] * grid[1]}
  sizes |= {"F": mlp_ratios[0] * width, "G": mlp_ratios[1] * 16}
  sizes |= {"C": num_classes, "M": width // 2}
  state = {}
  for row in names.table(families.load(family), depth=depth, decoder_depth=decoder_depth):
    shape = [read.size_of(token, sizes) for token in row.shape]
    array = rng.standard_normal(shape, dtype=np.float32)
    array *= np.float32(0.2)
    # A running variance has to be positive and not near zero.
    state[row.reference] = np.abs(array) + np.float32(0.5) if row.ours.endswith("/var") else array
  return state | {name: np.zeros((), np.int64) for name in families.load(family).counters}

"""Tiny state dicts with random weights and with the names and shapes of official MAE and HAP checkpoints."""

import json

import jax
import numpy as np

from hap_jax.convert import families, names

GRID = (4, 2)
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "person", "in", "red", "blue", "shirt")
BERT = {"W": 8, "I": 12, "V": len(WORDS), "Q": 9, "S": 2}  # sizes of the text encoder of text ReID


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
  family,
  *,
  variant=0,
  grid=GRID,
  width=16,
  depth=2,
  patch=None,
  decoder_depth=1,
  num_classes=5,
  mlp_ratios=(4, 4),
):
  """Returns a state dict with the names and shapes of a family. The weights are as large as trained ones.

  The side of a patch is 4 by default, or 8 if the family has a padding of the patches. `variant` is 0 for the
  rows of the family, or n for the n-th of its variants.
  """
  rng = np.random.default_rng(2)
  family = families.load(family)
  family = (family, *family.variants)[variant]
  patch = patch or (8 if family.patch_padding else 4)
  sizes = {"D": width, "E": 16, "P": patch, "T": 1 + grid[0] * grid[1]}
  sizes |= {"F": mlp_ratios[0] * width, "G": mlp_ratios[1] * 16}
  sizes |= {"C": num_classes, "M": width // 2, "Z": 6, **BERT}
  state = {}
  rows = names.table(family, depth=depth, decoder_depth=decoder_depth, depths={"bert": 2})
  for row in rows:
    shape = [names.size_of(token, sizes) for token in row.shape]
    array = rng.standard_normal(shape, dtype=np.float32)
    array *= np.float32(0.2)
    # A running variance has to be positive and not near zero.
    state[row.reference] = np.abs(array) + np.float32(0.5) if row.ours.endswith("/var") else array
  for item in names.placeholders(family, depth):
    state[item.reference] = item.values(tuple(names.size_of(token, sizes) for token in item.shape))
  return state


def conversion_options(family, folder):
  """Returns the options of `run.convert` that a file of `family_state` needs besides grid and heads.

  Args:
    family: the name of the family.
    folder: the folder in which a BERT folder is made, if the family needs one.
  """
  if families.load(family).add_text_encoder is None:
    return {}
  return {"text_encoder": str(write_words(folder / "bert"))}


def write_words(folder, **config):
  """Writes config.json and vocab.txt of the text encoder in `family_state`. Returns the folder."""
  folder.mkdir(exist_ok=True)
  sizes = {
    "hidden_size": BERT["W"],
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": BERT["I"],
    "vocab_size": BERT["V"],
    "max_position_embeddings": BERT["Q"],
    "type_vocab_size": BERT["S"],
  }
  (folder / "config.json").write_text(json.dumps({**sizes, **config}))
  (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
  return folder

"""Fixtures of the parity tests: the small pre-training model of the golden files, with our names."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.convert import families, names
from hap_jax.convert.weights import unflatten
from hap_jax.models import hap, vit
from tests import networks


@dataclasses.dataclass(frozen=True)
class Small:
  """The small golden model and its batch.

  Attributes:
    model: HAP.
    params: nested dicts of arrays.
    image: [B, H, W, 3] float32, normalised.
    noise: [B, 2, L], the priorities of both views.
    num_keep: number of visible patches.
    align_weight: weight of the alignment loss.
  """

  model: hap.HAP
  params: Any
  image: np.ndarray
  noise: np.ndarray
  num_keep: int
  align_weight: float


def to_ours(state):
  """Turns {official name: array} into nested dicts with the name table of the conversion.

  Every array must have a row in the table.
  """
  family = families.load("hap")
  rows = names.table(
    family,
    depth=names.count_blocks(family, "encoder", state),
    decoder_depth=names.count_blocks(family, "decoder", state),
  )
  # Some files store a part of the parameters only, so rows may be left over. Names may not.
  rows = [row for row in rows if row.reference in state]
  assert {row.reference for row in rows} == state.keys()
  return unflatten(names.assemble(rows, lambda row: state[row.reference])["params"])


@pytest.fixture(scope="session")
def ours():
  """Returns the function `to_ours`."""
  return to_ours


@pytest.fixture(scope="session")
def pick():
  """Returns a function (file, prefix) -> {key without the prefix: array}."""
  return lambda file, prefix: {k.removeprefix(prefix): v for k, v in file.items() if k.startswith(prefix)}


# Unrolled blocks compile for long. tests/models/test_layers.py compares them with scanned blocks.
@pytest.fixture(
  scope="session",
  params=[pytest.param(True, id="scan"), pytest.param(False, id="loop", marks=pytest.mark.soak)],
)
def small(request, golden, pick):
  """Returns the golden model and its batch, once with scanned and once with unrolled blocks."""
  inputs = golden("pretrain_small_inputs")
  params = pick(golden("pretrain_small_params"), "param/")
  cfg = {key: value.tolist() for key, value in pick(inputs, "cfg/").items()}
  noise = np.stack([inputs["noise_view1"], inputs["noise_view2"]], axis=1)
  model = networks.pretraining(
    vit.Variant(cfg["embed_dim"], cfg["depth"], cfg["num_heads"]),
    image_size=tuple(cfg["img_size"]),
    patch=cfg["patch_size"],
    decoder_width=cfg["decoder_embed_dim"],
    decoder_depth=cfg["decoder_depth"],
    decoder_heads=cfg["decoder_num_heads"],
    mlp_ratio=cfg["mlp_ratio"],
    dtype=jnp.float32,
    scan=request.param,
  )
  return Small(
    model=model,
    params=to_ours(params),
    image=inputs["images"].transpose(0, 2, 3, 1),  # the official images are [B, 3, H, W]
    noise=noise,
    num_keep=int(noise.shape[-1] * (1 - float(inputs["mask_ratio"]))),
    align_weight=float(inputs["align_weight"]),
  )

"""`config.init_from`: what becomes of the weights of every family in a model that is to be trained."""

import jax
import numpy as np
import pytest

from hap_jax.convert import families, run
from hap_jax.io import safetensors_file
from hap_jax.models import hap, vit
from hap_jax.train import initial
from tests.convert.reference_state import GRID, family_state, leaves

DESCRIPTION = {"model": {"grid": [6, 3]}}


@pytest.fixture(scope="module")
def params():
  """Of a pre-training model, larger than the files' pictures: grid 6x3."""
  model = hap.build(
    vit.Variant(16, 2, 2),
    image_size=(24, 12),
    patch=4,
    decoder_width=16,
    decoder_depth=1,
    decoder_heads=2,
    dtype=np.float32,
    scan=False,
  )
  ids = np.zeros((1, 1, 9), np.int32), np.zeros((1, 1, 18), np.int32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 24, 12, 3), np.float32), *ids)["params"]
  return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def write_source(folder, family, container):
  path = folder / f"{family}.safetensors"
  safetensors_file.save(path, family_state(family), {})
  if container == "file":
    return path
  out = folder / "folder"
  to = {"own": "orbax", "hugging_face": "hf-vit"}[container]
  run.convert(path, out, to=to, family=family, source_grid=GRID, heads=(2, 2), real=False)
  return out


@pytest.mark.parametrize(
  ("family", "container", "has_decoder"),
  [
    ("hap", "own", True),
    ("mae", "own", False),
    ("hap", "hugging_face", False),
    ("timm", "own", False),
    ("reid-vit", "own", False),
    ("reid-lem", "own", False),
    ("reid-lem", "hugging_face", False),
  ],
)
def test_the_encoder_of_every_family_is_a_start(tmp_path, params, family, container, has_decoder):
  lines = []
  weights = initial.read(write_source(tmp_path, family, container))
  fitted = leaves(weights.fit(params, DESCRIPTION, lines.append))
  state = family_state(family)
  np.testing.assert_array_equal(fitted["encoder/blocks/mlp/fc2/bias"][1], state["blocks.1.mlp.fc2.bias"])
  moved = {name.partition("/")[0] for name, leaf in fitted.items() if np.any(leaf)}
  assert moved == {"encoder", *(["decoder"] if has_decoder else [])}
  assert fitted["encoder/pos_embed"].shape == (1, 19, 16)
  said = "\n".join(lines)
  assert "encoder/pos_embed 4x2 -> 6x3" in said
  assert ("head" in said) == (family.startswith("reid") and container == "own")
  assert families.load(family).licence in said


@pytest.mark.parametrize("family", ["mae", "hf-vitmae"])
def test_a_pre_training_begins_with_a_decoder_of_its_own_after_mae(tmp_path, params, family):
  path = tmp_path / "square.safetensors"
  safetensors_file.save(path, family_state(family, grid=(3, 3)), {})
  weights = initial.read(path)
  lines = []
  fitted = leaves(weights.fit(params, DESCRIPTION, lines.append))
  assert not any(np.any(leaf) for name, leaf in fitted.items() if name.startswith("decoder/"))
  assert any("kept at their initial values" in line for line in lines)


def test_what_is_not_there_is_told_with_what_can_be_given(tmp_path):
  with pytest.raises(ValueError, match=r"config\.init_from=.*none: no such file or folder; expected a \.pth"):
    initial.read(tmp_path / "none")


def test_a_decoder_of_other_heads_is_told(tmp_path, params):
  weights = initial.read(write_source(tmp_path, "hap", "own"))
  decoder = {"width": 16, "depth": 1, "num_heads": 2}
  weights.fit(params, {"model": DESCRIPTION["model"] | {"decoder": decoder}}, lambda _: None)
  other = {"model": DESCRIPTION["model"] | {"decoder": decoder | {"num_heads": 4}}}
  with pytest.raises(ValueError, match=r"decoder has 2 heads, but config\.model\.decoder_heads=4"):
    weights.fit(params, other, lambda _: None)

"""A tiny model, and the configuration of a tiny pre-training run that compiles and ends in seconds."""

import pytest

from configs import pretrain_demo
from hap_jax import config as config_lib
from hap_jax.models import vit

SMALL = vit.Variant(32, 2, 2)

TINY = {
  "total_steps": 6,
  "batch_size": 8,
  "log_every": 1,
  "save_every": 1000,
  "eval_every": 1000,
  "panel_every": 1000,
  "eval_batch_size": 8,
  "baseline_records": 16,
  "panel_rows": 2,
  "model.image_size": (32, 16),
  "model.decoder_width": 16,
  "model.decoder_depth": 1,
  "model.variant": "Mu",
  "model.scan": True,  # compiles faster
  "model.remat": "none",  # compiles faster
  "data.num_val": 8,
  "data.synthetic.num_train": 48,
  "data.synthetic.image_size": (40, 20),
  "data.synthetic.hold_in_memory": False,
}


@pytest.fixture(scope="module")
def small_model():
  """Gives the variant of the tiny configurations the sizes `SMALL` in this process, and returns them.

  The sizes are not in the configuration, so processes that a test starts have the usual sizes.
  """
  with pytest.MonkeyPatch.context() as patched:
    patched.setitem(vit.VARIANTS, TINY["model.variant"], SMALL)
    yield SMALL


@pytest.fixture(scope="session")
def tiny_overrides():
  """Returns the {key: value} overrides that make configs/pretrain_demo.py tiny."""
  return dict(TINY)


@pytest.fixture(scope="session")
def tiny_config():
  """Returns a function (overrides -> finalized tiny configuration)."""

  def make(**overrides):
    config = pretrain_demo.get_config()
    config.update_from_flattened_dict({**TINY, **{key.replace("__", "."): v for key, v in overrides.items()}})
    return config_lib.finalize(config)

  return make

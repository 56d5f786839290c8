"""A step of pre-training small enough for tests, configured as the command line does it."""

import pytest

from benchmarks import pretrain_step

# Widths and heads of the encoder differ from the decoder's, and the picture's sides from each other.
SMALL = {
  "model.variant": "Mu",
  "model.image_size": (64, 32),
  "model.patch": 8,
  "model.decoder_width": 64,
  "model.decoder_depth": 2,
  "model.decoder_heads": 4,
  "model.dtype": "float32",
}
# Compiles in half the time: random masks of one view, no alignment.
PLAIN = {"views": 1, "align_weight": 0.0, "mask.blocks": False, "mask.parts": False, "model.decoder_depth": 1}


def words(settings):
  return [f"--set={key}={value}" for key, value in settings.items()]


@pytest.fixture(scope="session")
def small_words():
  return words(SMALL)


@pytest.fixture(scope="session")
def plain_words():
  return words(SMALL | PLAIN)


@pytest.fixture(scope="session")
def small_config(small_words):
  return pretrain_step.make_config(pretrain_step.parse_args(["--batch=8", *small_words]))


@pytest.fixture(scope="session")
def plain_config(plain_words):
  return pretrain_step.make_config(pretrain_step.parse_args(["--batch=8", *plain_words]))

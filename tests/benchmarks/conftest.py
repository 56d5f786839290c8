"""Configurations of a small pre-training step, made by the command line of the benchmark."""

import pytest

from benchmarks import pretrain_step

# The encoder and the decoder have different widths and heads, and the picture is not square. So a test fails
# if the code confuses two of these sizes.
SMALL = {
  "model.variant": "Mu",
  "model.image_size": (64, 32),
  "model.patch": 8,
  "model.decoder_width": 64,
  "model.decoder_depth": 2,
  "model.decoder_heads": 4,
  "model.dtype": "float32",
}
# Random masks, one view and no alignment, because this compiles in half the time.
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

"""A step small enough for tests, made by the command line's own way."""

import argparse

import pytest

from benchmarks import workload

# Tokens, widths and heads of the encoder differ from the decoder's, and the picture's sides from each other.
SMALL = {
  "model.variant": "Mu",
  "model.image_size": (64, 32),
  "model.patch": 8,
  "model.decoder_width": 64,
  "model.decoder_depth": 2,
  "model.decoder_heads": 4,
}


@pytest.fixture(scope="session")
def small_settings():
  return dict(SMALL)


@pytest.fixture(scope="session")
def small_config(small_settings):
  parser = argparse.ArgumentParser()
  workload.add_model(parser)
  args = parser.parse_args(["--size=B", "--batch=8", "--dtype=float32"])
  return workload.changed(workload.make_config(args), small_settings)

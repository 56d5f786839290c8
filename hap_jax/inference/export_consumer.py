"""Runs the exported encoder on the stored pictures. Needs jax, flatbuffers and numpy, but not hap_jax."""

import pathlib
import sys

import jax
import jax.export
import numpy as np

folder = pathlib.Path(__file__).resolve().parent
encoder = jax.export.deserialize(bytearray((folder / "encoder.jax_export").read_bytes()))
with np.load(folder / "weights.npz") as file:
  weights = jax.device_put(dict(file))
with np.load(folder / "test_batch.npz") as file:
  images, expected = file["images"], file["tokens"]

tokens = np.asarray(jax.jit(encoder.call)(weights, images))  # [B, H, W, 3] uint8 RGB -> [B, tokens, D]
error = np.abs(tokens - expected).max() / np.abs(expected).max()
# By default, accelerators multiply float32 matrices with fewer bits, so a larger error is allowed there.
tolerance = 1e-4 if jax.default_backend() == "cpu" else 2e-2
print(f"tokens {tokens.shape} {tokens.dtype}; largest error {error:.1e} of the largest value")
sys.exit(0 if error <= tolerance else "the tokens differ from the stored tokens")

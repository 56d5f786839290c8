"""Runs the exported program on the stored pictures. Needs jax, flatbuffers and numpy, but not hap_jax."""

import pathlib
import sys

import jax
import jax.export
import numpy as np

folder = pathlib.Path(__file__).resolve().parent
program = jax.export.deserialize(bytearray((folder / "encoder.jax_export").read_bytes()))
with np.load(folder / "weights.npz") as file:
  weights = jax.device_put(dict(file))
with np.load(folder / "test_batch.npz") as file:
  images = file["images"]
  (name,) = set(file.files) - {"images"}  # "tokens", or "embedding"
  expected = file[name]

# [B, H, W, 3] uint8 RGB -> tokens [B, T, D], or embeddings [B, D]
found = np.asarray(jax.jit(program.call)(weights, images))
error = np.abs(found - expected).max() / np.abs(expected).max()
# By default, accelerators multiply float32 matrices with fewer bits, so a larger error is allowed there.
tolerance = 1e-4 if jax.default_backend() == "cpu" else 2e-2
print(f"{name} {found.shape} {found.dtype}; largest error {error:.1e} of the largest value")
sys.exit(0 if error <= tolerance else f"the {name} differ from the stored {name}")

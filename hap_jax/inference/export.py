"""Writes an encoder as a folder that runs without this project: StableHLO by `jax.export`.

The compiled program takes the weights as arguments. The weights have a separate file, for these reasons:
- The compiler would treat weights in the program as constants and hold several copies of them (344 MB for a
  ViT-B).
- The file of a program can have at most two gigabytes. The weights of a ViT-H are larger.
- The file of a program without weights has only 0.1 MB.
- Separate weights can be placed on devices, sharded, shared or replaced like any arrays.
"""

import importlib.metadata
import json
import pathlib
import shutil

import jax
import jax.export
import numpy as np

from hap_jax.convert import lineage
from hap_jax.convert.weights import flatten, unflatten
from hap_jax.inference import encoder as encoders
from hap_jax.io import unfinished
from hap_jax.pixels.normalize import normalize

PLATFORMS = ("cpu", "cuda", "tpu")
MAX_ERROR = 1e-4  # allowed error of the exported encoder's tokens, relative to the largest token

_PROGRAM, _WEIGHTS, _BATCH = "encoder.jax_export", "weights.npz", "test_batch.npz"
_CONSUMER = pathlib.Path(__file__).with_name("export_consumer.py")
_BATCH_SIZE = 2


def export(path, out, *, family="", grid=None, num_heads=None):
  """Exports the encoder of a checkpoint and checks that the exported program computes the same tokens.

  Args:
    path: see `encoder.load`.
    out: the folder to make.
    family: see `encoder.load`.
    grid: see `encoder.load`.
    num_heads: see `encoder.load`.
  Returns:
    the content of description.json, plain JSON values. "export" describes the inputs, the outputs and the
    measured error.
  Raises:
    UnsafePickleError: if the file contains code.
    ValueError: if the checkpoint cannot be loaded, `out` exists, the parent folder of `out` does not exist,
      or the exported program computes different tokens. Also if JAX is not allowed to use the CPU, because
      the check runs there.
    OSError: if the disk is full or not writable.
    After an error, no part of `out` is left.
  """
  out = pathlib.Path(out)
  if out.exists():
    raise ValueError(f"--out={out} exists; give another folder, or move it away")
  if not out.parent.is_dir():
    raise ValueError(f"--out={out}: there is no folder {out.parent}")
  # Accelerators multiply float32 matrices with fewer bits, so the comparison would fail there.
  with jax.default_device(_cpu()):
    model, variables, description = encoders.load(path, family=family, grid=grid, num_heads=num_heads)
    weights = flatten(variables["params"])
    image_size = description["model"]["image_size"]
    images = np.random.default_rng(0).integers(0, 256, (_BATCH_SIZE, *image_size, 3), np.uint8)
    tokens = np.asarray(model.apply(variables, _normalize(images, description["normalization"])))
    with unfinished.new_folder(out) as folder:
      np.savez(folder / _WEIGHTS, **weights)
      np.savez(folder / _BATCH, images=images, tokens=tokens)
      forward = _make_forward(model, description["normalization"])
      _write_program(folder / _PROGRAM, forward, weights, image_size)
      error = _compare(tokens, _run_program(folder, images))
      shutil.copy(_CONSUMER, folder / "run.py")
      facts = _facts(tokens.shape, image_size, error, class_token=description["model"]["class_token"])
      description = {**description, "export": facts}
      (folder / "description.json").write_text(json.dumps(description, indent=2) + "\n")
      (folder / "README.md").write_text(_readme(description))
  return description


def _cpu():
  try:
    return jax.local_devices(backend="cpu")[0]
  except RuntimeError as error:
    raise ValueError(
      f"an export is checked on the CPU, but JAX_PLATFORMS={jax.config.jax_platforms} excludes it: add cpu"
    ) from error


def _normalize(images, normalization):
  return normalize(images, normalization["mean"], normalization["std"])


def _make_forward(model, normalization):
  """Returns a function ({path: array}, [B, H, W, 3] uint8 pictures) -> float32 tokens, see `ImageEncoder`."""
  return lambda weights, images: model.apply(
    {"params": unflatten(weights)}, _normalize(images, normalization)
  )


def _write_program(path, forward, weights, image_size):
  # A symbolic batch size lets the exported program accept any number of pictures.
  (batch,) = jax.export.symbolic_shape("batch")
  images = jax.ShapeDtypeStruct((batch, *image_size, 3), np.uint8)
  exported = jax.export.export(jax.jit(forward), platforms=PLATFORMS)(weights, images)
  path.write_bytes(exported.serialize())


def _run_program(folder, images):
  # The comparison reads the written files, not the arrays in memory, so it also checks the files.
  exported = jax.export.deserialize(bytearray((folder / _PROGRAM).read_bytes()))
  with np.load(folder / _WEIGHTS) as file:
    return jax.jit(exported.call)(dict(file), images)


def _compare(want, got):
  """Returns the largest error divided by the largest absolute value of a token.

  Raises ValueError if it is above MAX_ERROR.
  """
  error = float(np.abs(np.asarray(got) - want).max() / np.abs(want).max())
  if not error <= MAX_ERROR:
    raise ValueError(
      f"{_PROGRAM} computes different tokens than the checkpoint: the error is {error:.3g} of the largest "
      f"token, at most {MAX_ERROR:g} is allowed; no file was kept. Please report this checkpoint"
    )
  return error


def _facts(shape, image_size, error, *, class_token):
  """Returns the facts that a user of the export needs besides the description of the checkpoint."""
  (_, T, D), (H, W) = shape, image_size
  first = "class token first, then" if class_token else "no class token,"
  return {
    "images": f"[batch, {H}, {W}, 3] uint8, RGB; the program normalises them",
    "tokens": f"[batch, {T}, {D}] float32 after the final norm, {first} patches row by row",
    "weights": f"first argument of {_PROGRAM}: the arrays of {_WEIGHTS} as a dict",
    "platforms": list(PLATFORMS),
    "relative_error": error,
    "jax": importlib.metadata.version("jax"),
  }


def _readme(description):
  model, facts = description["model"], description["export"]
  lines = [
    f"# ViT encoder, width {model['width']}, {model['depth']} blocks, patches of {model['patch']} pixels",
    "",
    f"- `{_PROGRAM}`: StableHLO by `jax.export` for {', '.join(PLATFORMS)}; any batch size.",
    f"- `{_WEIGHTS}`: its weights, the {facts['weights']}.",
    f"- `{_BATCH}`: pictures and their expected tokens.",
    "- `run.py`: loads these three files, runs the program and compares the tokens. It needs "
    "`pip install jax flatbuffers`.",
    "- `description.json`: the recorded facts about the checkpoint.",
    "",
    f"Images: {facts['images']}.",
    f"Tokens: {facts['tokens']}.",
    "",
    *lineage.markdown(description["licence"], description["made_from"], description["lineage"]),
  ]
  return "\n".join(lines) + "\n"

"""Writes a checkpoint as a folder that runs without this project: StableHLO by `jax.export`.

The program computes the embedding that the task of the checkpoint trains, or the tokens of the encoder.

The weights are arguments of the compiled program, and have a separate file, for these reasons:
- The compiler would treat weights in the program as constants, and hold several copies (344 MB for a ViT-B).
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
import jax.numpy as jnp
import numpy as np

from hap_jax import config as config_lib
from hap_jax.convert import lineage
from hap_jax.convert import read as reading
from hap_jax.convert.family import CONSTANTS
from hap_jax.convert.selection import WHOLE
from hap_jax.convert.weights import flatten, unflatten
from hap_jax.inference import calibration_file
from hap_jax.inference import encoder as encoders
from hap_jax.io import unfinished
from hap_jax.models import vit
from hap_jax.pixels.normalize import normalize

PLATFORMS = ("cpu", "cuda", "tpu")
FEATURES = ("embedding", "tokens")
MAX_ERROR = 1e-4  # allowed error of the exported program's outputs, relative to the largest output

_PROGRAM, _WEIGHTS, _BATCH = "encoder.jax_export", "weights.npz", "test_batch.npz"
_CONSUMER = pathlib.Path(__file__).with_name("export_consumer.py")
_BATCH_SIZE = 2
_CALIBRATION = (
  "the score of two pictures is the dot product of their embeddings. It passes if it is at least "
  "`threshold`. With L, the value of `curve` at the score (straight lines between its points, constant "
  "outside), the probability of one person is 1 / (1 + exp(-L) (1 - prior) / prior)"
)


def export(path, out, *, feature="", family="", grid=None, num_heads=None, calibration="", selection=WHOLE):
  """Exports a checkpoint and checks that the exported program computes the same outputs.

  Args:
    path: see `encoder.load`.
    out: the folder to make.
    feature: "embedding", or "tokens" (of the encoder). "": "embedding" if the task of the checkpoint trains
      an embedding of pictures, otherwise "tokens".
    family: see `encoder.load`.
    grid: see `encoder.load`.
    num_heads: see `encoder.load`.
    calibration: the value of --calibration, see `calibration_file.find`. The calibration of an embedding is
      copied into the folder.
    selection: a `Selection`, the part of the checkpoint to read.
  Returns:
    the content of description.json, plain JSON values. "export" describes the inputs, the outputs and the
    measured error.
  Raises:
    UnsafePickleError: if the pickle of the file is built in a way that no writer uses.
    ValueError: if the checkpoint cannot be loaded, `out` exists, the parent folder of `out` does not exist,
      or the exported program computes different outputs. Also if `feature` is "embedding" and the
      checkpoint has none, or if JAX must not use the CPU, because the check runs on the CPU.
    OSError: if the disk is full or not writable.
    After an error, no part of `out` is left.
  """
  out = pathlib.Path(out)
  if out.exists():
    raise ValueError(f"--out={out} exists; give another folder, or move it away")
  if not out.parent.is_dir():
    raise ValueError(f"--out={out}: there is no folder {out.parent}")
  # The comparison would fail on accelerators, because they multiply float32 matrices with fewer bits.
  with jax.default_device(_cpu()):
    read = reading.read(path, family=family, grid=grid, selection=selection)
    feature = _choose_feature(path, read.task, feature)
    calibrated = calibration_file.find(calibration, path, read) if feature == "embedding" else None
    forward, weights, description = _MAKERS[feature](path, read, num_heads)
    image_size = description["model"]["image_size"]
    images = np.random.default_rng(0).integers(0, 256, (_BATCH_SIZE, *image_size, 3), np.uint8)
    outputs = np.asarray(jax.jit(forward)(weights, images))
    with unfinished.new_folder(out) as folder:
      np.savez(folder / _WEIGHTS, **weights)
      np.savez(folder / _BATCH, images=images, **{feature: outputs})
      _write_program(folder / _PROGRAM, forward, weights, image_size)
      error = _compare(feature, outputs, _run_program(folder, images))
      shutil.copy(_CONSUMER, folder / "run.py")
      facts = _facts(feature, outputs.shape, image_size, error, description["model"]["class_token"])
      if calibrated is not None and calibrated[1].feature == feature:
        calibration_file.write(folder / calibration_file.FILE, calibrated[1])
        facts["calibration"] = f"{calibration_file.FILE}: {_CALIBRATION}"
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


def _choose_feature(path, task, feature):
  """Returns the feature to export, after a check that the checkpoint has it."""
  has_embedding = hasattr(config_lib.load("tasks", task), "make_embed")
  if feature == "embedding" and not has_embedding:
    raise ValueError(f"{path} is a checkpoint for {task} and has no embedding; pass --feature=tokens")
  return feature or ("embedding" if has_embedding else "tokens")


# Arguments of the next two functions: path of the checkpoint, its Weights, number of heads from the caller.
# They return (forward, arrays, description). `forward` is a function ({path: array}, [B, H, W, 3] uint8
# pictures) -> float32 outputs. `arrays` is {path: array}.


def _make_tokens(path, weights, num_heads):
  """Makes the function for the tokens of the encoder, see `ImageEncoder`."""
  model, variables, description = encoders.build(path, weights, num_heads)
  mean, std = (description["normalization"][key] for key in ("mean", "std"))

  def forward(weights, images):
    return model.apply({"params": unflatten(weights)}, normalize(images, mean, std))

  return forward, flatten(variables["params"]), description


def _make_embedding(path, weights, num_heads):
  """Makes the function for the embedding that the task of the checkpoint trains."""
  _, _, description = encoders.build(path, weights, num_heads)
  weights = weights.with_encoder(num_heads=description["model"]["num_heads"])
  embed = config_lib.load("tasks", weights.task).make_embed(weights.description, vit.Compute(scan=False))
  flat = flatten({name: tree for name, tree in weights.variables.items() if name != CONSTANTS})

  def forward(flat, images):
    return embed(unflatten(flat), images)

  # The embedding needs no classifier and no text branch. These arrays are replaced by zeros, so the program
  # does not contain them.
  used = _used(forward, flat, description["model"]["image_size"])
  shapes = {path: leaf.shape for path, leaf in flat.items() if path not in used}

  def forward_of_used(flat, images):
    return forward({**flat, **{path: jnp.zeros(shape) for path, shape in shapes.items()}}, images)

  return forward_of_used, {path: flat[path] for path in flat if path in used}, description


_MAKERS = {"embedding": _make_embedding, "tokens": _make_tokens}


def _used(forward, flat, image_size):
  """Returns the set of paths of the arrays that a function needs for its outputs."""
  images = jax.ShapeDtypeStruct((1, *image_size, 3), np.uint8)
  exported = jax.export.export(jax.jit(forward), platforms=("cpu",))(flat, images)
  paths = sorted(flat)  # jax sorts the entries of a dict by name
  return {paths[k] for k in exported.module_kept_var_idx if k < len(paths)}


def _write_program(path, forward, weights, image_size):
  # A symbolic batch size lets the exported program accept any number of pictures.
  (batch,) = jax.export.symbolic_shape("batch")
  images = jax.ShapeDtypeStruct((batch, *image_size, 3), np.uint8)
  exported = jax.export.export(jax.jit(forward), platforms=PLATFORMS)(weights, images)
  path.write_bytes(exported.serialize())


def _run_program(folder, images):
  # The written files are compared, not the arrays in memory, so that the files are checked, too.
  exported = jax.export.deserialize(bytearray((folder / _PROGRAM).read_bytes()))
  with np.load(folder / _WEIGHTS) as file:
    return jax.jit(exported.call)(dict(file), images)


def _compare(feature, want, got):
  """Returns the largest error, divided by the largest absolute value of the outputs.

  Raises ValueError if the result is above MAX_ERROR.
  """
  error = float(np.abs(np.asarray(got) - want).max() / np.abs(want).max())
  if not error <= MAX_ERROR:
    raise ValueError(
      f"{_PROGRAM} computes different {feature} than the checkpoint: the error is {error:.3g} of the largest "
      f"value, at most {MAX_ERROR:g} is allowed; no file was kept. Please report this checkpoint"
    )
  return error


def _facts(feature, shape, image_size, error, class_token):
  """Returns the description of inputs, outputs and weights of the program, for users of the export."""
  (H, W), D = image_size, shape[-1]
  if feature == "tokens":
    first = "class token first, then" if class_token else "no class token,"
    text = f"[batch, {shape[1]}, {D}] float32 after the final norm, {first} patches row by row"
  else:
    text = f"[batch, {D}] float32 with unit norm"
  return {
    "images": f"[batch, {H}, {W}, 3] uint8, RGB; the program normalises them",
    feature: text,
    "weights": f"first argument of {_PROGRAM}: the arrays of {_WEIGHTS} as a dict",
    "platforms": list(PLATFORMS),
    "relative_error": error,
    "jax": importlib.metadata.version("jax"),
  }


def _readme(description):
  model, facts = description["model"], description["export"]
  (feature,) = (name for name in FEATURES if name in facts)
  sizes = f"width {model['width']}, {model['depth']} blocks, patches of {model['patch']} pixels"
  lines = [
    f"# {feature.capitalize()} of a ViT, {sizes}",
    "",
    f"- `{_PROGRAM}`: StableHLO by `jax.export` for {', '.join(PLATFORMS)}; any batch size.",
    f"- `{_WEIGHTS}`: its weights, the {facts['weights']}.",
    f"- `{_BATCH}`: pictures and their expected {feature}.",
    "- `run.py`: loads these three files, runs the program and compares its outputs. It needs "
    "`pip install jax flatbuffers`.",
    "- `description.json`: the recorded facts about the checkpoint.",
    *([f"- `{calibration_file.FILE}`: {_CALIBRATION}."] if "calibration" in facts else []),
    "",
    f"Images: {facts['images']}.",
    f"{feature.capitalize()}: {facts[feature]}.",
    "",
    *lineage.markdown(description["licence"], description["made_from"], description["lineage"]),
  ]
  return "\n".join(lines) + "\n"

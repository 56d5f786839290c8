"""The proof of a conversion: what source and result make of the same pictures, by two forward passes."""

import dataclasses
import functools

import jax
import numpy as np

from hap_jax.convert import numpy_heads, numpy_vit
from hap_jax.convert.source import open_source
from hap_jax.convert.weights import count_blocks
from hap_jax.io import checkpoint_file
from hap_jax.models import attribute_classifier, embedder, layers, vit
from hap_jax.models import decoder as decoders

MAX_ERROR = 1e-4  # of float32 outputs, absolute, or relative to the largest output where that is above 1
_SEED = 2310_20695
# What is compared, and the subtree of this project's parameters that it needs.
_OUTPUTS = {"tokens": "encoder", "pred": "decoder"}
_HEAD_OUTPUTS = {  # of the heads for a task
  "reid": {"logits": "head", "feature_conv": "conv_fc_norm", "logits_conv": "conv_fc"},
  "attributes": {"logits": "classifier"},
}
_CLASSIFIERS = {"reid": "head", "attributes": "classifier.logits.0"}  # official names of the modules


@dataclasses.dataclass(frozen=True)
class Setting:
  """What a forward pass needs beside weights.

  Attributes:
    grid: (Gh, Gw) of the pictures. source_grid: of the source's position tables. patch: side in pixels.
    width, depth, num_heads, mlp_ratio: of the encoder. decoder_heads: None without a decoder.
    heads: the task, "reid" or "attributes", that there are heads for; "": there are none.
  """

  grid: tuple[int, int]
  source_grid: tuple[int, int]
  patch: int
  width: int
  depth: int
  num_heads: int
  mlp_ratio: float
  decoder_heads: int | None
  heads: str

  @classmethod
  def of(cls, weights, source_grid):
    """Returns the Setting of Weights that were read with tables of `source_grid`."""
    return cls(
      grid=weights.grid,
      source_grid=source_grid,
      patch=weights.patch,
      width=weights.width,
      depth=weights.depth,
      num_heads=weights.num_heads,
      mlp_ratio=_mlp_ratio(weights.params["encoder"]),
      decoder_heads=weights.decoder and weights.decoder["num_heads"],
      heads=weights.task if _HEAD_OUTPUTS.get(weights.task, {}).get("logits") in weights.params else "",
    )


@dataclasses.dataclass(frozen=True)
class Batch:
  """Two fixed random pictures with half of their patches hidden.

  Attributes:
    image: [2, H, W, 3] float32, as normalised pixels. ids_keep: [2, V] int32. ids_restore: [2, L] int32.
  """

  image: np.ndarray
  ids_keep: np.ndarray
  ids_restore: np.ndarray


def outputs_of(weights, stacks):
  """Returns the names of the outputs that Weights give and a target with these subtrees (None: all), too."""
  kept = weights.params.keys() if stacks is None else weights.params.keys() & stacks
  outputs = _OUTPUTS | _HEAD_OUTPUTS.get(weights.task, {})
  return tuple(name for name, stack in outputs.items() if stack in kept)


def make_batch(setting):
  """Makes the Batch of a Setting, always the same."""
  rng = np.random.default_rng(_SEED)
  Gh, Gw = setting.grid
  image = rng.standard_normal((2, Gh * setting.patch, Gw * setting.patch, 3), dtype=np.float32)
  order = np.argsort(rng.random((2, Gh * Gw)), axis=1).astype(np.int32)
  return Batch(
    image=image,
    ids_keep=order[:, : max(1, Gh * Gw // 2)],
    ids_restore=np.argsort(order, axis=1).astype(np.int32),
  )


def run_foreign(path, setting, *, grid=None):
  """Runs a foreign file in NumPy by its own names.

  Args:
    path: file or folder. setting: a Setting. grid: of the file's position tables; None: the source's.
  Returns:
    {name: array}: "tokens" [2, 1 + L, D] after the final norm, "pred" [2, L, P*P*3] if there is a decoder,
    and what the heads give.
  """
  source = open_source(path)
  state = source.state
  is_hf = any("patch_embeddings.projection" in name for name in state)
  stacks = numpy_vit.hugging_face(state) if is_hf else numpy_vit.official(state)
  has_heads = bool(setting.heads) and f"{_CLASSIFIERS[setting.heads]}.weight" in state
  module = functools.partial(numpy_heads.official_module, state) if has_heads else None
  epsilon = source.config.get("layer_norm_eps", layers.LAYER_NORM_EPSILON)
  return _run_numpy(stacks, module, setting, grid or setting.source_grid, epsilon)


def run_own(path, setting):
  """Runs a checkpoint of this project in NumPy, by this project's names; returns as `run_foreign`."""
  variables, _ = checkpoint_file.read(path)
  stacks = numpy_vit.own(variables["params"])
  module = functools.partial(numpy_heads.own_module, variables) if setting.heads else None
  return _run_numpy(stacks, module, setting, setting.source_grid, layers.LAYER_NORM_EPSILON)


def run_written(path, setting, *, is_own):
  """Runs what was written; returns as `run_foreign`."""
  return run_jax(path, setting) if is_own else run_foreign(path, setting, grid=setting.grid)


def _run_numpy(stacks, module, setting, grid, epsilon):
  batch = make_batch(setting)
  kwargs = {"grids": (grid, setting.grid), "epsilon": epsilon}
  encoder = stacks["encoder"]
  raw = numpy_vit.encode(encoder, batch.image, num_heads=setting.num_heads, **kwargs)
  outputs = {"tokens": numpy_vit.layer_norm(raw, encoder.norm, epsilon)}
  if "decoder" in stacks:
    ids_keep, heads = batch.ids_keep, setting.num_heads
    latent = numpy_vit.encode(encoder, batch.image, num_heads=heads, ids_keep=ids_keep, **kwargs)
    latent = numpy_vit.layer_norm(latent, encoder.norm, epsilon)
    outputs["pred"] = numpy_vit.decode(
      stacks["decoder"], latent, batch.ids_restore, num_heads=setting.decoder_heads, **kwargs
    )
  if module and setting.heads == "attributes":
    outputs |= numpy_heads.attributes(module, outputs["tokens"])
  elif module:
    outputs |= numpy_heads.reid(module, raw, outputs["tokens"][:, 0], setting.grid, epsilon)
  return outputs


# What is compared at MAX_ERROR has to be multiplied in whole float32, which accelerators do only on request.
@jax.default_matmul_precision("highest")
def run_jax(path, setting):
  """Runs a checkpoint of this project through this project's models; returns as `run_foreign`."""
  variables, _ = checkpoint_file.read(path)
  params, batch = variables["params"], make_batch(setting)
  encoder = vit.ViT(
    width=setting.width,
    depth=setting.depth,
    num_heads=setting.num_heads,
    grid=setting.grid,
    patch=setting.patch,
    mlp_ratio=setting.mlp_ratio,
  )
  patches = layers.patchify(batch.image, setting.patch)
  outputs = {"tokens": encoder.apply({"params": params["encoder"]}, patches).normed}
  if "decoder" in params:
    stack = params["decoder"]
    decoder = decoders.Decoder(
      width=stack["norm"]["bias"].shape[0],
      depth=count_blocks(stack),
      num_heads=setting.decoder_heads,
      grid=setting.grid,
      num_outputs=3 * setting.patch**2,
      mlp_ratio=_mlp_ratio(stack),
    )
    latent = encoder.apply({"params": params["encoder"]}, patches, batch.ids_keep[:, None]).normed
    outputs["pred"] = decoder.apply({"params": stack}, latent, batch.ids_restore)
  if setting.heads == "attributes":
    num_attributes = params["classifier"]["bias"].shape[0]
    model = attribute_classifier.AttributeClassifier(encoder, num_attributes)
    outputs["logits"] = model.apply(variables, batch.image)
  elif setting.heads:
    has_locality = "conv_fc" in params
    num_classes = params["head"]["bias"].shape[0]
    model = (embedder.LocalityEmbedder if has_locality else embedder.Embedder)(encoder, num_classes)
    found = model.apply(variables, batch.image, train=False)
    outputs |= zip(("logits", "logits_conv"), found.logits, strict=False)
    outputs |= {"feature_conv": found.features[1]} if has_locality else {}
  return {name: np.asarray(value) for name, value in outputs.items()}


def _mlp_ratio(stack):
  width, hidden = stack["blocks"]["mlp"]["fc1"]["kernel"].shape[1:]
  return hidden / width


def compare(want, got, outputs):
  """Returns {output: {"max_abs_error", "max_abs_value"}} of the named outputs.

  Raises:
    ValueError: if an output is off by more than `MAX_ERROR`, not finite, or not there.
  """
  errors = {}
  for name in outputs:
    if name not in want or name not in got:
      side = "source" if name not in want else "result"
      raise ValueError(f"the conversion is wrong: the {side} gives no {name}; nothing was kept")
    error, size = float(np.abs(got[name] - want[name]).max()), float(np.abs(want[name]).max())
    errors[name] = {"max_abs_error": error, "max_abs_value": size}
    if not error <= MAX_ERROR * max(1.0, size):
      raise ValueError(
        f"the conversion is wrong: {name} differs by {error:.3g} from the source's, whose largest value is "
        f"{size:.3g}; at most {MAX_ERROR:g} is allowed; nothing was kept. Please report this file"
      )
  return errors

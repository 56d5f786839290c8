"""The proof's third leg where PyTorch is installed: the class of the other project that a conversion is for.

PyTorch is never required, and is imported nowhere else in this project.
"""

import functools
import importlib
import importlib.util
import json

from hap_jax.models import layers

_PACKAGES = {"hf-vit": "transformers", "hf-vitmae": "transformers", "timm": "timm"}


def outputs(path, to, setting, batch):
  """Loads what was written with the class it is for, and runs it.

  Args:
    path: file or folder. to: the family. setting: a `verify.Setting`. batch: a `verify.Batch`.
  Returns:
    ({name: array} as `verify.run_foreign`, None if it did not run; name of the class, or why it did not run).
  Raises:
    ValueError: if the class does not take the file as it is.
  """
  if to not in _PACKAGES:
    return None, "no class of this target is installable"
  package = _PACKAGES[to]
  lacking = [name for name in ("torch", package) if importlib.util.find_spec(name) is None]
  if lacking:
    return None, f"{' and '.join(lacking)} not installed"
  try:
    importlib.import_module(package)
  except (ImportError, RuntimeError) as error:  # timm needs a torchvision of the same build as torch
    return None, _reason(package, error)
  try:
    return _timm(path, setting, batch) if to == "timm" else _transformers(path, to, batch)
  except ImportError as error:  # transformers imports a class only when it is asked for
    return None, _reason(package, error)
  except RuntimeError as error:  # so PyTorch says that names or shapes are others
    raise ValueError(f"{package} does not take what was written: {' '.join(str(error).split())}") from error


def _reason(package, error):
  return f"{package} does not import: {' '.join(str(error).split())[:200]}"


def _transformers(path, to, batch):
  import torch
  import transformers

  transformers.utils.logging.set_verbosity_error()
  transformers.utils.logging.disable_progress_bar()
  pixels = torch.from_numpy(batch.image.transpose(0, 3, 1, 2).copy())
  name = json.loads((path / "config.json").read_text())["architectures"][0]
  options = {"add_pooling_layer": False} if to == "hf-vit" else {}
  model, loading = getattr(transformers, name).from_pretrained(path, output_loading_info=True, **options)
  wrong = [key for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if loading[key]]
  if wrong:
    raise ValueError(f"transformers.{name} does not load it whole: {', '.join(wrong)} {loading[wrong[0]]}")
  with torch.no_grad():
    if to == "hf-vit":
      return {"tokens": model.eval()(pixels).last_hidden_state.numpy()}, f"transformers.{name}"
    # The patches with the least noise stay: those of the batch, and as many, whatever way this is rounded.
    model.config.mask_ratio = 1 - (batch.ids_keep.shape[1] + 0.5) / batch.ids_restore.shape[1]
    found = model.eval()(pixels, noise=torch.from_numpy(batch.ids_restore.astype("float32")))
    return {"pred": found.logits.numpy()}, f"transformers.{name}"


def _timm(path, setting, batch):
  import timm
  import torch

  model = timm.models.vision_transformer.VisionTransformer(
    img_size=batch.image.shape[1:3],
    patch_size=setting.patch,
    embed_dim=setting.width,
    depth=setting.depth,
    num_heads=setting.num_heads,
    mlp_ratio=setting.mlp_ratio,
    norm_layer=functools.partial(torch.nn.LayerNorm, eps=layers.LAYER_NORM_EPSILON),
    num_classes=0,
  )
  timm.models.load_checkpoint(model, str(path), strict=True)
  pixels = torch.from_numpy(batch.image.transpose(0, 3, 1, 2).copy())
  with torch.no_grad():
    return {"tokens": model.eval().forward_features(pixels).numpy()}, "timm.VisionTransformer"

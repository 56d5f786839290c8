"""The heads of fine-tuned models in NumPy, by a file's own names, for the purpose of `numpy_vit.py`."""

import numpy as np

from hap_jax.convert.numpy_vit import layer_norm, linear

_BATCH_NORM_EPSILON = 1e-5  # of PyTorch and of the ReID reference


def official_module(state, name):
  """Returns {"weight", "bias", "mean", "var"}, as far as there are any, of an official module."""
  fields = {"weight": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
  return {key: state[f"{name}.{field}"] for key, field in fields.items() if f"{name}.{field}" in state}


def own_module(variables, name):
  """As `official_module`, of this project's variables; name: an official one."""
  unit, _, rest = name.removeprefix("conv_head.").partition(".")
  path = [f"conv_head_{unit}", rest.replace(".", "_")] if name.startswith("conv_head.") else [name]
  path = ["classifier"] if name == "classifier.logits.0" else path
  found = {}
  for collection in variables.values():
    node = collection
    for part in path:
      node = node.get(part, {})
    found |= node
  if "kernel" in found:
    kernel = found.pop("kernel")
    found["weight"] = kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1)
  if "scale" in found:
    found["weight"] = found.pop("scale")
  return found


def reid(module, raw, cls, grid, epsilon):
  """Runs the heads of re-identification.

  Args:
    module: name -> as `official_module` returns. raw: [B, 1 + L, D] tokens before the final norm. cls: [B, D]
      normed class token. grid: (Gh, Gw). epsilon: of layer norms.
  Returns:
    {name: array} of features and logits.
  """
  if not module("conv_fc"):
    return {"logits": linear(cls, _pair(module("head")))}
  x = raw[:, 1:].reshape(len(raw), *grid, -1)
  for unit in range(3):
    name = f"conv_head.{unit}"
    stride = 2 if unit == 0 else 1
    y = np.maximum(_batch_norm(_conv(x, module(f"{name}.conv1")), module(f"{name}.bn1")), 0)
    y = np.maximum(_batch_norm(_conv(y, module(f"{name}.conv2"), stride), module(f"{name}.bn2")), 0)
    y = _batch_norm(_conv(y, module(f"{name}.conv3")), module(f"{name}.bn3"))
    if unit == 0:
      x = _batch_norm(_conv(x, module(f"{name}.downsample.0"), stride), module(f"{name}.downsample.1"))
    x = np.maximum(x + y, 0)
  pooled = layer_norm(x.mean(axis=(1, 2)), _pair(module("conv_fc_norm")), epsilon)
  return {
    "feature_conv": pooled,
    "logits": linear(_batch_norm(cls, module("bn")), _pair(module("head"))),
    "logits_conv": linear(_batch_norm(pooled, module("conv_bn")), _pair(module("conv_fc"))),
  }


def attributes(module, tokens):
  """Runs the classifier of attributes.

  Args:
    module: official name -> {"weight", ...}. tokens: [B, 1 + L, D] after the final norm.
  Returns:
    {"logits": [B, A]}.
  """
  return {"logits": linear(tokens[:, 1:].mean(axis=1), _pair(module("classifier.logits.0")))}


def _pair(module):
  return module["weight"], module["bias"]


def _conv(x, module, stride=1):
  """Convolves [B, H, W, in] with a weight [out, in, k, k], padded to keep the size before the stride."""
  weight = np.asarray(module["weight"], np.float32)
  k = weight.shape[-1]
  H, W = x.shape[1:3]
  x = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
  total = 0
  for i in range(k):
    for j in range(k):
      window = x[:, i : i + H : stride, j : j + W : stride]
      total = total + (window.reshape(-1, window.shape[-1]) @ weight[:, :, i, j].T).reshape(
        *window.shape[:-1], -1
      )
  return total


def _batch_norm(x, module):
  mean, var, weight, bias = (np.asarray(module[key], np.float32) for key in ("mean", "var", "weight", "bias"))
  return (x - mean) / np.sqrt(var + np.float32(_BATCH_NORM_EPSILON)) * weight + bias

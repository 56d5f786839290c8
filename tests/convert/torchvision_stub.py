"""Imports timm where torchvision is not installed.

timm imports torchvision, which CPU builds of torch do not have. It needs the names of a few parts only, so
`install` provides the names. Programs that tests start use it, because it changes the modules of a process.
"""

import enum
import importlib.machinery
import sys
import types


def install():
  """Adds modules with the names of torchvision to this process."""
  import torch

  modes = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
  modes = enum.Enum("InterpolationMode", {name.upper(): name for name in modes})
  _add("torchvision", __version__="0.0.0")
  _add("torchvision.ops")
  _add("torchvision.ops.misc", FrozenBatchNorm2d=type("FrozenBatchNorm2d", (torch.nn.Module,), {}))
  _add("torchvision.transforms", InterpolationMode=modes)
  _add("torchvision.transforms.functional", InterpolationMode=modes)
  for name in ("datasets", "models", "models.feature_extraction", "utils"):
    _add(f"torchvision.{name}")
  for name in (
    "transforms",
    "transforms.functional",
    "datasets",
    "models.feature_extraction",
    "utils",
    "ops",
  ):
    sys.modules[f"torchvision.{name}"].__getattr__ = _any_class


def _add(name, **parts):
  module = types.ModuleType(name)
  module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
  module.__path__ = []
  module.__dict__.update(parts)
  sys.modules[name] = module
  if "." in name:
    parent, leaf = name.rsplit(".", 1)
    setattr(sys.modules[parent], leaf, module)


def _any_class(name):
  if name.startswith("__"):
    raise AttributeError(name)
  return type(name, (), {})

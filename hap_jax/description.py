"""The recorded facts about the weights of a checkpoint: network, pixels, classes, data and origin.

A run writes a Description next to every checkpoint. A conversion writes one into every file. Later commands
read these facts, so the user does not need to give them again. A Description in JSON has the form
  {"task", "config", "model": {"variant", "width", ..., and the other sizes of the task's network},
   "normalization", "classes", "data", "lineage", and further facts such as "step" and "scores"}
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from hap_jax.models import layers, vit

_ENCODER_KEYS = (
  "variant",
  "width",
  "depth",
  "num_heads",
  "image_size",
  "patch",
  "patch_padding",
  "class_token",
  "norm_eps",
  "grid",
  "mlp_ratio",
  "num_experts",
  "part_features",
)
MAX_PIXEL = 1e6  # largest mean or standard deviation that is accepted; pixels are at most 255
_KEYS = ("task", "config", "model", "normalization", "classes", "data", "lineage")
# Older versions had no group "classes" and wrote these keys at the top level.
_FORMER_CLASSES = ("attribute_names",)


@dataclasses.dataclass(frozen=True)
class Encoder:
  """Sizes of a ViT encoder.

  Attributes:
    width: width of the tokens.
    depth: number of blocks.
    num_heads: attention heads of each block. None: not known.
    grid: (Gh, Gw) of the position table in patches. None: not known.
    patch: side of a patch in pixels.
    mlp_ratio: hidden width of each MLP divided by the token width.
    patch_padding: padding of the patches in pixels, see `layers.patchify`.
    class_token: False: the encoder has no class token, see `vit.ViT`.
    num_experts: number of experts in each MLP, see `vit.ViT`. 1: there are no experts.
    part_features: number of outputs of an expert. 0: there are no experts.
    norm_eps: epsilon of the layer norms.
  """

  width: int
  depth: int
  num_heads: int | None
  grid: tuple[int, int] | None
  patch: int
  mlp_ratio: float = 4.0
  patch_padding: int = 0
  class_token: bool = True
  num_experts: int = 1
  part_features: int = 0
  norm_eps: float = layers.LAYER_NORM_EPSILON

  @classmethod
  def of_variant(cls, name, *, image_size, patch, **others):
    """Returns the sizes of a variant of `vit.VARIANTS` for images of (H, W) pixels.

    `others` are further fields.

    Raises:
      ValueError: if the variant does not exist, the image is not a multiple of the patch, or the padding does
        not fit the patch.
    """
    size, grid = vit.variant(name), layers.grid_of(image_size, patch)
    encoder = cls(size.width, size.depth, size.num_heads, grid, patch, **others)
    layers.check_padding(encoder.patch_padding, patch)
    return encoder

  @property
  def image_size(self):
    """Image size (H, W) in pixels, or None if the grid is not known."""
    return self.grid and tuple(side * self.patch for side in self.grid)

  @property
  def variant(self):
    """Name of the variant in `vit.VARIANTS` with this width, depth and number of heads, or None."""
    return self.num_heads and vit.variant_of(self.width, self.depth, self.num_heads)

  def build(self, compute=vit.FLOAT32, *, drop_path=0.0):
    """Builds the `vit.ViT` of these sizes. All sizes must be known.

    Args:
      compute: a `vit.Compute`.
      drop_path: rate of stochastic depth, see `vit.ViT`.
    """
    sizes = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    return vit.ViT(**sizes, **compute.options(), drop_path=drop_path)


@dataclasses.dataclass(frozen=True)
class Description:
  """The recorded facts about weights. The values of all Mappings are plain JSON values.

  Attributes:
    task: the task of the weights, a file of `hap_jax/tasks`.
    encoder: the sizes of the encoder.
    network: the sizes that the `network` function of the task needs besides the sizes of the encoder, such as
      {"num_classes": 751}.
    normalization: how pixels are normalised: "mean", "std" and "range". In converted files, "from" says where
      these numbers come from.
    classes: the meaning of each output of the head. {}: not recorded. A head can be loaded into another
      network if the classes of both are equal and not {}.
    data: facts about the training data: "name", "licence", "notes" and "exif" (see `SourceSpec`), and
      "records", the number of records. {}: not recorded.
    lineage: the checkpoints that the weights come from, newest first, see `convert/lineage.py`.
    config: the configuration of the run. None: not recorded.
    more: further facts, such as "step" and "scores" of a checkpoint, or "skeleton" of the joints.
    place: the path of the checkpoint that this Description was read from. The function `store` of a Task may
      have written files there, or in one of the two folders above. None: the weights are new. The path is not
      recorded.
  """

  task: str
  encoder: Encoder
  network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  normalization: Mapping[str, Any] = dataclasses.field(
    default_factory=lambda: {"mean": [0.0] * 3, "std": [1.0] * 3, "range": [0, 1]}
  )
  classes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  lineage: tuple[Mapping[str, Any], ...] = ()
  config: Mapping[str, Any] | None = None
  more: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  place: Any = dataclasses.field(default=None, compare=False)

  def to_json(self):
    """Returns plain JSON values that `from_json` can read."""
    encoder = self.encoder
    model = {
      "variant": encoder.variant,
      "width": encoder.width,
      "depth": encoder.depth,
      "num_heads": encoder.num_heads,
      "image_size": encoder.image_size and list(encoder.image_size),
      "patch": encoder.patch,
      "patch_padding": encoder.patch_padding,
      "class_token": encoder.class_token,
      "norm_eps": encoder.norm_eps,
      "grid": encoder.grid and list(encoder.grid),
      "mlp_ratio": encoder.mlp_ratio,
      **_experts_of(encoder),
      **self.network,
    }
    return {
      **self.more,
      "task": self.task,
      **({} if self.config is None else {"config": dict(self.config)}),
      "model": model,
      "normalization": dict(self.normalization),
      **({"classes": dict(self.classes)} if self.classes else {}),
      **({"data": dict(self.data)} if self.data else {}),
      "lineage": [dict(origin) for origin in self.lineage],
    }

  @classmethod
  def from_json(cls, values, place=None):
    """Returns the Description from plain JSON values that this version or an older version wrote.

    Args:
      values: plain JSON values.
      place: the path of the checkpoint.
    Raises:
      ValueError: if a key is missing, or if its value has an unexpected form. The message names the key.
    """
    try:
      _check_forms(values)
      model = values["model"]
      # Older versions wrote the class names at the top level, see _FORMER_CLASSES.
      classes = values.get("classes") or {key: values[key] for key in _FORMER_CLASSES if key in values}
      return cls(
        task=values["task"],
        encoder=Encoder(
          width=model["width"],
          depth=model["depth"],
          num_heads=model["num_heads"],
          grid=model["grid"] and tuple(model["grid"]),
          patch=model["patch"],
          mlp_ratio=model.get("mlp_ratio", 4.0),
          patch_padding=model.get("patch_padding") or 0,
          class_token=model.get("class_token") is not False,  # older versions did not record it
          num_experts=model.get("num_experts") or 1,
          part_features=model.get("part_features") or 0,
          norm_eps=model.get("norm_eps") or layers.LAYER_NORM_EPSILON,
        ),
        network={key: value for key, value in model.items() if key not in _ENCODER_KEYS},
        normalization=dict(values["normalization"]),
        classes=dict(classes),
        data=dict(values.get("data") or {}),
        lineage=tuple(dict(origin) for origin in values.get("lineage", ())),
        config=values.get("config"),
        more={k: v for k, v in values.items() if k not in (*_KEYS, *_FORMER_CLASSES)},
        place=place,
      )
    except KeyError as error:
      raise ValueError(f"the description of the checkpoint has no key {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
      raise ValueError(f"the description of the checkpoint has an unexpected form: {error}") from error


def _experts_of(encoder):
  """Returns the recorded sizes of the experts of an encoder, {} without experts, as in older versions."""
  if encoder.num_experts == 1:
    return {}
  return {"num_experts": encoder.num_experts, "part_features": encoder.part_features}


def _is_whole(value):
  return type(value) is int and value > 0


def _is_number(value):
  return type(value) in (int, float) and value > 0


def _is_grid(value):
  return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_whole, value))


def _is_pixels(value):
  is_dict = isinstance(value, dict) and {"mean", "std"} <= value.keys()
  has_numbers = is_dict and all(
    isinstance(value[key], list)
    and len(value[key]) == 3
    and all(type(x) in (int, float) and abs(x) <= MAX_PIXEL for x in value[key])  # also False for NaN
    for key in ("mean", "std")
  )
  return has_numbers and min(value["std"]) > 0


def _is_decoder(value):
  if not isinstance(value, dict) or not {"width", "depth", "num_heads"} <= value.keys():
    return False
  return all(map(_is_whole, (value["width"], value["depth"], value["num_heads"] or 1)))


def _are_texts(value):
  return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _are_classes(value):
  """Returns True for a dict whose values are texts, or lists of only texts or only whole numbers."""
  return isinstance(value, dict) and all(
    isinstance(item, str) or (isinstance(item, list) and {type(x) for x in item} in ({str}, {int}, set()))
    for item in value.values()
  )


# {key: (test, expected form)}. These values are checked because later commands compute with them, and because
# a checkpoint may come from an unknown author.
_WHOLE = (_is_whole, "a whole number from 1")
_FORMS = {
  "task": (lambda value: isinstance(value, str), "a text"),
  "model": (lambda value: isinstance(value, dict), "an object"),
  "model.width": _WHOLE,
  "model.depth": _WHOLE,
  "model.patch": _WHOLE,
  "model.num_heads": (lambda value: value is None or _is_whole(value), "a whole number from 1, or null"),
  "model.grid": (lambda value: value is None or _is_grid(value), "two whole numbers from 1, or null"),
  "normalization": (_is_pixels, 'an object with three numbers in "mean" and three numbers above 0 in "std"'),
}
_OPTIONAL_FORMS = {
  "model.mlp_ratio": (_is_number, "a number above 0"),
  "model.patch_padding": (lambda value: type(value) is int and value >= 0, "a whole number from 0"),
  "model.norm_eps": (lambda value: _is_number(value) and value < 1, "a number between 0 and 1"),
  "model.class_token": (lambda value: type(value) is bool, "true or false"),
  "model.num_experts": _WHOLE,
  "model.part_features": _WHOLE,
  "model.decoder": (_is_decoder, "an object with whole numbers from 1 for width, depth and num_heads"),
  "classes": (_are_classes, "an object of texts and lists"),
  "data": (lambda value: isinstance(value, dict), "an object"),
  "body": (_are_texts, "an object of texts"),
  "config": (lambda value: isinstance(value, dict), "an object"),
  "lineage": (
    lambda value: isinstance(value, list | tuple) and all(isinstance(x, dict) for x in value),
    "a list of objects",
  ),
}


def _check_forms(values):
  """Raises KeyError if a key is missing, and ValueError if a value does not have the expected form."""
  for forms in (_FORMS, _OPTIONAL_FORMS):
    for key, (holds, words) in forms.items():
      *group, leaf = key.split(".")
      place = values[group[0]] if group else values
      if forms is _OPTIONAL_FORMS and place.get(leaf) is None:
        continue
      if not holds(place[leaf]):
        raise ValueError(f"{key} is {place[leaf]!r:.60}, expected {words}")
  width, num_heads = (values["model"][key] for key in ("width", "num_heads"))
  if num_heads is not None and width % num_heads:
    raise ValueError(f"model.num_heads is {num_heads}, expected a divisor of model.width ({width})")
  patch, padding = (values["model"].get(key) for key in ("patch", "patch_padding"))
  if padding and 2 * padding >= patch:
    raise ValueError(f"model.patch_padding is {padding}, expected less than half of model.patch ({patch})")
  num_experts, features = (values["model"].get(key) for key in ("num_experts", "part_features"))
  if (num_experts or 1) > 1 and not 0 < (features or 0) < width:
    raise ValueError(
      f"model.part_features is {features}, expected 1 to {width - 1} for {num_experts} experts"
    )

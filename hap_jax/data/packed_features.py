"""Reads the file features.json of a packed data set without TFDS.

TFDS imports every class whose name is in features.json. So a data set could run code. This module imports
none of these classes: it compares each class name with a fixed list. TFDS writes a feature in one of two
forms:

  {"pythonClassName": "<module>.Tensor", "tensor": {"dtype": "int32", "shape": {"dimensions": ["4"]}}}
  {"type": "<module>.Tensor", "content": {...}, "proto_cls": "tensorflow_datasets.TensorFeature"}

The second form is older. In this form, `proto_cls` may be missing. The content is then plain JSON, and a
shape is a list such as [null, null, 3].
"""

import json
import reprlib
from typing import NamedTuple

import numpy as np

_MODULES = "tensorflow_datasets.core.features."
# {class name: (kind, key of the content, name of the protocol buffer of the content)}
_CLASSES = {
  f"{_MODULES}features_dict.FeaturesDict": ("FeaturesDict", "featuresDict", "FeaturesDict"),
  f"{_MODULES}image_feature.Image": ("Image", "image", "ImageFeature"),
  f"{_MODULES}text_feature.Text": ("Text", "text", "TextFeature"),
  f"{_MODULES}tensor_feature.Tensor": ("Tensor", "tensor", "TensorFeature"),
  f"{_MODULES}feature.Tensor": ("Tensor", "tensor", "TensorFeature"),  # the name in older versions of TFDS
  f"{_MODULES}scalar.Scalar": ("Scalar", "tensor", "TensorFeature"),
  f"{_MODULES}sequence_feature.Sequence": ("Sequence", "sequence", "Sequence"),
  f"{_MODULES}class_label_feature.ClassLabel": ("ClassLabel", "classLabel", "ClassLabel"),
  f"{_MODULES}bounding_boxes.BBoxFeature": ("BBoxFeature", "boundingBox", "BoundingBoxFeature"),
}
_DTYPES = (
  *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
  *("float16", "float32", "float64"),
)
_MAX_DEPTH = 8  # allowed levels of nested features
_MAX_DIMENSIONS = 16
# Largest size of one dimension. packed_metadata.py compares the size of a whole field with the shard files.
_MAX_SIZE = 2**40
TEXT = np.dtype("U")  # type of a feature whose values are texts of any length


class Feature(NamedTuple):
  """One entry of features.json.

  Attributes:
    kind: name of the class without its module, such as "Tensor".
    dtype: type of the numbers, or TEXT. None: the feature is not stored as an array of a fixed shape.
    shape: shape of the array of numbers or texts. None: same as for `dtype`.
  """

  kind: str
  dtype: np.dtype | None = None
  shape: tuple[int, ...] | None = None


def parse(value):
  """Converts the content of features.json, already parsed as JSON, to {name: Feature}.

  Raises:
    ValueError: if the name of a class is not in the list, or `value` has a form that TFDS does not write.
  """
  kind, content, is_proto = _class_and_content(value, "features")
  if kind != "FeaturesDict":
    raise ValueError(f"the outermost feature is of class {kind}, expected FeaturesDict")
  return {
    name: _feature(inner, f"feature {shorten(name)}", depth=1)
    for name, inner in _inner_features(content, "features", is_proto).items()
  }


def shorten(value):
  """Returns a value as text for an error message: one short line of ASCII characters."""
  return ascii(reprlib.repr(value))[1:-1][:120]


def as_object(value, where):
  """Returns `value` if it is a JSON object. Raises ValueError if it is not."""
  if not isinstance(value, dict):
    raise ValueError(f"{where}: expected an object, found {shorten(value)}")
  return value


def whole_number(value, where, low, high):
  """Returns `value` as an integer. It may be a text, because protocol buffers write integers as text in JSON.

  Raises:
    ValueError: if `value` is not an integer in [low, high].
  """
  number = value
  if isinstance(value, str) and len(value) < 20 and value.isascii() and value.removeprefix("-").isdigit():
    number = int(value)
  if type(number) is not int or not low <= number <= high:
    raise ValueError(f"{where}: expected a whole number from {low} to {high}, found {shorten(value)}")
  return number


def _feature(value, where, depth):
  """Returns the Feature that `value` describes, after a check of all features inside it.

  Args:
    value: the feature as parsed JSON.
    where: name of the feature, for error messages.
    depth: number of features around this feature.
  Raises:
    ValueError: if `value` or a feature inside it is wrong.
  """
  if depth > _MAX_DEPTH:
    raise ValueError(f"{where}: features are nested more than {_MAX_DEPTH} deep")
  kind, content, is_proto = _class_and_content(value, where)
  if kind == "FeaturesDict":
    for name, inner in _inner_features(content, where, is_proto).items():
      _feature(inner, f"{where}, {shorten(name)}", depth + 1)
    return Feature(kind)
  if kind == "Sequence":
    return _sequence(content, where, depth)
  if kind == "Image":
    return Feature(kind)
  if kind == "Text":
    return Feature(kind, TEXT, ())
  if kind == "ClassLabel":
    return Feature(kind, np.dtype(np.int64), ())
  if kind == "BBoxFeature":
    return Feature(kind, np.dtype(np.float32), (4,))
  dtype = _dtype(content.get("dtype"), where)
  shape = () if kind == "Scalar" else _shape(content.get("shape", {}), where)
  is_plain = content.get("encoding", "none") == "none"  # other encodings store the array as one byte string
  if not is_plain or shape is None:
    return Feature(kind)
  return Feature(kind, dtype, shape)


def _class_and_content(value, where):
  """Returns (kind, content, is_proto) of one feature. `is_proto` is True for JSON of a protocol buffer."""
  if not isinstance(value, dict):
    raise ValueError(f"{where}: expected an object with pythonClassName, found {shorten(value)}")
  # A feature with both keys is ambiguous: this module could read one key and TFDS the other.
  if ("type" in value) == ("pythonClassName" in value):
    raise ValueError(f"{where}: expected either pythonClassName or type, found {shorten(sorted(value))}")
  name = value.get("type", value.get("pythonClassName"))
  if not isinstance(name, str) or name not in _CLASSES:
    known = ", ".join(sorted({kind for kind, _, _ in _CLASSES.values()}))
    raise ValueError(f"{where}: class {shorten(name)} is not allowed; expected one of TFDS's {known}")
  kind, key, proto = _CLASSES[name]
  if "type" not in value:
    if "jsonFeature" in value:
      raise ValueError(f"{where}: jsonFeature is not allowed; expected {key}")
    return kind, as_object(value.get(key, {}), f"{where}, {key}"), True
  written = value.get("proto_cls") or ""
  if written not in ("", f"tensorflow_datasets.{proto}"):
    raise ValueError(f"{where}: proto_cls {shorten(written)}, expected tensorflow_datasets.{proto}")
  content = value.get("content")
  if written and isinstance(content, str):
    content = load_json(content)  # with proto_cls, the content is a string that contains JSON
  return kind, as_object(content, f"{where}, content"), bool(written)


def load_json(text):
  """Parses JSON.

  Raises:
    ValueError: if `text` is not JSON, or is nested too deeply to be parsed.
  """
  try:
    return json.loads(text)
  except RecursionError as error:
    raise ValueError("it is nested too deeply") from error
  except ValueError as error:
    raise ValueError(f"it is not valid JSON ({error})") from error


def _inner_features(content, where, is_proto):
  return as_object(content.get("features", {}), f"{where}, features") if is_proto else content


def _sequence(content, where, depth):
  inner = _feature(content.get("feature"), f"{where}, feature", depth + 1)
  length = content.get("length", 0)
  length = -1 if length is None else whole_number(length, f"{where}, length", -1, _MAX_SIZE)
  if length < 0 or inner.shape is None:
    return Feature("Sequence")
  return Feature("Sequence", inner.dtype, (length, *inner.shape))


def _dtype(name, where):
  """Returns the NumPy type of numbers, or TEXT."""
  if name == "string":
    return TEXT
  if not isinstance(name, str) or name not in _DTYPES:
    raise ValueError(f"{where}: dtype {shorten(name)}, expected one of {', '.join(_DTYPES)}")
  return np.dtype(name)


def _shape(value, where):
  """Returns the shape as a tuple of sizes, or None if a size is not fixed (null or -1)."""
  sizes = value if isinstance(value, list) else as_object(value, f"{where}, shape").get("dimensions", [])
  if not isinstance(sizes, list) or len(sizes) > _MAX_DIMENSIONS:
    raise ValueError(f"{where}: shape {shorten(sizes)}, expected a list of at most {_MAX_DIMENSIONS} sizes")
  shape = tuple(
    -1 if size is None else whole_number(size, f"{where}, shape", -1, _MAX_SIZE) for size in sizes
  )
  return None if -1 in shape else shape

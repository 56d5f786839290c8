"""The operations of TensorFlow.js graphs that MoveNet needs.

A value that is known while a graph is traced, such as a shape, is a NumPy array, and stays one: an operation
whose inputs are all NumPy arrays is computed by NumPy. So shapes can be computed from the size of the input,
and `Reshape` gets its shape as numbers. Every other value is a jax.Array.

Source: the definitions of TensorFlow's operations of the same names.
"""

import base64

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_TYPES = {"DT_FLOAT": np.float32, "DT_INT32": np.int32, "DT_BOOL": np.bool_}
_ACTIVATIONS = {"Relu": lambda x: jnp.maximum(x, 0), "Relu6": lambda x: jnp.clip(x, 0, 6)}


def compute(node, inputs):
  """Computes a node.

  Args:
    node: a `tfjs_file.Node`.
    inputs: list of arrays.
  Returns:
    an array, or a tuple of arrays if the operation has several outputs.
  Raises:
    ValueError: if the kind of the operation, or one of its options, is not known.
  """
  operation = OPERATIONS.get(node.op)
  if operation is None:
    raise ValueError(f"its graph has the operation {node.op} ({node.name}), which is not known")
  return operation(node, *inputs)


def _elementwise(in_numpy, in_jax):
  return lambda node, *x: _library(x, in_numpy, in_jax)(*x)


def _library(values, in_numpy, in_jax):
  return in_jax if any(isinstance(value, jax.Array) for value in values) else in_numpy


def _both(name):
  """Returns the elementwise operation with this name in NumPy and in jax.numpy."""
  return _elementwise(getattr(np, name), getattr(jnp, name))


def _flag(node, key):
  return bool(node.attributes.get(key, {}).get("b", False))


def _integer(node, key, default=0):
  return int(node.attributes.get(key, {}).get("i", default))


def _integers(node, key):
  return [int(value) for value in node.attributes.get(key, {}).get("list", {}).get("i", ())]


def _text(value):
  """Returns a text that is stored in base64."""
  return base64.b64decode(value).decode()


def _static(node, value):
  """Returns an array of numbers that must be known while the graph is traced, as a flat list of integers."""
  if isinstance(value, jax.Array):
    raise ValueError(f"{node.op} ({node.name}) has a shape or an axis that depends on the pixels")
  return [int(number) for number in np.ravel(value)]


def _shape(node, x):
  return np.array(x.shape, np.int32)


def _cast(node, x):
  return x.astype(_TYPES[node.attributes["DstT"]["type"]])


def _convolve(node, x, kernel, depthwise=False):
  strides, padding = _integers(node, "strides")[1:3], _text(node.attributes["padding"]["s"])
  if set(_integers(node, "dilations")) - {1} or _text(node.attributes["data_format"]["s"]) != "NHWC":
    raise ValueError(f"{node.op} ({node.name}) has dilations, or channels that do not come last")
  if depthwise:
    return _convolve_depthwise(x, kernel, strides, padding)
  numbers = ("NHWC", "HWIO", "NHWC")
  return lax.conv_general_dilated(
    x, jnp.asarray(kernel), strides, padding, dimension_numbers=numbers, precision="highest"
  )


def _convolve_depthwise(x, kernel, strides, padding):
  """Convolves each channel with its own kernel.

  This is a sum of shifted products. On a CPU, it takes a quarter of the time of XLA's grouped convolution.

  Args:
    x: [B, H, W, C].
    kernel: [h, w, C, 1].
    strides: (rows, columns).
    padding: "SAME" or "VALID".
  """
  if kernel.shape[3] != 1:
    raise ValueError(f"a depthwise kernel of shape {kernel.shape}, expected one output per channel")
  pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  H, W = (
    (side - k) // stride + 1 for side, k, stride in zip(x.shape[1:3], kernel.shape, strides, strict=False)
  )
  result = 0
  for i in range(kernel.shape[0]):
    for j in range(kernel.shape[1]):
      rows = slice(i, i + (H - 1) * strides[0] + 1, strides[0])
      columns = slice(j, j + (W - 1) * strides[1] + 1, strides[1])
      result = result + x[:, rows, columns] * kernel[i, j, :, 0]
  return result


def _convolve_fused(node, x, kernel, bias, depthwise=False):
  x = _convolve(node, x, kernel, depthwise) + bias
  first, *rest = (_text(name) for name in node.attributes["fused_ops"]["list"]["s"])
  if first != "BiasAdd" or set(rest) - _ACTIVATIONS.keys():
    raise ValueError(f"{node.op} ({node.name}) has the fused operations {[first, *rest]}")
  for name in rest:
    x = _ACTIVATIONS[name](x)
  return x


def _max_pool(node, x):
  window, strides = _integers(node, "ksize"), _integers(node, "strides")
  padding = _text(node.attributes["padding"]["s"])
  return lax.reduce_window(x, -jnp.inf, lax.max, tuple(window), tuple(strides), padding)


def _resize_bilinear(node, x, size):
  """Resizes [B, H, W, C] by linear interpolation of rows and of columns."""
  for axis, length in zip((1, 2), _static(node, size), strict=True):
    source = _source_positions(node, length, x.shape[axis])
    low = np.floor(source).astype(np.int32)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    share = (source - low).reshape((1, -1, 1, 1) if axis == 1 else (1, 1, -1, 1)).astype(np.float32)
    x = jnp.take(x, low, axis) * (1 - share) + jnp.take(x, high, axis) * share
  return x


def _source_positions(node, length, original):
  positions = np.arange(length, dtype=np.float32)
  if _flag(node, "half_pixel_centers"):
    source = (positions + 0.5) * (original / length) - 0.5
  elif _flag(node, "align_corners") and length > 1:
    source = positions * ((original - 1) / (length - 1))
  else:
    source = positions * (original / length)
  return np.clip(source, 0, original - 1)


def _strided_slice(node, x, begin, end, strides):
  begin, end, strides = (_static(node, value) for value in (begin, end, strides))
  names = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
  begin_mask, end_mask, ellipsis, new_axis, shrink = (_integer(node, name) for name in names)
  places = []
  for k, (start, stop, stride) in enumerate(zip(begin, end, strides, strict=True)):
    bit = 1 << k
    if ellipsis & bit:
      places.append(Ellipsis)
    elif new_axis & bit:
      places.append(None)
    elif shrink & bit:
      places.append(start)
    else:
      places.append(slice(None if begin_mask & bit else start, None if end_mask & bit else stop, stride))
  return x[tuple(places)]


def _range(node, start, stop, step):
  return np.arange(*(_static(node, value)[0] for value in (start, stop, step)), dtype=np.int32)


def _top_k(node, x, k):
  values, indices = lax.top_k(x, _static(node, k)[0])
  return values, indices.astype(jnp.int32)


def _gather_nd(node, x, indices):
  del node
  return x[tuple(indices[..., k] for k in range(indices.shape[-1]))]


def _pack(node, *values):
  library = _library(values, np, jnp)
  return library.stack(values, _integer(node, "axis"))


def _concat(node, *values):
  *arrays, axis = values
  return _library(arrays, np, jnp).concatenate(arrays, _static(node, axis)[0])


def _unpack(node, x):
  axis = _integer(node, "axis")
  return tuple(x.take(k, axis) for k in range(x.shape[axis]))


def _split(node, axis, x):
  library = _library((x,), np, jnp)
  return tuple(library.split(x, _integer(node, "num_split"), _static(node, axis)[0]))


def _reduce(name):
  def reduce(node, x, axes):
    return getattr(x, name)(tuple(_static(node, axes)), keepdims=_flag(node, "keep_dims"))

  return reduce


def _add_all(node, *values):
  del node
  return sum(values[1:], start=values[0])


OPERATIONS = {
  "Abs": _both("abs"),
  "Add": _both("add"),
  "AddN": _add_all,
  "AddV2": _both("add"),
  "ArgMax": lambda node, x, axis: x.argmax(_static(node, axis)[0]).astype(np.int32),
  "Cast": _cast,
  "ConcatV2": _concat,
  "DepthwiseConv2dNative": lambda node, x, kernel: _convolve(node, x, kernel, depthwise=True),
  "Equal": _both("equal"),
  "Exp": _both("exp"),
  "ExpandDims": lambda node, x, axis: _library((x,), np, jnp).expand_dims(x, _static(node, axis)[0]),
  "Fill": lambda node, size, value: _library((value,), np, jnp).broadcast_to(value, _static(node, size)),
  "FloorDiv": _both("floor_divide"),
  "FusedDepthwiseConv2dNative": lambda node, *inputs: _convolve_fused(node, *inputs, depthwise=True),
  "GatherNd": _gather_nd,
  "Greater": _both("greater"),
  "GreaterEqual": _both("greater_equal"),
  "Identity": lambda node, x: x,
  "Less": _both("less"),
  "LogicalAnd": _both("logical_and"),
  "Max": _reduce("max"),
  "MaxPool": _max_pool,
  "Maximum": _both("maximum"),
  "Minimum": _both("minimum"),
  "Mul": _both("multiply"),
  "Pack": _pack,
  "Range": _range,
  "RealDiv": _both("divide"),
  "Reciprocal": _elementwise(lambda x: (1 / x).astype(x.dtype), lambda x: 1 / x),
  "Reshape": lambda node, x, size: x.reshape(_static(node, size)),
  "ResizeBilinear": _resize_bilinear,
  "Select": _both("where"),
  "Shape": _shape,
  "Sigmoid": lambda node, x: jax.nn.sigmoid(x),
  "Size": lambda node, x: np.array(x.size, np.int32),
  "Split": _split,
  "Sqrt": _both("sqrt"),
  "SquaredDifference": _elementwise(lambda a, b: (a - b) ** 2, lambda a, b: (a - b) ** 2),
  "Squeeze": lambda node, x: x.squeeze(tuple(_integers(node, "squeeze_dims"))),
  "StridedSlice": _strided_slice,
  "Sub": _both("subtract"),
  "Sum": _reduce("sum"),
  "Tile": lambda node, x, counts: _library((x,), np, jnp).tile(x, _static(node, counts)),
  "TopKV2": _top_k,
  "Unpack": _unpack,
  "_FusedConv2D": _convolve_fused,
}

"""Writes small graph models of TensorFlow.js, and tiny models with the input and output of MoveNet."""

import base64
import json

import numpy as np

INPUT = "input"


def text(value):
  return {"s": base64.b64encode(value.encode()).decode()}


def whole(value):
  return {"i": str(value)}


def wholes(*values):
  return {"list": {"i": [str(value) for value in values]}}


def of_type(name):
  return {"type": name}


CONVOLUTION = {"strides": wholes(1, 1, 1, 1), "padding": text("VALID"), "data_format": text("NHWC")}


def node(name, op, *inputs, **attributes):
  return {"name": name, "op": op, "input": list(inputs), "attr": attributes}


def constant(name):
  return node(name, "Const")


def write(path, nodes, weights, input_shape, output="Identity:0", half=True):
  """Writes a model.

  Args:
    path: pathlib.Path of the JSON file. The weights are next to it.
    nodes: list of nodes, without the input and the constants.
    weights: {name of a constant: float32 or int32 array}.
    input_shape: shape of the input.
    output: name of the output.
    half: True: float32 weights are stored as float16.
  """
  shape = {"shape": {"dim": [{"size": str(side)} for side in input_shape]}}
  first = node(INPUT, "Placeholder", shape=shape, dtype=of_type("DT_INT32"))
  entries, data = [], b""
  for name, array in weights.items():
    array = np.asarray(array)
    entry = {"name": name, "shape": list(array.shape), "dtype": array.dtype.name}
    if half and array.dtype == np.float32:
      entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
      array = array.astype(np.float16)
    entries.append(entry)
    data += array.tobytes()
  content = {
    "format": "graph-model",
    "generatedBy": "a test",
    "signature": {"outputs": {"output": {"name": output}}},
    "modelTopology": {"node": [first, *map(constant, weights), *nodes]},
    "weightsManifest": [{"paths": [f"{path.stem}.bin"], "weights": entries}],
  }
  path.with_suffix(".bin").write_bytes(data)
  path.write_text(json.dumps(content))
  return path


def write_single(path, side=16, seed=0):
  """Writes a tiny model for one person: one convolution over the whole picture, and a sigmoid."""
  rng = np.random.default_rng(seed)
  weights = {
    "kernel": rng.normal(0, 0.2 / 255 / side, (side, side, 3, 51)).astype(np.float32),
    "bias": rng.normal(0, 1, 51).astype(np.float32),
    "shape": np.array((1, 1, 17, 3), np.int32),
  }
  nodes = [
    node("float", "Cast", INPUT, DstT=of_type("DT_FLOAT")),
    node("conv", "_FusedConv2D", "float", "kernel", "bias", **CONVOLUTION, fused_ops=texts("BiasAdd")),
    node("sigmoid", "Sigmoid", "conv"),
    node("Identity", "Reshape", "sigmoid", "shape"),
  ]
  return write(path, nodes, weights, (1, side, side, 3))


def texts(*values):
  return {"list": {"s": [text(value)["s"] for value in values]}}


def write_multi(path, people):
  """Writes a tiny model for several people: they are always at the same places.

  The scores of the joints are multiplied by the mean of the pixels divided by 255.

  Args:
    path: pathlib.Path of the JSON file.
    people: [6, 56] float32, the output for white pictures.
  """
  is_score = np.zeros(56, np.float32)
  is_score[2:51:3] = 1
  weights = {
    "people": np.asarray(people, np.float32)[None],
    "is_score": is_score,
    "axes": np.array((1, 2, 3), np.int32),
    "white": np.float32(255),
    "one": np.float32(1),
  }
  nodes = [
    node("float", "Cast", INPUT, DstT=of_type("DT_FLOAT")),
    node("sum", "Sum", "float", "axes"),
    node("size", "Size", INPUT),
    node("count", "Cast", "size", DstT=of_type("DT_FLOAT")),
    node("mean", "RealDiv", "sum", "count"),
    node("share", "RealDiv", "mean", "white"),
    node("less", "Sub", "share", "one"),
    node("lower", "Mul", "less", "is_score"),
    node("factor", "AddV2", "lower", "one"),
    node("Identity", "Mul", "people", "factor"),
  ]
  return write(path, nodes, weights, (1, -1, -1, 3), half=False)

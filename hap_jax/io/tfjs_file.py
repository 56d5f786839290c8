"""Reads a graph model of TensorFlow.js: a JSON file with the graph, and binary files with the weights.

Nothing in the files is executed. Only weights of the types float32, float16 and int32 are read.
"""

import hashlib
import json
import math
import pathlib
from typing import NamedTuple

import numpy as np

from hap_jax.io import regular_file

_MAX_JSON_BYTES = 2**26
_MAX_WEIGHT_BYTES = 2**30
_TYPES = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "int32": np.dtype("<i4")}


class Node(NamedTuple):
  """A node of the graph.

  Attributes:
    name: its name.
    op: the kind of its operation, such as "AddV2".
    inputs: (name of a node, number of its output) of each input.
    attributes: the attributes of the operation, as in the JSON file.
  """

  name: str
  op: str
  inputs: tuple[tuple[str, int], ...]
  attributes: dict


class GraphModel(NamedTuple):
  """A graph model.

  Attributes:
    nodes: {name: Node}. The inputs of a node come before it.
    weights: {name of a node of kind Const: float32 or int32 array}.
    input: name of the only node of kind Placeholder.
    input_shape: its shape. -1: any length.
    output: (name of a node, number of its output) of the only output.
    origin: the address of the model from which it was converted, or "".
    digest: SHA-256 of graph and weights.
  """

  nodes: dict[str, Node]
  weights: dict[str, np.ndarray]
  input: str
  input_shape: tuple[int, ...]
  output: tuple[str, int]
  origin: str
  digest: str


def find(path):
  """Returns the path of the JSON file of a graph model, or None if `path` is something else.

  Args:
    path: the JSON file, or a folder with one such file.
  Raises:
    ValueError: if the folder has several graph models.
  """
  path = pathlib.Path(path)
  if path.is_file():
    return path if path.suffix == ".json" else None
  found = [file for file in sorted(path.glob("*.json")) if _is_graph_model(file)] if path.is_dir() else []
  if len(found) > 1:
    raise ValueError(
      f"{path}: {len(found)} models of TensorFlow.js ({', '.join(file.name for file in found[:5])}): "
      "give the path of one of these files"
    )
  return found[0] if found else None


def _is_graph_model(path):
  try:
    return isinstance(_read_json(path).get("modelTopology"), dict)
  except ValueError:
    return False


def read(path):
  """Reads a graph model.

  Args:
    path: its JSON file. The files of the weights are in the same folder.
  Raises:
    ValueError: if a file is missing or damaged, or if it is not a graph model with one input, one output and
      weights of the known types. The message names the file.
  """
  path = pathlib.Path(path)
  content = _read_json(path)
  try:
    nodes = _read_nodes(content["modelTopology"]["node"])
    weights, digest = _read_weights(path, content["weightsManifest"])
    inputs = [node for node in nodes.values() if node.op == "Placeholder"]
    (output,) = content["signature"]["outputs"].values()
    if len(inputs) != 1:
      raise ValueError(f"it has {len(inputs)} inputs, expected one")
    shape = tuple(int(side["size"]) for side in inputs[0].attributes["shape"]["shape"]["dim"])
    nodes = _sort(nodes, _reference(output["name"])[0])
  except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
    text = f"no {error}" if isinstance(error, KeyError) else error
    raise ValueError(f"{path}: not a graph model of TensorFlow.js that can be read: {text}") from error
  unknown = [node.name for node in nodes.values() if node.op == "Const" and node.name not in weights]
  if unknown:
    raise ValueError(f"{path}: it has no weights for {unknown[0]}")
  origin = content.get("generatedBy")
  topology = json.dumps(content["modelTopology"], sort_keys=True).encode()
  return GraphModel(
    nodes,
    weights,
    inputs[0].name,
    shape,
    _reference(output["name"]),
    origin if isinstance(origin, str) else "",
    hashlib.sha256(topology + digest).hexdigest(),
  )


def _read_json(path):
  try:
    content = json.loads(regular_file.read_bytes(path, _MAX_JSON_BYTES))
  except RecursionError as error:
    raise ValueError(f"{path}: its lists or objects are nested too deeply to be read") from error
  except (OSError, ValueError) as error:
    raise ValueError(f"{path}: not a readable JSON file: {error}") from error
  if not isinstance(content, dict):
    raise ValueError(f"{path}: expected an object of a TensorFlow.js model")
  return content


def _read_nodes(entries):
  nodes = {}
  for entry in entries:
    inputs = tuple(_reference(name) for name in entry.get("input", ()) if not name.startswith("^"))
    node = Node(str(entry["name"]), str(entry["op"]), inputs, entry.get("attr", {}))
    nodes[node.name] = node
  return nodes


def _reference(text):
  """Returns (name of a node, number of its output) of a text such as "node:1"."""
  name, _, number = text.partition(":")
  return name, int(number or 0)


def _sort(nodes, output):
  """Returns the nodes that the output needs, each after its inputs."""
  done, stack = {}, [(output, False)]
  while stack:
    name, has_inputs = stack.pop()
    if name in done:
      continue
    if has_inputs:
      done[name] = nodes[name]
      continue
    if len(stack) > 10 * len(nodes) + 10_000:
      raise ValueError("its graph has a cycle")
    stack.append((name, True))
    stack += [(source, False) for source, _ in nodes[name].inputs]
  return done


def _read_weights(path, groups):
  """Returns ({name: array}, SHA-256 of all files)."""
  weights, digest = {}, hashlib.sha256()
  for group in groups:
    files = [str(name) for name in group["paths"]]
    for name in files:
      if pathlib.PurePath(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"its weights are in {name!r}, expected a file of the same folder")
    data = b"".join(_read_file(path.parent / name) for name in files)
    digest.update(data)
    position = 0
    for entry in group["weights"]:
      stored = _stored_type(entry)
      shape = tuple(int(side) for side in entry["shape"])
      size = math.prod(shape) * stored.itemsize
      if min(shape, default=1) < 0 or position + size > len(data):
        raise ValueError(f"{', '.join(files)} has {len(data):,} bytes, too few for {entry['name']}")
      array = np.frombuffer(data, stored, math.prod(shape), position).reshape(shape)
      weights[str(entry["name"])] = array.astype(_TYPES[entry["dtype"]].newbyteorder("="))
      if not np.isfinite(array).all():
        raise ValueError(f"{entry['name']} has values that are not finite")
      position += size
    if position != len(data):
      raise ValueError(f"{', '.join(files)} has {len(data):,} bytes, but its weights have {position:,}")
  return weights, digest.digest()


def _stored_type(entry):
  """Returns the type in which a weight is stored."""
  quantization = entry.get("quantization", {})
  stored = quantization.get("dtype", entry["dtype"])
  if entry["dtype"] not in ("float32", "int32") or stored not in _TYPES or "scale" in quantization:
    raise ValueError(f"{entry['name']} is of type {entry['dtype']}, stored as {stored}")
  return _TYPES[stored]


def _read_file(path):
  try:
    return regular_file.read_bytes(path, _MAX_WEIGHT_BYTES)
  except OSError as error:
    raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error

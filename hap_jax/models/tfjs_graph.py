"""Runs a graph model of TensorFlow.js as a JAX function."""

import numpy as np

from hap_jax.models import tfjs_operations


def variables_of(model):
  """Returns {name: array} of the weights of a `tfjs_file.GraphModel` that are arguments of `apply`.

  These are the arrays of floats with at least one dimension. All other weights are numbers in the graph, such
  as axes and shapes, which must be known while the graph is traced.
  """
  return {name: array for name, array in model.weights.items() if array.ndim and array.dtype == np.float32}


def apply(model, variables, x):
  """Computes the output of a graph.

  Args:
    model: a `tfjs_file.GraphModel`.
    variables: arrays with the names and shapes of `variables_of`.
    x: input of the graph. Its shape is known while the graph is traced, so each shape is compiled once.
  Raises:
    ValueError: if the graph has an unknown operation, or does not fit the shape.
  """
  values = {}
  for name, node in model.nodes.items():
    if node.op == "Placeholder":
      values[name] = x
    elif node.op == "Const":
      values[name] = variables[name] if name in variables else model.weights[name]
    else:
      inputs = [_output(values[source], number) for source, number in node.inputs]
      values[name] = tfjs_operations.compute(node, inputs)
  return _output(values[model.output[0]], model.output[1])


def _output(value, number):
  """Returns output `number` of a node."""
  return value[number] if isinstance(value, tuple) else value

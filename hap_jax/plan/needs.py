"""The needs of a training step, from the shapes of its arrays: memory of a device, disk, and FLOPs."""

import math

import jax
import numpy as np

from hap_jax.plan import flops
from hap_jax.train import optim
from hap_jax.train import state as train_state


def of_step(outline, mesh, traced):
  """Returns the needs of a training step as plain values.

  Args:
    outline: the `Outline` of the step.
    mesh: the mesh of the devices.
    traced: the traced step without recomputation.
  Returns:
    {"parameters": number of parameters,
     "trained": number of trained parameters,
     "device_bytes": {name: bytes on each device}, of parameters, moments, average, statistics, constants,
       batch (all live between the steps) and gradients (float32, only during a step),
     "checkpoint_bytes": bytes of a checkpoint before compression,
     "flops": FLOPs of a step for each picture, without recomputation}
  """
  state = train_state.abstract(outline, mesh)
  matched = optim.match_rules(state.params, outline.param_rules)
  sizes = [
    (math.prod(x.shape), rule.trainable)
    for x, rule in zip(jax.tree.leaves(state.params), jax.tree.leaves(matched), strict=True)
  ]
  rows = next(iter(outline.batch.values())).shape[0]
  return {
    "parameters": sum(size for size, _ in sizes),
    "trained": sum(size for size, is_trained in sizes if is_trained),
    "device_bytes": {
      "parameters": _bytes_of_device(state.params),
      "moments": _bytes_of_device(state.opt_state),
      "average": _bytes_of_device(state.ema),
      "statistics": _bytes_of_device(state.model_state),
      "constants": _bytes(outline.constants),
      "batch": _bytes(outline.batch) // (mesh.shape["data"] * mesh.shape["fsdp"]),
      "gradients": _bytes_of_device(
        jax.tree.map(lambda x, rule: x if rule.trainable else None, state.params, matched)
      ),
    },
    "checkpoint_bytes": _bytes(state),
    "flops": flops.count(traced.jaxpr) / rows,
  }


def _bytes(tree):
  """Returns the bytes of all arrays of a tree."""
  return sum(math.prod(x.shape) * _itemsize(x) for x in jax.tree.leaves(tree))


def _bytes_of_device(tree):
  """Returns the bytes of the parts of arrays that one device holds."""
  return sum(math.prod(x.sharding.shard_shape(x.shape)) * _itemsize(x) for x in jax.tree.leaves(tree))


def _itemsize(x):
  return np.dtype(x.dtype).itemsize

"""Experts in the MLPs of an encoder: one for each data set of a joint training (ViTPose+, arXiv 2212.04246).

The last `part_features` outputs of the second layer of each MLP, fc2, come from the expert of the picture.
The arrays of fc2 hold the shared outputs, then the outputs of each expert, see `layers.Experts`. So a choice
of experts is a choice of columns.
"""

import dataclasses

import numpy as np

from hap_jax.convert.weights import flatten, unflatten

_FC2 = ("encoder/blocks/mlp/fc2/kernel", "encoder/blocks/mlp/fc2/bias")


def columns(encoder, chosen, part_features):
  """Returns the columns of fc2 for an encoder that has the chosen experts of another encoder.

  Args:
    encoder: the `description.Encoder` of the other encoder. If it has no experts, its last `part_features`
      outputs are used as the expert.
    chosen: number of the expert of the other encoder for each expert. One number: the result has no experts.
    part_features: number of outputs of each expert.
  Returns:
    [D + (len(chosen) - 1) * part_features] int.
  """
  shared = encoder.width - part_features
  starts = [shared + (number * part_features if encoder.num_experts > 1 else 0) for number in chosen]
  parts = [np.arange(shared), *(np.arange(start, start + part_features) for start in starts)]
  return np.concatenate(parts)


def choose(weights, chosen, part_features=0):
  """Returns the Weights of an encoder that has the chosen experts.

  Args:
    weights: Weights.
    chosen: number of an expert of the Weights for each expert of the result. The number may be repeated. One
      number: the result is an encoder without experts. Its fc2 is joined from the shared outputs and the
        expert.
    part_features: number of outputs of each expert, if the Weights have no experts.
  """
  encoder = weights.description.encoder
  part_features = encoder.part_features or part_features
  kept, flat = columns(encoder, chosen, part_features), flatten(weights.params)
  flat |= {path: np.ascontiguousarray(flat[path][..., kept]) for path in _FC2}
  has_experts = len(chosen) > 1
  weights = dataclasses.replace(weights, variables={**weights.variables, "params": unflatten(flat)})
  return weights.with_encoder(
    num_experts=len(chosen) if has_experts else 1, part_features=part_features if has_experts else 0
  )


def with_rows(entries, num_experts, part_features, width):
  """Returns the rows of a name table in which each MLP of the encoder has experts.

  The row of fc2 is replaced by a row for its shared outputs and a row for each expert. An expert has the name
  of fc2 with `experts.<number>` in place of `fc2`.

  Args:
    entries: the rows of the encoder without experts, `names.Entry`.
    num_experts, part_features: sizes of the experts.
    width: the width of the encoder.
  """
  sizes = (width - part_features, *[part_features] * num_experts)
  found = []
  for entry in entries:
    if entry.ours not in _FC2:
      found.append(entry)
      continue
    for part, size in enumerate(sizes):
      name = entry.reference if part == 0 else entry.reference.replace(".fc2.", f".experts.{part - 1}.")
      shape = (str(size), *entry.shape[1:])
      found.append(dataclasses.replace(entry, reference=name, shape=shape, parts=sizes, part=part))
  return tuple(found)


def count(names, prefix="mlp.experts."):
  """Returns the number of experts in the names of a file's tensors.

  Raises:
    ValueError: if the numbers of the experts are not 0, 1, 2, ...
  """
  found = {name.partition(prefix)[2].partition(".")[0] for name in names if prefix in name}
  missing = {str(number) for number in range(len(found))} - found
  if missing:
    raise ValueError(f"has {len(found)} experts, but no expert with the number {', '.join(sorted(missing))}")
  return len(found)

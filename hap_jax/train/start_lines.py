"""The lines that a run prints at its start: devices, parameters, records, length, checkpoints."""

import collections
import math

import jax

from hap_jax.data.sources.base import sections_of
from hap_jax.train import optim

_WIDTH = len("checkpoints")


def lines(task, *, params, mesh, start, folder, save_every):
  """Returns the lines, aligned in two columns.

  Args:
    task: the `Task` of the run.
    params: the parameters of the task, as arrays or abstract arrays.
    mesh: the mesh of the run.
    start: number of steps made before this start, by this run or by a run that it continues.
    folder: the folder of the checkpoints.
    save_every: steps between two checkpoints. 0: no regular checkpoints.
  """
  train, total = task.train, task.total_steps
  length = f"{total:,} steps = {train.progress(total):.4g} epochs, batch size {train.sampler.batch_size:,}"
  if task.accumulate > 1:
    length += f" in {task.accumulate} parts"
  if start:
    length += f"; {total - start:,} steps left after step {start:,}"
  every = f"every {save_every:,} steps" if save_every else "only if a signal stops the run"
  facts = {
    "devices": _devices(mesh),
    "parameters": _parameters(params, task.param_rules),
    "records": f"{len(train.source):,} for training, {_sources(train.source)}",
    "length": length,
    "checkpoints": f"{folder}, {every}",
  }
  return [f"{name:{_WIDTH}s}  {fact}" for name, fact in facts.items()]


def _sources(source):
  """Returns a text with the name of a source, or with the records of each of its data sets."""
  sections = sections_of(source)
  if len(sections) == 1:
    return f"source {source.spec.name}"
  return ", ".join(f"{section.size:,} of {section.name}" for section in sections)


def _devices(mesh):
  """Returns a text with the number and the kind of the devices.

  If there are several devices, the text has the axes of the mesh. If there are several processes, it has
  their number.
  """
  kinds = collections.Counter(device.device_kind for device in mesh.devices.flat)
  text = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
  if mesh.devices.size > 1:
    text += f", mesh {' '.join(f'{name}={size}' for name, size in mesh.shape.items())}"
  if jax.process_count() > 1:
    text += f", {jax.process_count()} processes"
  return text


def _parameters(params, rules):
  """Returns a text with the number of all parameters and the number of trained parameters."""
  sizes = jax.tree.map(lambda x: math.prod(x.shape), params)
  trained = jax.tree.map(lambda rule, size: size * rule.trainable, optim.match_rules(params, rules), sizes)
  total, num_trained = (sum(jax.tree.leaves(tree)) for tree in (sizes, trained))
  return f"{total:,}, all trained" if total == num_trained else f"{total:,}, {num_trained:,} of them trained"

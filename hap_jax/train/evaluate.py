"""Predict per batch, order by record, score on the host."""

import contextlib

import jax
import numpy as np

from hap_jax import sharding
from hap_jax.train.step import make_predict_step


def make_evaluate(task, mesh):
  """Makes variables -> {metric: float} over all of the task's evaluation splits; each predict compiles once.

  Padding rows are dropped, rows are ordered by their record's index, and a record counts once (one that
  stands in for an unreadable one comes twice), so a score does not depend on batch size or devices.
  """
  predict_steps = {name: make_predict_step(split.predict, mesh) for name, split in task.evals.items()}

  def run_split(name, variables):
    loader = task.evals[name].loader
    outputs = []
    with contextlib.closing(loader.iterate(0, loader.num_steps)) as batches:
      for batch in batches:
        rows = predict_steps[name](variables, sharding.put_batch(batch, mesh))
        rows = {**jax.device_get(rows), "index": batch["index"], "valid": batch["valid"]}
        outputs.append(rows)
    columns = {key: np.concatenate([rows[key] for rows in outputs]) for key in outputs[0]}
    valid = np.flatnonzero(columns["valid"])
    _, first = np.unique(columns["index"][valid], return_index=True)
    order = valid[first]
    return {key: values[order] for key, values in columns.items() if key != "valid"}

  def evaluate(variables):
    return dict(task.score({name: run_split(name, variables) for name in task.evals}))

  return evaluate

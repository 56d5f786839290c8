"""Runs the task of a configuration: mesh, workdir, starting weights, loop. Nothing else starts a run."""

import pathlib

import jax
from clu import parameter_overview

from hap_jax import config as config_lib
from hap_jax import sharding
from hap_jax.train import initial, loop
from hap_jax.train.checkpoint import Checkpoints
from hap_jax.train.report import PICTURES


def run(config, workdir, say=print):
  """Trains the task of a configuration, or goes on from the newest checkpoint of the workdir.

  Args:
    config: finalized; its `task` names a file of hap_jax/tasks.
    workdir: folder of the run.
    say: prints a line.
  Returns:
    {metric: float} of the last evaluation, {} if nothing is held out.
  """
  _check_backend(config)
  mesh = make_mesh(config)
  config_lib.check_same(config, workdir)
  with Checkpoints(workdir, keep_last=config.keep_last, keep_every=config.keep_every) as checkpoints:
    weights, recorded, lineage = None, None, ()
    if checkpoints.latest_step() is not None:
      recorded = checkpoints.description()
      lineage = recorded.lineage
    elif config.init_from:
      weights = initial.read(config.init_from)
      lineage = weights.lineage
    task = config_lib.load("tasks", config.task).make(config, lineage)
    if recorded is not None:
      check_records(recorded, task.description, workdir)
    # Only now, when nothing that the configuration can get wrong is left: a failed start claims no workdir.
    config_lib.record(config, workdir)
    _, scores = loop.run(
      task,
      workdir=workdir,
      seed=config.seed,
      mesh=mesh,
      checkpoints=checkpoints,
      cadence=loop.Cadence(
        log=config.log_every,
        save=config.save_every,
        evaluate=config.eval_every,
        panel=config.panel_every,
        evaluate_epochs=config.eval_every_epochs,
      ),
      weights=weights,
      say=say,
    )
  for line in (*_newest_pictures(workdir), *task.summarize(scores)):
    say(line)
  return scores


def _newest_pictures(workdir):
  """Returns a line with the newest picture of each name, no line if there is none."""
  newest = {}
  for path in sorted((pathlib.Path(workdir) / PICTURES).glob("*_*.png")):
    newest[path.stem.rpartition("_")[0]] = str(path)
  return [f"pictures: {', '.join(newest.values())}"] if newest else []


def check_records(recorded, description, workdir):
  """Checks that a run goes on with as many training records as it began with.

  Another number gives other batches, and other epochs by which the learning rate counts.

  Args:
    recorded: `Description` of the run's newest checkpoint; older versions did not record the number.
    description: the task's now.
    workdir: folder of the run.
  Raises:
    ValueError: if the numbers differ.
  """
  began, now = recorded.data.get("records"), description.data["records"]
  if began not in (None, now):
    raise ValueError(
      f"{workdir}: the run began with {began:,} training records of {recorded.data['name']}, and the "
      f"source now has {now:,}: restore the data (config.data.root), or start a new run (--workdir)"
    )


def _check_backend(config):
  """Raises ValueError for a way to compute that this machine does not have; a dry run may name one."""
  backend, model = jax.default_backend(), config.model
  if model.attention == "cudnn" and (backend != "gpu" or model.dtype != "bfloat16"):
    raise ValueError(
      f'config.model.attention="cudnn" with config.model.dtype="{model.dtype}" on {backend}: it is for '
      'bfloat16 on a GPU; set it to "xla"'
    )


def make_mesh(config):
  """Builds the mesh of a configuration and checks that its batches divide over it."""
  mesh = sharding.make_mesh(**config.mesh)
  sharding.check_batch_size(config.batch_size, mesh, parts=config.accumulate)
  sharding.check_batch_size(config.eval_batch_size, mesh, "config.eval_batch_size")
  return mesh


def dry_run(config, say=print):
  """Prints the resolved configuration, the shapes of a step and the parameters; reads no data."""
  mesh = make_mesh(config)
  config_lib.load("data/sources", config.data.source)
  params, lines = config_lib.load("tasks", config.task).outline(config)
  say(str(config))
  say(parameter_overview.get_parameter_overview(params, include_stats=False))
  steps = config.total_steps or f"{config.total_epochs} epochs of (records // {config.batch_size})"
  say(f"devices: {len(jax.devices())} x {jax.devices()[0].device_kind}, mesh {dict(mesh.shape)}")
  for line in lines:
    say(line)
  say(f"steps: {steps}")

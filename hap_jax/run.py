"""Runs the task of a configuration: prepares mesh, workdir and starting weights, and calls the training loop.

No other file starts a run.
"""

import pathlib

import jax
from clu import parameter_overview

from hap_jax import config as config_lib
from hap_jax import distributed, sharding
from hap_jax.io import folder_lock
from hap_jax.tasks import base
from hap_jax.train import continued, initial, loop
from hap_jax.train.checkpoint import Checkpoints
from hap_jax.train.report import PICTURES


def run(config, workdir, say=print):
  """Trains the task of a configuration. If the workdir has checkpoints, resumes from the newest checkpoint.

  Args:
    config: the finalized config. config.task is the name of a file of hap_jax/tasks.
    workdir: folder of the run.
    say: prints one line for the user.
  Returns:
    {metric: float} of the last evaluation, or {} if there are no held-out records.
  Raises:
    ValueError: if another run uses the workdir. Also for data, checkpoints or configurations that do not fit.
    UnsavedError: if the last checkpoint could not be saved.
    NonFiniteLossError: see `loop.run`.
    StoppedError: see `loop.run`.
  """
  _check_backend(config)
  mesh = make_mesh(config)
  with distributed.entered_by_first_process(folder_lock.hold(workdir)):
    # This check needs the lock, because an earlier run may record its configuration while it has the lock.
    config_lib.check_same(config, workdir)
    return _run(config, workdir, mesh, say)


def _run(config, workdir, mesh, say):
  """Does the work of `run` in a workdir that no other run uses."""
  kept = {"keep_last": config.keep_last, "keep_every": config.keep_every}
  with Checkpoints(workdir, **kept, say=say) as checkpoints:
    # The first of these sources that exists: the run's own checkpoint, another run, weights, nothing.
    weights, recorded, earlier, start = None, None, None, base.FROM_SCRATCH
    if checkpoints.latest_step() is not None:
      recorded = checkpoints.description()
      start = base.Start(recorded.lineage, recorded)
    elif config.continue_from:
      earlier = continued.find(config.continue_from, config.task)
      start = earlier.start
    elif config.init_from:
      weights = initial.read(
        config.init_from,
        key=config.init_key,
        prefix=config.init_prefix,
        encoder_only=config.init_encoder_only,
      )
      start = base.Start(weights.lineage, weights.description)
    task = config_lib.load("tasks", config.task).make(base.with_norm_eps(config, start), start)
    if recorded is not None:
      check_recorded(recorded, task.description, workdir)
    if earlier is not None:
      earlier.check(task, config, mesh)
    # The configuration is recorded after all checks. If a check fails, no configuration is recorded, and the
    # workdir can be used with another configuration.
    config_lib.record(config, workdir)
    if task.store is not None and jax.process_index() == 0:
      task.store(workdir)
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
      earlier=earlier,
      say=say,
    )
  for line in (*_newest_pictures(workdir), *task.summarize(scores)):
    say(line)
  return scores


def _newest_pictures(workdir):
  """Returns a list of one line with the newest picture of each name, or [] if there are no pictures."""
  newest = {}  # file names end with the step in 8 digits, so the last name in sorted order is the newest
  for path in sorted((pathlib.Path(workdir) / PICTURES).glob("*_*.png")):
    newest[path.stem.rpartition("_")[0]] = str(path)
  return [f"pictures: {', '.join(newest.values())}"] if newest else []


def check_recorded(recorded, description, workdir):
  """Checks that a resumed run has the same number of training records and the same network as at its start.

  Another number of records changes the batches, the length of an epoch and the learning rate of each step.
  Some facts about the network come from other files than the configuration, such as the digest of a body
  model.

  Args:
    recorded: `Description` of the run's newest checkpoint. Older versions did not record the number of
      training records.
    description: the `Description` of the task after the resume.
    workdir: folder of the run.
  Raises:
    ValueError: if the records or the network differ.
  """
  began, now = recorded.data.get("records"), description.data["records"]
  if began not in (None, now):
    raise ValueError(
      f"{workdir}: the run started with {began:,} training records of {recorded.data['name']}, but the "
      f"source now has {now:,}: restore the data (config.data.root), or continue with the new data in a new "
      f"--workdir (--config.continue_from={workdir})"
    )
  network = config_lib.as_json(dict(description.network))
  for key in sorted(network.keys() & recorded.network.keys()):
    if recorded.network[key] != network[key]:
      raise ValueError(
        f"{workdir}: the network of the run started with {key}={recorded.network[key]!r:.80}, but data and "
        f"files now give {network[key]!r:.80}: restore them, or start a new run (--workdir)"
      )


def _check_backend(config):
  """Raises ValueError if this machine does not support the configured attention.

  A dry run does not call it, because the configuration may be meant for another machine.
  """
  backend, model = jax.default_backend(), config.model
  if model.attention == "cudnn" and (backend != "gpu" or model.dtype != "bfloat16"):
    raise ValueError(
      f'config.model.attention="cudnn" with config.model.dtype="{model.dtype}" on {backend}: "cudnn" needs '
      'bfloat16 on a GPU; set config.model.attention="xla"'
    )


def make_mesh(config, devices=None):
  """Builds the mesh of a configuration and checks that it can split the batches into equal parts.

  `devices` are the devices to use. None: all devices.
  """
  mesh = sharding.make_mesh(**config.mesh, devices=devices)
  sharding.check_batch_size(config.batch_size, mesh, parts=config.accumulate)
  sharding.check_batch_size(config.eval_batch_size, mesh, "config.eval_batch_size")
  return mesh


def dry_run(config, say=print):
  """Prints the resolved configuration, the shapes of a step and the parameters. Reads no data."""
  mesh = make_mesh(config)
  config_lib.load("data/sources", config.data.source)
  outline = config_lib.load("tasks", config.task).outline(config)
  say(str(config))
  say(parameter_overview.get_parameter_overview(outline.params, include_stats=False))
  steps = config.total_steps or f"{config.total_epochs} epochs of (records // {config.batch_size})"
  say(f"devices: {len(jax.devices())} x {jax.devices()[0].device_kind}, mesh {dict(mesh.shape)}")
  for line in outline.lines:
    say(line)
  say(f"steps: {steps}" + (f", with those of {config.continue_from}" if config.continue_from else ""))

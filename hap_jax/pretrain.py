"""The pre-training recipe: person data, the HAP model and its masks, through the one training loop."""

import functools
import pathlib

import jax
from clu import parameter_overview

from hap_jax import config as config_lib
from hap_jax import sharding
from hap_jax.data.skeletons import COCO17
from hap_jax.masking.sampler import num_visible
from hap_jax.tasks import pretrain
from hap_jax.train import initial, loop
from hap_jax.train.checkpoint import Checkpoints

# The largest held-out loss, as a share of the position mean's, of a run that learned to fill in people.
# Seeds of the demo stay below it; the same run on shuffled pixels stays above 0.94.
LEARNED_RATIO = 0.85


def run(config, workdir, say=print):
  """Pre-trains as configured, or goes on where the workdir stands.

  Args:
    config: finalized. workdir: folder of the run. say: prints a line.
  Returns:
    {metric: float} of the last evaluation, {} if nothing is held out.
  """
  mesh = _make_mesh(config)
  config_lib.check_same(config, workdir)
  with Checkpoints(workdir, keep_last=config.keep_last, keep_every=config.keep_every) as checkpoints:
    weights = None
    if checkpoints.latest_step() is not None:
      lineage = checkpoints.description()["lineage"]
    elif config.init_from:
      weights = initial.read(config.init_from)
      lineage = weights.lineage
    else:
      lineage = []
      say(
        "starting from scratch; the official run starts from ImageNet MAE weights (config.init_from=FILE.pth)"
      )
    task = pretrain.make(config, lineage)
    # Only now, when nothing that the configuration can get wrong is left: a failed start claims no workdir.
    config_lib.record(config, workdir)
    _, scores = loop.run(
      task,
      workdir=workdir,
      seed=config.seed,
      mesh=mesh,
      checkpoints=checkpoints,
      cadence=loop.Cadence(config.log_every, config.save_every, config.eval_every, config.panel_every),
      load_params=weights and functools.partial(weights.fit, description=task.description, say=say),
      say=say,
    )
  _say_results(scores, workdir, say)
  return scores


def _make_mesh(config):
  mesh = sharding.make_mesh(**config.mesh)
  sharding.check_batch_size(config.batch_size, mesh)
  eval_batch_size = min(config.eval_batch_size, config.batch_size)
  sharding.check_batch_size(eval_batch_size, mesh, "config.eval_batch_size")
  return mesh


def _say_results(scores, workdir, say):
  panels = sorted((pathlib.Path(workdir) / "panels").glob("*.png"))
  if panels:
    say(f"pictures: {panels[-1]}")
  if scores:
    ratio = scores["val_ratio"]
    verdict = (
      "it learned to fill in people" if ratio <= LEARNED_RATIO else "it has not learned to fill in people"
    )
    say(
      f"verdict: held-out masked-patch loss {scores['val_loss_rec']:.4f}, position mean "
      f"{scores['val_loss_position_mean']:.4f}, ratio {ratio:.3f} (goal: at most {LEARNED_RATIO}): {verdict}"
    )


def dry_run(config, say=print):
  """Prints the resolved configuration, the shapes of a step and the parameters; reads no data."""
  mesh = _make_mesh(config)
  config_lib.load("data/sources", config.data.source)
  model = pretrain.build_model(config)
  recipe = pretrain.build_recipe(config)
  L, V = recipe.grid[0] * recipe.grid[1], num_visible(recipe)
  B, K = config.batch_size, len(COCO17.joints)
  batch = {
    "image": jax.ShapeDtypeStruct((B, *config.model.image_size, 3), "uint8"),
    "keypoints_xy": jax.ShapeDtypeStruct((B, K, 2), "float32"),
    "keypoints_visible": jax.ShapeDtypeStruct((B, K), "bool"),
    "index": jax.ShapeDtypeStruct((B,), "int32"),
  }
  params = jax.eval_shape(pretrain.make_init(model), jax.random.key(0))["params"]
  forward = functools.partial(pretrain.make_forward(config, model)[0], train=True)
  outputs, _ = jax.eval_shape(forward, {"params": params}, batch, key=jax.random.key(0))
  say(str(config))
  say(parameter_overview.get_parameter_overview(params, include_stats=False))
  steps = config.total_steps or f"{config.total_epochs} epochs of (records // {config.batch_size})"
  say(f"devices: {len(jax.devices())} x {jax.devices()[0].device_kind}, mesh {dict(mesh.shape)}")
  say(f"image {batch['image'].shape} uint8, grid {recipe.grid}")
  say(f"patches L={L}, visible V={V}, views N={config.views}")
  say(f"pred {outputs.pred.shape}, cls {outputs.cls.shape}, compute {config.model.dtype}; steps: {steps}")

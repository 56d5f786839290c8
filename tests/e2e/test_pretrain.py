"""The pre-training recipe from its configuration to the files in its workdir."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax import run as runner
from hap_jax import sharding
from hap_jax.io import checkpoint_file, safetensors_file
from hap_jax.models import posemb
from hap_jax.tasks import base
from hap_jax.tasks import pretrain as pretrain_task
from hap_jax.train import checkpoint, initial, loop
from hap_jax.train.loop import NonFiniteLossError
from hap_jax.train.report import read_metrics
from tests.convert import reference_state
from tests.io import torch_bytes

pytestmark = pytest.mark.usefixtures("small_model")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_config):
  """Returns (workdir, printed lines, scores) of a run of 30 steps."""
  workdir, lines = tmp_path_factory.mktemp("run"), []
  config = tiny_config(total_steps=30, log_every=5, save_every=5, keep_last=1, keep_every=10, base_lr=3e-2)
  return workdir, lines, runner.run(config, workdir, lines.append)


def test_loss_falls(finished):
  rows = read_metrics(finished[0] / "metrics.jsonl")
  assert [row["step"] for row in rows] == [5, 10, 15, 20, 25, 30]
  assert rows[-1]["loss_rec"] < 0.95 * rows[0]["loss_rec"]


def test_rows_have_the_keys_that_scripts_use(finished):
  row = read_metrics(finished[0] / "metrics.jsonl")[-1]
  assert {"step", "loss", "loss_rec", "loss_align", "lr", "images_per_s", "val_ratio"} <= row.keys()
  np.testing.assert_allclose(row["loss"], row["loss_rec"] + 0.05 * row["loss_align"], rtol=1e-6)


def test_newest_and_every_nth_checkpoint_stay(finished):
  assert sorted(int(p.name) for p in (finished[0] / "checkpoints").iterdir()) == [10, 20, 30]


def test_the_verdict_reports_the_ratio_of_the_two_losses(finished):
  _, lines, scores = finished
  assert scores["val_ratio"] == scores["val_loss_rec"] / scores["val_loss_position_mean"]
  assert f"ratio {scores['val_ratio']:.3f}" in lines[-1]
  assert any(line.startswith("pictures: ") for line in lines)


def test_checkpoint_describes_itself(finished):
  variables, description = checkpoint_file.read(finished[0])
  assert description["step"] == 30
  assert description["task"] == "pretrain"
  assert description["model"]["grid"] == [4, 2]
  assert description["model"]["width"] == variables["params"]["encoder"]["cls_token"].shape[-1]
  assert description["skeleton"] == "coco17"
  assert description["normalization"]["mean"] == [0.485, 0.456, 0.406]
  assert description["config"]["batch_size"] == 8
  assert description["lineage"] == []


def test_a_second_start_of_a_finished_run_changes_no_file(finished, tiny_config):
  workdir = finished[0]
  before = {
    # Every start makes a new TensorBoard file and writes its name into the lock, so these are left out.
    p: p.stat().st_mtime_ns
    for p in workdir.rglob("*")
    if p.is_file() and "tensorboard" not in str(p) and p.name != "run.lock"
  }
  lines = []
  config = tiny_config(total_steps=30, log_every=5, save_every=5, keep_last=1, keep_every=10, base_lr=3e-2)
  scores = runner.run(config, workdir, lines.append)
  assert any("already ended at step 30" in line for line in lines)
  assert scores == finished[2]
  assert before == {p: p.stat().st_mtime_ns for p in before}


def test_other_configuration_in_the_same_workdir_is_an_error(finished, tiny_config):
  with pytest.raises(ValueError, match=r"config\.batch_size was 8, now 16.*--config\.init_from"):
    runner.run(tiny_config(total_steps=30, base_lr=3e-2, batch_size=16), finished[0])


@pytest.mark.soak
def test_init_from_own_checkpoint_starts_from_its_weights(finished, tiny_config, tmp_path):
  lines = []
  # With this tiny learning rate, the weights after a step still equal the starting weights.
  config = tiny_config(total_steps=1, base_lr=1e-9, init_from=str(finished[0]), seed=5)
  runner.run(config, tmp_path / "next", lines.append)
  old, _ = checkpoint_file.read(finished[0])
  new, description = checkpoint_file.read(tmp_path / "next")
  np.testing.assert_allclose(
    new["params"]["encoder"]["blocks"]["mlp"]["fc1"]["kernel"],
    old["params"]["encoder"]["blocks"]["mlp"]["fc1"]["kernel"],
    atol=1e-6,
  )
  assert description["lineage"][0]["family"] == "hap_jax"
  assert not any(line.startswith("starting from scratch") for line in lines)


@pytest.mark.soak
def test_a_start_from_mae_loads_its_encoder_and_reports_its_licence(small_model, tiny_config, tmp_path):
  width, depth = small_model.width, small_model.depth
  table = posemb.sincos_table((3, 3), width)
  state = reference_state.encoder_state(table=table, width=width, depth=depth, patch=8)
  file = tmp_path / "mae.pth"
  file.write_bytes(torch_bytes.zip_file({"model": {k: torch_bytes.contiguous(v) for k, v in state.items()}}))
  # The configuration is the same as in the test above, so the compiled step is reused.
  config, lines = tiny_config(total_steps=1, base_lr=1e-9, init_from=str(file), seed=5), []
  runner.run(config, tmp_path / "run", lines.append)
  variables, description = checkpoint_file.read(tmp_path / "run")
  encoder = variables["params"]["encoder"]
  fc1 = state["blocks.1.mlp.fc1.weight"].T
  np.testing.assert_allclose(encoder["blocks"]["mlp"]["fc1"]["kernel"][1], fc1, atol=1e-6)
  assert "CC-BY-NC 4.0" in description["lineage"][0]["licence"]
  log = "\n".join(lines)
  assert "encoder/pos_embed 3x3 -> 4x2" in log
  assert "decoder/pred/kernel" in log
  assert "CC-BY-NC 4.0" in log


@pytest.fixture
def folder(small_model, tmp_path):
  """A folder of transformers' ViT, whose layer norms have the epsilon 1e-12."""
  sizes = {"grid": (3, 3), "width": small_model.width, "depth": small_model.depth, "patch": 8}
  (tmp_path / "vit").mkdir()
  safetensors_file.save(
    tmp_path / "vit" / "model.safetensors", reference_state.family_state("hf-vit", **sizes), {}
  )
  return tmp_path / "vit"


@pytest.mark.parametrize(("norm_eps", "expected"), [(0.0, 1e-12), (1e-5, 1e-5)])
def test_a_run_keeps_the_epsilon_of_its_starting_weights_unless_the_key_is_set(
  tiny_config, folder, norm_eps, expected
):
  config = tiny_config(init_from=str(folder), model__norm_eps=norm_eps)
  weights = initial.read(config.init_from)
  start = base.Start(weights.lineage, weights.description)
  task = pretrain_task.make(base.with_norm_eps(config, start), start)
  again = base.Start((), task.description)
  resumed = pretrain_task.make(base.with_norm_eps(config, again), again)
  for made in (task, resumed):
    model = pretrain_task.network(made.description)
    assert (model.encoder.norm_eps, model.decoder.norm_eps) == (expected, expected)
  _, report = task.load(jax.tree.map(np.asarray, task.init(jax.random.key(0))), weights)
  note = f"the layer norms have the epsilon {norm_eps:g} (config.model.norm_eps), but 1e-12 in the file"
  assert (note in report.notes) == (norm_eps != 0)
  assert pretrain_task.make(tiny_config()).description.encoder.norm_eps == 1e-6


@pytest.mark.soak
def test_a_run_records_the_epsilon_of_its_starting_weights_and_resumes(tiny_config, folder, tmp_path):
  for steps in (1, 2):
    config = tiny_config(total_steps=steps, init_from=str(folder))
    runner.run(config, tmp_path / f"run{steps}", lambda _: None)
  runner.run(config, tmp_path / "run2", lambda _: None)  # resumes at its end
  for steps in (1, 2):
    _, description = checkpoint_file.read(tmp_path / f"run{steps}")
    assert description["model"]["norm_eps"] == 1e-12
  continued = tiny_config(total_steps=3, continue_from=str(tmp_path / "run2"))
  runner.run(continued, tmp_path / "run3", lambda _: None)
  assert checkpoint_file.read(tmp_path / "run3")[1]["model"]["norm_eps"] == 1e-12


def test_init_from_another_model_names_both_sizes(tiny_config, tmp_path):
  state = reference_state.encoder_state(grid=(4, 2), width=64, depth=4, patch=8)
  file = tmp_path / "small.pth"
  file.write_bytes(torch_bytes.zip_file({k: torch_bytes.contiguous(v) for k, v in state.items()}))
  with pytest.raises(ValueError, match=r"width 64, depth 4.*config\.model\.variant.*width 32"):
    runner.run(tiny_config(init_from=str(file)), tmp_path / "run")


@pytest.mark.parametrize("every", [1, 2])
def test_cadence_lists_the_actions_after_each_step(tiny_config, every):
  task = pretrain_task.make(tiny_config(total_steps=27))
  ends = [task.train.first_step(epoch) for epoch in range(1, 5)]
  assert ends[-1] < task.total_steps < task.train.first_step(5)
  cadence = loop.Cadence(log=4, save=0, evaluate=0, panel=100, evaluate_epochs=every)
  due = {step: cadence.due(step, task) for step in range(1, task.total_steps + 1)}
  assert [step for step, actions in due.items() if actions.evaluate] == [*ends[every - 1 :: every], 27]
  assert [step for step, actions in due.items() if actions.log] == [4, 8, 12, 16, 20, 24, 27]
  assert [step for step, actions in due.items() if actions.panel] == [27]
  assert not any(actions.save for actions in due.values())
  unscored = dataclasses.replace(task, evaluation=dataclasses.replace(task.evaluation, evals={}))
  assert not any(cadence.due(step, unscored).evaluate for step in due)


def test_a_run_without_a_step_is_an_error(tiny_config):
  with pytest.raises(ValueError, match=r"config\.total_epochs=0\.01: expected enough for a step"):
    pretrain_task.make(tiny_config(total_steps=0, total_epochs=0.01, warmup_epochs=0.0))


@pytest.mark.soak
def test_a_batch_with_a_non_finite_loss_stops_the_run_and_the_state_before_it_stays(tiny_config, tmp_path):
  """Only the batch of step 5 has a NaN loss. The loop checks the loss at steps 4, 8 and 12."""
  task = pretrain_task.make(tiny_config(total_steps=40, base_lr=3e-2, data__num_val=0))
  bad = task.train.batch(4)["index"]

  def loss(outputs, batch, *, key):
    total, metrics = task.loss(outputs, batch, key=key)
    # The records identify the batch, because a step does not see its own number.
    return jnp.where(jnp.all(batch["index"] == bad), jnp.nan, total), metrics

  quiet = dataclasses.replace(task.evaluation, figures=None)
  broken = dataclasses.replace(task, loss=loss, evaluation=quiet)
  cadence = loop.Cadence(log=12, save=4, evaluate=0, panel=0)
  with checkpoint.Checkpoints(tmp_path, keep_last=3) as kept, pytest.raises(NonFiniteLossError) as error:
    loop.run(broken, workdir=tmp_path, seed=0, mesh=sharding.make_mesh(), checkpoints=kept, cadence=cadence)
  message = str(error.value)
  assert message.startswith("step 5 gave a loss or gradient that is not finite: loss nan, ")
  assert all(name in message for name in task.train.names(bad))
  variables, description = checkpoint_file.read(tmp_path)
  assert description["step"] == 4
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))


def test_a_failed_start_records_no_configuration(tiny_config, tmp_path):
  with pytest.raises(ValueError, match=r"config\.optimizer\.kind"):
    runner.run(tiny_config(optimizer__kind="lion"), tmp_path)
  assert not (tmp_path / "config.json").exists()


@pytest.mark.soak
def test_mae_configuration_has_one_view_and_no_alignment(tiny_config, tmp_path):
  config = tiny_config(
    total_steps=2, views=1, align_weight=0.0, mask__ratio=0.75, mask__blocks=False, mask__parts=False
  )
  runner.run(config, tmp_path)
  row = read_metrics(tmp_path)[-1]
  assert "loss_align" not in row
  np.testing.assert_allclose(row["loss"], row["loss_rec"], rtol=1e-6)


@pytest.mark.soak
def test_an_interval_of_zero_turns_an_action_off(tiny_config, tmp_path):
  off = dict.fromkeys(("log_every", "save_every", "panel_every", "eval_every"), 0)
  lines = []
  assert runner.run(tiny_config(total_steps=2, **off), tmp_path, lines.append) == {}
  # Five facts and the line about the starting weights are always printed.
  assert len(lines) == 6
  assert not any(line.startswith("step ") for line in lines)
  assert (tmp_path / "metrics.jsonl").read_text() == ""
  assert checkpoint_file.find(tmp_path) is None
  assert not list((tmp_path / "panels").glob("*"))


def test_a_source_without_its_folder_is_an_error_that_names_the_key(tiny_config, tmp_path):
  for source in ("luperson", "coco_persons"):
    with pytest.raises(ValueError, match=r"config\.data\.root is empty.*make demo"):
      runner.run(tiny_config(data__source=source), tmp_path / source)


def test_cropping_in_the_step_equals_cropping_on_the_host(tiny_config):
  """Crop windows, joints and masks are equal. Pixels differ by at most one grey level."""
  host, device = (
    pretrain_task.make(tiny_config(data__augment=augment, data__canvas=(40, 24), data__num_val=0))
    for augment in ("host", "device")
  )
  assert device.train.batch(0)["image"].shape == (8, 40, 24, 3)
  ready, cropped = (
    jax.device_get(jax.jit(task.prepare)({}, task.train.batch(0), key=jax.random.key(0)))
    for task in (host, device)
  )
  assert ready.keys() == cropped.keys()
  images = ready.pop("image").astype(int), cropped.pop("image").astype(int)
  assert images[0].shape == (8, 32, 16, 3)
  assert np.abs(images[0] - images[1]).max() <= 1
  jax.tree.map(np.testing.assert_array_equal, ready, cropped)


def test_attention_of_another_machine_is_an_error(tiny_config, tmp_path):
  with pytest.raises(ValueError, match=r'config\.model\.attention="cudnn" .*float32.* on cpu'):
    runner.run(tiny_config(model__attention="cudnn"), tmp_path)

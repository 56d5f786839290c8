"""The 2D pose task on several data sets, without a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import finetune_pose2d_multi_b16, finetune_pose2d_multi_demo, finetune_reid_multi_demo
from hap_jax import config as config_lib
from hap_jax import config_parts
from hap_jax.data.skeletons import AIC14, COCO17, MPII16
from hap_jax.losses.heatmap import heatmap_loss
from hap_jax.pixels.heatmap_targets import make_heatmaps
from hap_jax.tasks import pose2d

LABELS, SIZE = ("coco", "aic", "mpii"), (32, 24)
FEW = {
  "data.num_val": 2,
  "data.synthetic.image_size": (32, 16),
  "data.synthetic.hold_in_memory": False,
  **{f"data.mixed.{label}.num_train": 16 for label in LABELS},
}


def config_of(file, changes):
  config = file.get_config()
  for key, value in changes.items():
    *parents, last = key.split(".")
    group = config
    for parent in parents:
      group = group[parent]
    with group.unlocked(), group.ignore_type():
      if value is None:
        del group[last]
      else:
        group[last] = value
  return config_lib.finalize(config)


@pytest.fixture(scope="module")
def batch():
  rng = np.random.default_rng(0)
  return {
    "keypoints_xy": rng.uniform(-3, 30, (6, 17, 2)).astype(np.float32),
    "keypoints_visible": rng.random((6, 17)) < 0.8,
    "is_udp": np.array([1, 0, 1, 1, 0, 1], bool),
    "dataset": np.array([0, 1, 2, 0, 1, 2], np.int32),
  }


def test_the_loss_is_the_sum_of_three_losses_with_the_weights_of_other_data_sets_set_to_zero(batch):
  rng = np.random.default_rng(1)
  outputs = tuple(jnp.asarray(rng.normal(0, 0.2, (6, 8, 6, 17)), jnp.float32) for _ in LABELS)
  loss = pose2d.make_loss(SIZE, 2.0, LABELS)
  (total, metrics), gradients = jax.value_and_grad(
    lambda outputs: loss(outputs, batch, key=None), has_aux=True
  )(outputs)
  target, weight = make_heatmaps(
    batch["keypoints_xy"],
    batch["keypoints_visible"].astype(np.float32),
    batch["is_udp"],
    image_size=SIZE,
    heatmap_size=(8, 6),
    sigma=2.0,
  )
  expected, counts = [], []
  for d, heatmaps in enumerate(outputs):
    own = np.where((batch["dataset"] == d)[:, None], weight, 0)
    one, gradient = jax.value_and_grad(heatmap_loss)(heatmaps, target, own)
    np.testing.assert_allclose(gradients[d], gradient, rtol=0, atol=1e-6 * np.abs(gradient).max())
    assert not np.any(gradients[d][batch["dataset"] != d])
    assert metrics[f"loss_{LABELS[d]}"] == (pytest.approx(float(one), rel=1e-6), 1)
    expected.append(float(one))
    counts.append(int((own > 0).any(axis=0).sum()))
  assert float(total) == pytest.approx(sum(expected), rel=1e-6)
  assert float(metrics["acc_pose"][1]) == sum(counts)
  alone = {name: values for name, values in batch.items() if name != "dataset"}
  single, _ = pose2d.make_loss(SIZE, 2.0)(outputs[:1], alone, key=None)
  assert float(single) == pytest.approx(float(heatmap_loss(outputs[0], target, weight)), rel=1e-6)


def test_every_data_set_has_its_joints_transforms_and_rules():
  config = config_of(finetune_pose2d_multi_demo, FEW)
  task = pose2d.make(config)
  parts = dict(task.train.source.parts)
  assert {label: source.spec.skeleton for label, source in parts.items()} == {
    "coco": COCO17,
    "aic": AIC14,
    "mpii": MPII16,
  }
  joints = [label for label in COCO17.joints if label not in AIC14.joints]
  assert len(joints) == 5  # of the face, which AIC does not have
  network = task.description.network
  assert (network["datasets"], network["num_joints"]) == (list(LABELS), [17, 17, 17])
  assert (network["codec"], network["fit_aspect"]) == (["udp", "msra", "udp"], [True, True, True])
  assert (task.description.encoder.num_experts, task.description.encoder.part_features) == (3, 32)
  for step in range(3):
    found = task.train.batch(step)
    np.testing.assert_array_equal(found["is_udp"], found["dataset"] != 1)
    assert not found["keypoints_visible"][found["dataset"] == 1][:, 12:].any()
    assert not found["keypoints_visible"][found["dataset"] == 2][:, [6, 7, 8, 9, 16]].any()
    assert (np.bincount(found["dataset"], minlength=3) > 0).sum() > 1
  aic = config_parts.parts_of(config)[1]
  assert (aic.label, aic.key, aic.seed, aic.data.codec) == ("aic", "data.mixed.aic", 2, "msra")


def test_shares_change_the_mixture_but_not_the_length_of_an_epoch():
  plain = pose2d.make(config_of(finetune_pose2d_multi_demo, FEW))
  shared = pose2d.make(config_of(finetune_pose2d_multi_demo, FEW | {"data.mixed.shares": (0.1, 0.1, 0.8)}))
  assert (shared.total_steps, shared.train.nominal_steps) == (plain.total_steps, plain.train.nominal_steps)
  dataset = np.concatenate([np.asarray(shared.train.sampler.indices(step)) // 16 for step in range(40)])
  assert np.mean(dataset == 2) == pytest.approx(0.8, abs=0.05)


def test_the_joint_recipe_has_the_settings_of_the_single_data_sets():
  config = config_lib.finalize(finetune_pose2d_multi_b16.get_config())
  for part in config_parts.parts_of(config):
    name = f"finetune_pose2d_{part.label}_b16"
    single = config_lib.finalize(config_lib.read_file(f"configs/{name}.py"))
    for setting in ("source", *pose2d.PER_DATA_SET):
      assert part.data[setting] == single.data[setting], (part.label, setting)
    assert part.data[part.data.source] == single.data[single.data.source]


A, B = "data.mixed.coco", "data.mixed.aic"


@pytest.mark.parametrize(
  ("changes", "match"),
  [
    ({"data.mixed.parts": ("coco", "coco")}, r"config\.data\.mixed\.parts=.*but coco is used twice"),
    ({"data.mixed.parts": ()}, r"config\.data\.mixed\.parts is empty"),
    ({"data.mixed.parts": ("coco", "a.b")}, r"config\.data\.mixed\.parts: 'a\.b' cannot be a label"),
    ({"data.mixed.parts": ("coco", "shares")}, r"'shares' cannot be a label; .* none of parts, shares"),
    ({"data.mixed.parts": ("coco", "cats")}, r"config\.data\.mixed\.cats\.source is missing"),
    ({f"{A}.source": None}, r"config\.data\.mixed\.coco\.source is missing: set it to the source"),
    ({f"{A}.source": "mixed"}, r"config\.data\.mixed\.coco\.source='mixed': expected .* a single data set"),
    ({f"{A}.root": None}, r"needs config\.data\.mixed\.coco\.root, which is missing"),
    ({f"{A}.seed": -1}, r"config\.data\.mixed\.coco\.seed=-1: expected at least 0"),
    ({f"{A}.codex": "udp"}, r"config\.data\.mixed\.coco\.codex: no such key; nearest: .*coco\.codec"),
    ({f"{A}.workers": 3}, r"config\.data\.mixed\.coco\.workers: no such key"),
    ({f"{A}.codec": "dark"}, r"config\.data\.mixed\.coco\.codec='dark': expected udp or msra"),
    (
      {f"{B}.fit_aspect": False},
      r"config\.data\.mixed\.aic\.fit_aspect=False: expected True for .*aic\.codec",
    ),
    (
      {"data.mixed.shares": (0.5, 0.5)},
      r"config\.data\.mixed\.shares=\(0\.5, 0\.5\).*3 numbers with the sum 1",
    ),
    ({"data.mixed.shares": (0.5, 0.5, 0.5)}, r"shares=.*with the sum 1\.5: expected \(\) or 3 numbers"),
    ({"data.mixed.shares": (0.5, 0.5, 0.0)}, r"config\.data\.mixed\.shares=.*above 0"),
    (
      {"data.root": "/data"},
      r"config\.data\.root='/data' has no effect .*config\.data\.mixed\.<label>\.root",
    ),
    ({"model.num_experts": 2}, r"config\.model\.num_experts=2: expected 1, or the number of data sets, 3"),
    ({"model.part_features": 128}, r"config\.model\.part_features=128: expected less than the width 128"),
  ],
)
def test_wrong_data_sets_are_errors_that_name_the_key(changes, match):
  with pytest.raises(ValueError, match=match):
    config_of(finetune_pose2d_multi_demo, changes)


def test_a_task_of_one_data_set_and_shares_of_persons_are_refused():
  config = config_lib.read_file("configs/finetune_attributes_demo.py")
  config.data.source = "mixed"
  with pytest.raises(
    ValueError, match=r"data\.source='mixed': the task attributes needs a source of a single"
  ):
    config_lib.finalize(config)
  with pytest.raises(
    ValueError, match=r"config\.data\.mixed\.shares=\(0\.5, 0\.5\): expected \(\): a batch has"
  ):
    config_of(finetune_reid_multi_demo, {"data.mixed.shares": (0.5, 0.5)})


def test_errors_of_a_source_name_the_keys_of_its_data_set(tmp_path):
  config = config_of(finetune_pose2d_multi_b16, {})
  with pytest.raises(
    ValueError, match=r"^config\.data\.mixed\.coco\.root is empty: .*--config\.data\.mixed\.coco\.root"
  ):
    pose2d.make(config)
  (tmp_path / "annotations").mkdir()
  config = config_of(finetune_pose2d_multi_b16, {"data.mixed.coco.root": str(tmp_path)})
  with pytest.raises(
    ValueError, match=r"train2017: no such folder.*\(config\.data\.mixed\.coco\.train_images\)"
  ):
    pose2d.make(config)


def test_a_resumed_run_may_have_its_data_elsewhere(tmp_path):
  config = config_of(finetune_pose2d_multi_b16, {})
  config_lib.record(config, tmp_path)
  moved = {"data.mixed.coco.root": "/new", "data.coco_pose.detections": "boxes.json"}
  config_lib.check_same(config_of(finetune_pose2d_multi_b16, moved), tmp_path)
  with pytest.raises(ValueError, match=r"config\.data\.mixed\.aic\.codec was 'msra', now 'udp'"):
    config_lib.check_same(config_of(finetune_pose2d_multi_b16, {"data.mixed.aic.codec": "udp"}), tmp_path)

"""The task 3D pose: values that work together, its start, its gradients, and the bodies that it needs."""

import dataclasses
import types

import cv2
import flax.traverse_util
import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from configs import finetune_pose3d_direct_b16, finetune_pose3d_direct_demo
from hap_jax import config as config_lib
from hap_jax import config_sources
from hap_jax.data import body_model
from hap_jax.data.sources import folder
from hap_jax.evaluation import body_scores
from hap_jax.losses import body as losses
from hap_jax.models import body_regressor, crop_camera, smpl, vit
from hap_jax.tasks import base, pose3d
from hap_jax.train import initial_body, optim, start_pose, step
from hap_jax.train import state as train_state
from tests import bodies

SMALL = {
  "batch_size": 4,
  "eval_batch_size": 4,
  "model.image_size": (32, 32),
  "model.hidden": 16,
  "model.remat": "none",
  "data.num_val": 8,
  "data.synthetic.num_train": 8,
  "data.synthetic.image_size": (64, 32),
}


def tiny(**overrides):
  config = finetune_pose3d_direct_demo.get_config()
  config.update_from_flattened_dict(SMALL | overrides)
  return config_lib.finalize(config)


@pytest.fixture(scope="module")
def task():
  with pytest.MonkeyPatch.context() as patched:
    patched.setitem(vit.VARIANTS, "Mu", vit.Variant(32, 2, 2))
    yield pose3d.make(tiny())


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("model.image_size", (64, 32), r"model\.image_size=\(64, 32\): expected a square"),
    ("model.patch_padding", 8, r"model\.patch_padding=8.*half of model\.patch=16"),
    ("loss.betas", -1.0, r"config\.loss\.betas=-1\.0: expected"),
    ("data.scale_jitter", 1.0, r"config\.data\.scale_jitter=1\.0: expected"),
  ],
)
def test_values_that_do_not_work_are_errors(key, value, message):
  config = finetune_pose3d_direct_b16.get_config()
  config.update_from_flattened_dict({key: value})
  with pytest.raises(ValueError, match=message):
    config_lib.finalize(config)


def test_the_network_starts_at_the_mean_person_who_faces_the_camera(task):
  params = jax.eval_shape(task.init, jax.random.key(0))["params"]
  assert params.keys() == {"encoder", "body_head"}
  network = pose3d.network(task.description)
  images = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
  variables = jax.jit(network.init)(jax.random.key(0), images)
  found = jax.tree.map(np.asarray, jax.jit(network.apply)(variables, images))
  np.testing.assert_allclose(found.rotations[0, 0], np.diag((1.0, -1.0, -1.0)), atol=1e-5)
  np.testing.assert_array_equal(found.rotations[0], found.rotations[2])
  source = config_sources.open_source(tiny(), "train")
  records = [source[i] for i in range(len(source))]
  poses = np.array([record["smpl_pose"].reshape(24, 3) for record in records], np.float64)
  knees = Rotation.from_rotvec(poses[:, 4]).as_matrix().mean(axis=0)
  # The projection to a rotation does not change the direction in which the mean of the knee bends.
  left, _, right = np.linalg.svd(knees)
  np.testing.assert_allclose(found.rotations[0, 4], left @ right, atol=1e-5)
  np.testing.assert_allclose(found.betas[0], np.mean([r["smpl_betas"] for r in records], axis=0), atol=1e-5)


def test_the_camera_of_a_crop_shows_a_point_at_its_place_and_in_its_size():
  intrinsics = np.array(((900.0, 0, 320), (0, 900, 240), (0, 0, 1)))
  crop = np.array(((0.3, 0.1, -20), (-0.1, 0.3, 15)))
  pelvis = np.array((0.4, -0.2, 4.0))
  camera = start_pose.camera_of(pelvis, intrinsics, crop, (128, 128))
  place = np.asarray(crop_camera.camera_translation(camera.astype(np.float32)))
  pixel = crop @ (*(intrinsics[:2, :2] @ (pelvis[:2] / pelvis[2]) + intrinsics[:2, 2]), 1)
  np.testing.assert_allclose(np.asarray(crop_camera.project(place)) / 2, pixel, atol=1e-3)
  metre = crop[:, :2] @ (900 / 4.0, 0)  # a metre to the right, in pixels of the image
  assert 5000 / place[2] / 2 == pytest.approx(np.linalg.norm(metre), rel=1e-4)


def test_every_parameter_has_a_rule_and_a_gradient_from_the_second_step_on(task):
  variables = jax.jit(task.init)(jax.random.key(0))
  batch = task.train.batch(0)
  assert optim.match_rules(variables["params"], task.param_rules)

  @jax.jit
  def gradients(params, constants, batch):
    state = train_state.TrainState(step=np.int32(0), params=params, model_state={}, opt_state=(), ema=None)
    return step.loss_and_grads(task, state, constants, batch, jax.random.key(1))[1]

  first = gradients(variables["params"], task.constants, batch)
  moved = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], first)
  second = flax.traverse_util.flatten_dict(gradients(moved, task.constants, batch), sep="/")
  flat = flax.traverse_util.flatten_dict(first, sep="/")
  assert {name for name, value in flat.items() if np.any(value)} == {
    "body_head/output/kernel",
    "body_head/output/bias",
  }
  assert not [name for name, value in second.items() if not np.any(value)]


def test_each_person_of_the_truth_has_the_body_of_their_gender():
  genders = ("neutral", "male", "female")
  true_bodies = bodies.random_set(seed=3, genders=genders)
  constants = body_scores.constants_of(bodies.random_set(seed=9), true_bodies)
  rng = np.random.default_rng(0)
  batch = {
    "smpl_pose": rng.normal(0, 0.5, (5, 72)).astype(np.float32),
    "smpl_betas": rng.normal(size=(5, 10)).astype(np.float32),
    "gender": np.array([1, 0, 2, 2, 1], np.int32),
  }
  origin = np.zeros((5, 3), np.float32)
  found = jax.jit(body_scores._pose_true)(constants["true_bodies"], batch, origin)
  pose = jax.jit(smpl.pose_body)
  for number, gender in enumerate(genders):
    person = smpl.body_arrays(true_bodies, gender)
    rows = batch["gender"] == number
    vertices, _ = pose(person, batch["smpl_pose"], batch["smpl_betas"], origin)
    np.testing.assert_allclose(found[rows], vertices[rows], atol=1e-6)


def test_people_whose_body_is_missing_stop_the_evaluation():
  """The official evaluation has no such case. The neutral body would give other scores."""
  columns = {"gender": np.array([1, 1, 2], np.int32)}
  source = types.SimpleNamespace(spec=types.SimpleNamespace(fields=("gender",)), columns=columns)
  with pytest.raises(ValueError, match=r"no female model, only neutral, male.*`hap body --female=FILE`"):
    pose3d.check_genders(source, bodies.random_set(genders=("neutral", "male")))
  pose3d.check_genders(source, bodies.random_set(genders=("neutral", "male", "female")))
  pose3d.check_genders(source, bodies.random_set(one_for_all=True))


def test_people_without_a_fit_have_no_loss():
  parameters = body_regressor.BodyParameters(np.eye(3)[None, None].repeat(4, 0), np.ones((4, 10)), None)
  outputs = pose3d.Outputs(parameters, np.ones((4, 30, 3)), np.ones((4, 30, 2)))
  batch = {
    "joints_2d": np.zeros((4, 30, 2)),
    "joints_3d": np.zeros((4, 30, 3)),
    "is_inside": np.ones((4, 30), bool),
    "rotations": np.eye(3)[None, None].repeat(4, 0),
    "betas": np.zeros((4, 10)),
    "has_fit": np.array([True, False, False, True]),
  }
  loss = pose3d.make_loss({"joints_2d": 1.0, "joints_3d": 2.0, "rotations": 1.0, "betas": 4.0})
  value, metrics = loss(outputs, batch, key=None)
  assert float(value) == pytest.approx(1 + 2 + 4)
  assert [float(x) for x in metrics["loss_betas"]] == [2.0, 2.0]
  nobody, metrics = loss(outputs, batch | {"has_fit": np.zeros(4, bool)}, key=None)
  assert float(nobody) == 0
  assert float(metrics["loss_betas"][1]) == 0


def test_an_infinite_error_of_a_joint_outside_the_image_does_not_count():
  pred = np.array([[[1.0, 2.0], [np.inf, 0.0]]], np.float32)
  found = losses.joint_error(pred, np.zeros_like(pred), np.array([[1.0, 0.0]], np.float32))
  assert float(found[0]) == pytest.approx(3 / 4)


def test_only_a_run_that_keeps_the_head_of_its_weights_keeps_their_start(task):
  given = [float(k) for k in range(body_regressor.NUM_VALUES)]
  network = {**task.description.network, "start": given}
  description = dataclasses.replace(task.description, network=network)
  assert pose3d.make(tiny(), base.Start((), description)).description.network["start"] == given
  others = (
    dataclasses.replace(description, task="pose2d"),
    dataclasses.replace(description, network={**network, "hidden": 32}),
    dataclasses.replace(description, classes={"body": ["SMPL"]}),
    dataclasses.replace(description, classes={}),
  )
  for other in others:
    assert pose3d.start_of_head(other, "pose3d", 16, "synthetic") is None
  assert pose3d.start_of_head(None, "pose3d", 16, "synthetic") is None
  damaged = dataclasses.replace(description, network={**network, "start": None})
  with pytest.raises(ValueError, match="start of the network in the description is None"):
    pose3d.start_of_head(damaged, "pose3d", 16, "synthetic")


def test_a_source_without_a_body_needs_a_folder():
  with pytest.raises(ValueError, match=r"config\.body.*hap body"):
    initial_body.choose("pw3d", "")
  with pytest.raises(ValueError, match=r"config\.data\.eval_body.*hap body"):
    initial_body.choose("synthetic", "", eval_source="pw3d")


def test_a_source_without_parameters_of_a_body_is_an_error(tmp_path):
  assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
  source = folder.open_source(root=tmp_path)
  with pytest.raises(ValueError, match=r"source='folder' has no smpl_pose"):
    pose3d.check_source(source, "folder")


@pytest.mark.parametrize(
  "config", [None, {"body": 5, "data": {"source": "synthetic"}}, {"data": 5}, {"data": {"source": ["a"]}}]
)
def test_a_damaged_configuration_of_a_checkpoint_has_no_body(task, config):
  description = dataclasses.replace(task.description, config=config)
  if config and config.get("body"):
    assert initial_body.of_checkpoint(description).name == "synthetic"
  else:
    with pytest.raises(ValueError, match=r"^--body is empty.*set --body to the new folder"):
      initial_body.of_checkpoint(description)


def test_a_folder_that_moved_is_named_with_the_option_that_replaces_it(task, tmp_path):
  description = dataclasses.replace(task.description, config={"body": str(tmp_path / "moved")})
  with pytest.raises(ValueError, match=r"moved: no such folder.*set --body to the new folder"):
    initial_body.of_checkpoint(description)
  with pytest.raises(ValueError, match=r"moved: no such folder.*set config\.data\.eval_body to the new"):
    initial_body.choose("synthetic", "", eval_source="pw3d", eval_folder=str(tmp_path / "moved"))


def test_the_truth_of_drawn_people_has_their_own_body(tmp_path):
  body_model.write_body_set(tmp_path / "other", bodies.random_set())
  for keys in ({"eval_source": "synthetic"}, {}):
    with pytest.raises(ValueError, match=r"eval_body=.*other: the records of synthetic .*another body"):
      initial_body.choose("synthetic", "", eval_folder=str(tmp_path / "other"), **keys)
  assert initial_body.choose("synthetic", "", eval_source="pw3d", eval_folder=str(tmp_path / "other"))


def test_people_without_a_fit_do_not_count_in_the_start():
  body = bodies.random_body()
  crop = np.eye(2, 3, dtype=np.float32)
  camera = np.array(((100.0, 0, 16), (0, 100, 16), (0, 0, 1)), np.float32)
  one = {"smpl_pose": np.zeros(72, np.float32), "smpl_betas": np.ones(10, np.float32)}
  one |= {"smpl_translation": np.array((0, 0, 9), np.float32), "intrinsics": camera, "crop_matrix": crop}
  nobody = {**one, "smpl_betas": np.zeros(10, np.float32), "smpl_translation": np.zeros(3, np.float32)}
  found = start_pose.of_records([one | {"has_fit": True}, nobody | {"has_fit": False}], body, (32, 32))
  assert found == start_pose.of_records([one], body, (32, 32))
  with pytest.raises(ValueError, match="no picture with parameters"):
    start_pose.of_records([nobody | {"has_fit": False}], body, (32, 32))

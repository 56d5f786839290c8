"""MoveNet as a model of `hap extract_poses`: the place of the joints, the mirrored pass, and the command."""

import jax
import numpy as np
import pytest

from hap_jax.cli.__main__ import main as hap
from hap_jax.convert import run
from hap_jax.data import pose_parts
from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources import synthetic
from hap_jax.inference import pose_models
from hap_jax.metrics import oks
from hap_jax.models import movenet
from tests.cli.test_predict_pose2d import pixels, write
from tests.convert.reference_state import GRID
from tests.convert.test_joint_pose import joint_state
from tests.io import torch_bytes
from tests.models import tfjs_files

SIDE = 16


@pytest.fixture(scope="module")
def single(tmp_path_factory):
  return tfjs_files.write_single(tmp_path_factory.mktemp("movenet") / "movenet.json", SIDE)


def test_the_joints_are_moved_from_the_square_to_the_picture(single):
  model = pose_models.load(single, padding=1.5, flip_test=False)
  record = {"image": pixels(), "box": np.float32((4, 10, 24, 50))}
  for transform in model.view:
    record = transform(record, None)
  np.testing.assert_allclose(record["region"], (14, 30, 60, 60))
  batch = {name: record[name][None] for name in model.fields}
  found = jax.jit(model.predict)(model.variables, batch)
  graph = movenet.read(single)
  share, score = movenet.find_joints(graph, model.variables, batch["image"])
  expected = np.array((14, 30)) + (np.asarray(share) - 0.5) * 60
  np.testing.assert_allclose(found["keypoints_xy"], expected, rtol=1e-5)
  np.testing.assert_allclose(found["score"], score, rtol=1e-5)


def test_the_mirrored_pass_makes_the_joints_symmetric(single):
  model = pose_models.load(single, flip_test=True)
  image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
  region = np.float32([[SIDE / 2, SIDE / 2, SIDE, SIDE]] * 2)
  found = jax.jit(model.predict)(
    model.variables, {"image": np.stack([image, image[:, ::-1]]), "region": region}
  )
  xy, score = np.asarray(found["keypoints_xy"]), np.asarray(found["score"])
  order = np.arange(17)
  for left, right in COCO17.flip_pairs:
    order[[left, right]] = right, left
  np.testing.assert_allclose(xy[0, order, 0], SIDE - 1 - xy[1, :, 0], atol=1e-4)
  np.testing.assert_allclose(xy[0, order, 1], xy[1, :, 1], atol=1e-4)
  np.testing.assert_allclose(score[0, order], score[1], atol=1e-6)


def test_the_command_takes_a_folder_with_movenet_and_records_its_licence(single, tmp_path):
  write(tmp_path / "pictures" / "a.png", pixels())
  words = ["extract_poses", str(single.parent), str(tmp_path / "pictures"), f"--out={tmp_path / 'poses'}"]
  assert hap([*words, "--batch_size=8"]) == 0
  poses = pose_parts.open_poses(tmp_path / "poses", "")
  assert poses.summary["family"] == "movenet"
  assert poses.summary["licence"] == movenet.LICENCE
  assert poses.summary["lineage"] == [f"a test: {movenet.LICENCE}"]
  assert poses.keypoints(0).shape == (17, 3)


def test_a_model_for_several_people_is_one_line(tmp_path):
  path = tfjs_files.write_multi(tmp_path / "multi.json", np.zeros((6, 56)))
  with pytest.raises(ValueError, match=f"{path}: it finds several people .* use this model with hap crop"):
    pose_models.load(path)


def test_a_checkpoint_of_several_data_sets_uses_one_of_them(tmp_path):
  path = tmp_path / "joint.pth"
  path.write_bytes(torch_bytes.zip_file({"state_dict": joint_state()}))
  run.convert(path, tmp_path / "own", source_grid=GRID, heads=(2, None), real=False)
  first, chosen = (pose_models.load(tmp_path / "own", data_set=label) for label in ("", "coco"))
  assert first.facts == chosen.facts
  with pytest.raises(ValueError, match="it finds the 16 joints of mpii16, without nose"):
    pose_models.load(tmp_path / "own", data_set="mpii")
  with pytest.raises(ValueError, match="dogs"):
    pose_models.load(tmp_path / "own", data_set="dogs")


def test_thunder_finds_the_joints_of_drawn_people(movenet_weights):
  """The mean OKS was 0.84 for 64 people. Eight people are enough to see a wrong order or place of joints."""
  model = pose_models.load(movenet_weights / "movenet-thunder.json", flip_test=False)
  source = synthetic.open_source(split="val", num_train=8, num_val=8, image_size=(256, 128))
  records = [source[i] for i in range(8)]
  batch = []
  for record in records:
    seen = {"image": record["image"], "box": np.float32((0, 0, 128, 256))}
    for transform in model.view:
      seen = transform(seen, None)
    batch.append({name: seen[name] for name in model.fields})
  batch = {name: np.stack([row[name] for row in batch]) for name in model.fields}
  found = np.asarray(jax.jit(model.predict)(model.variables, batch)["keypoints_xy"])
  similarity = [
    oks.compare_with_person(
      xy[None],
      np.concatenate([record["keypoints_xy"], record["keypoints_visible"][:, None]], axis=1),
      record["box"],
      record["area"],
      COCO17.sigmas,
    )[0]
    for xy, record in zip(found, records, strict=True)
  ]
  assert np.mean(similarity) > 0.7

"""Pre-training with masks of body parts on pictures whose joints were found by a model, also when packed."""

import jax
import numpy as np
import pytest
from PIL import Image

from hap_jax import config_sources
from hap_jax.cli.__main__ import main as hap
from hap_jax.tasks import pretrain
from tests.data import test_posed_folder as posed_files

pytestmark = pytest.mark.usefixtures("small_model")

NUM, NUM_VAL = 20, 4
SIDEWAYS = 6  # the orientation in an EXIF header: a viewer turns the stored pixels clockwise


@pytest.fixture(scope="module")
def people(tmp_path_factory):
  """Returns (folder of pictures, folder of poses). Every third picture is stored on its side."""
  root = tmp_path_factory.mktemp("people")
  names, exif = [f"{i:02d}.jpg" for i in range(NUM)], Image.Exif()
  (root / "pictures").mkdir()
  for i, name in enumerate(names):
    exif[0x0112] = 1 if i % 3 else SIDEWAYS
    pixels = np.random.default_rng(i).integers(0, 256, (40, 20, 3), np.uint8)
    Image.fromarray(pixels if i % 3 else np.rot90(pixels)).save(root / "pictures" / name, exif=exif)
  posed_files.write_poses(root / "poses", names, (NUM,), size=(40, 20), exif="apply", licence="CC BY 4.0")
  return root / "pictures", root / "poses"


def of_people(tiny_config, source, root, **changes):
  given = {"data__source": source, "data__root": str(root), "data__num_val": NUM_VAL, "total_steps": 2}
  return tiny_config(**given | changes)


def test_packed_people_are_the_same_records(people, tiny_config, tmp_path):
  pictures, poses = people
  words = ["prepare", "posed_folder", f"--root={pictures}", f"--set=poses={poses}"]
  assert hap([*words, f"--out={tmp_path / 'packed'}"]) == 0
  of_files = of_people(tiny_config, "posed_folder", pictures, data__posed_folder__poses=str(poses))
  packed = of_people(tiny_config, "tfds", tmp_path / "packed")
  for split in ("train", "val"):
    one, other = (config_sources.open_source(config, split) for config in (of_files, packed))
    assert len(one) == len(other) == (NUM - NUM_VAL if split == "train" else NUM_VAL)
    for i in range(len(one)):
      assert one[i]["image"].shape == (40, 20, 3)
      found = dict(other[i])
      jax.tree.map(np.testing.assert_array_equal, one[i], found)


def test_pre_training_uses_the_found_joints(people, tiny_config):
  """A whole run from a real video is in tests/soak/test_real_video.py."""
  pictures, poses = people
  config = of_people(tiny_config, "posed_folder", pictures, data__posed_folder__poses=str(poses))
  task = pretrain.make(config)
  assert task.description.data["licence"] == "pictures: not known; joints: CC BY 4.0"
  assert task.description.data["records"] == NUM - NUM_VAL
  batch, source = task.train.batch(0), config_sources.open_source(config, "train")
  for index, visible in zip(batch["index"], batch["keypoints_visible"], strict=True):
    # The crop of the loader may only hide further joints.
    assert (visible <= source[int(index)]["keypoints_visible"]).all()
  assert batch["keypoints_visible"].any()

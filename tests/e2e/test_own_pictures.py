"""Pre-training without joints on pictures of any source, such as a folder of one's own."""

import pickle
import shutil

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

from hap_jax import run as runner
from hap_jax.cli.__main__ import main as hap
from hap_jax.data import rows
from hap_jax.io import checkpoint_file
from hap_jax.tasks import base, pretrain
from tests import damage
from tests.data import test_attribute_sources as attribute_files

pytestmark = pytest.mark.usefixtures("small_model")

PLAIN = {"mask__parts": False, "mask__blocks": False, "views": 1, "align_weight": 0.0, "learned_ratio": 0.0}
NUM_VAL = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Returns a folder of 54 pictures of many kinds, sizes and names."""
  root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
  rotated = Image.Exif()
  for number in range(54):
    H, W = int(rng.integers(1, 90)), int(rng.integers(1, 60))
    pixels = rng.integers(0, 255, (H, W, 4), dtype=np.uint8)
    sub = root / ("", "zwei Wörter", "上海", "deep/er")[number % 4]
    sub.mkdir(parents=True, exist_ok=True)
    kind = number % 6
    if kind == 0:
      rotated[0x0112] = 1 + number // 6 % 8
      Image.fromarray(pixels[..., :3]).save(sub / f"{number} rotated.jpg", exif=rotated)
    elif kind == 1:
      Image.fromarray(pixels).save(sub / f"alpha-{number}.png")
    elif kind == 2:
      Image.fromarray(pixels[..., 0]).save(sub / f"grey {number}.JPG")
    elif kind == 3:
      encoded = cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1]
      (sub / f"sixteen bits {number}.png").write_bytes(encoded)
    elif kind == 4:
      Image.fromarray(pixels[..., :3]).save(sub / f"ü{number}.webp")
    else:
      Image.fromarray(pixels[..., :3]).save(sub / f"{number}.bmp")
  return root


def of_folder(tiny_config, root, **changes):
  given = {"data__source": "folder", "data__root": str(root), "data__num_val": NUM_VAL, "total_steps": 2}
  return tiny_config(**PLAIN | given | changes)


def test_a_folder_of_odd_pictures_trains_resumes_and_is_embedded(folder, tiny_config, tmp_path):
  config = of_folder(tiny_config, folder, save_every=1, eval_every=2)
  whole, pieced, lines = tmp_path / "whole", tmp_path / "pieced", []
  scores = runner.run(config, whole, say=lines.append)
  assert f"ratio {scores['val_ratio']:.3f} (below 1: better than the position mean)" in lines[-1]
  assert not any("learned" in line for line in lines)
  assert cv2.imread(str(whole / "panels" / "reconstruction_00000002.png")) is not None
  _, description = checkpoint_file.read(whole)
  assert description["data"]["records"] == 54 - NUM_VAL
  assert "skeleton" not in description

  shutil.copytree(whole, pieced)
  damage.halve(damage.largest(pieced / "checkpoints" / "2"))
  assert runner.run(config, pieced, say=lines.append) == scores
  assert "resuming at step 1" in lines
  assert any("2 is damaged: state/" in line and "bytes, expected" in line for line in lines)
  weights = [checkpoint_file.read(workdir)[0] for workdir in (whole, pieced)]
  jax.tree.map(np.testing.assert_array_equal, *weights)

  out = tmp_path / "vectors.npz"
  assert hap(["embed", str(whole), str(folder), f"--out={out}", "--workers=0"]) == 0
  with np.load(out) as vectors:
    assert {len(vectors[name]) for name in vectors.files if vectors[name].ndim} == {54}


def test_every_source_without_held_out_records_holds_out_its_last_ones(folder, tiny_config, tmp_path):
  attribute_files.write_pa100k(tmp_path)
  for source, root in (("folder", folder), ("pa100k", tmp_path)):
    config = of_folder(tiny_config, root, data__source=source, data__num_val=1)
    train, val = (base.open_pictures(config, split) for split in ("train", "val"))
    assert isinstance(train, rows.Rows)
    assert len(val) == 1
    whole = train.source
    names = [whole.name(i) for i in range(len(whole))]
    assert [part.name(i) for part in (train, val) for i in range(len(part))] == names
    assert [part.file(i) for part in (train, val) for i in range(len(part))] == [
      whole.file(i) for i in range(len(whole))
    ]
    np.testing.assert_array_equal(val[0]["image"], whole[len(whole) - 1]["image"])
    for part in (train, pickle.loads(pickle.dumps(val))):
      for field, column in part.columns.items():
        np.testing.assert_array_equal(column, whole.columns[field][part.start : part.stop])


def test_part_masks_on_pictures_without_joints_name_the_key_and_the_sources_with_joints(folder, tiny_config):
  config = of_folder(tiny_config, folder, mask__parts=True)
  message = (
    r"mask\.parts=True needs joints, and folder has none: set config\.mask\.parts=False, or use .*luperson"
  )
  with pytest.raises(ValueError, match=message):
    pretrain.make(config)


@pytest.mark.parametrize("num_val", [54, 55])
def test_holding_out_all_pictures_is_an_error(folder, tiny_config, num_val):
  with pytest.raises(ValueError, match=rf"config\.data\.num_val={num_val}"):
    pretrain.make(of_folder(tiny_config, folder, data__num_val=num_val))


def test_a_packed_folder_trains_as_the_folder(folder, tiny_config, tmp_path):
  assert hap(["prepare", "folder", f"--root={folder}", f"--out={tmp_path / 'packed'}"]) == 0
  of_files = of_folder(tiny_config, folder)
  packed = of_folder(tiny_config, tmp_path / "packed", data__source="tfds")
  for split in ("train", "val"):
    sources = [base.open_pictures(config, split) for config in (of_files, packed)]
    assert len(sources[0]) == len(sources[1])
    for i in (0, len(sources[0]) - 1):
      np.testing.assert_array_equal(*(source[i]["image"] for source in sources))
  assert pretrain.make(packed).description.data["records"] == 54 - NUM_VAL

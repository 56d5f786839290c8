"""`hap extract_poses` and `hap crop` end with the same files after two kills and in two shards."""

import numpy as np
import pytest

from hap_jax.data.skeletons import COCO17
from tests.cli.test_predict_pose2d import describe, pixels, save, write
from tests.io import video_files
from tests.models import tfjs_files
from tests.soak import killed_parts

ROWS = 8


@pytest.mark.soak
@pytest.mark.parametrize("layout", ["poses", "luperson"])
def test_extract_poses_survives_kills(tmp_path, layout):
  for i in range(60):
    write(tmp_path / "pictures" / f"{i:02d}.png", pixels(i))
  checkpoint = save(tmp_path / "own", describe(COCO17))
  words = ["extract_poses", checkpoint, tmp_path / "pictures", "--batch_size=4", f"--format={layout}"]
  killed_parts.check_kills(ROWS, words, tmp_path / "killed", tmp_path / "whole")


@pytest.mark.soak
def test_crop_survives_kills(tmp_path):
  people = np.random.default_rng(0).random((6, 56)).astype(np.float32)
  people[:, 51:55] = (0.1, 0.1, 0.7, 0.6)
  model = tfjs_files.write_multi(tmp_path / "multi.json", people)
  clip = video_files.write(tmp_path / "clip.avi", 100)
  words = ["crop", clip, f"--model={model}", "--every=2", "--side=64", "--batch_size=4", "--threshold=0"]
  killed_parts.check_kills(ROWS, words, tmp_path / "killed", tmp_path / "whole")

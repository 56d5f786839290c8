"""The benchmark of found joints compares them with the true joints."""

import json

import numpy as np

from benchmarks import found_joints
from hap_jax.data.sources import synthetic
from tests.models import tfjs_files


def test_true_joints_agree_with_themselves():
  source = synthetic.open_source(split="val", seed=1, num_val=8, image_size=(256, 128))
  records = [source[i] for i in range(8)]
  fields = ("keypoints_xy", "keypoints_visible", "box", "area")
  truth = {name: np.stack([record[name] for record in records]) for name in fields}
  # A joint that is not visible does not count, wherever it is.
  xy = np.where(truth["keypoints_visible"][..., None], truth["keypoints_xy"], -1000)
  found = found_joints.compare(xy, truth)
  for name in ("pck", "oks", "part_iou", "same_hidden"):
    assert found[name] == 1
  assert found["part_share"] == found["part_share_true"] > 0
  wrong = found_joints.compare(xy + 60, truth)
  assert wrong["pck"] < 0.5
  assert wrong["part_iou"] < 0.5
  assert wrong["same_hidden"] < 1


def test_benchmark_prints_a_line_for_whole_pictures_and_true_boxes(tmp_path, capsys):
  model = tfjs_files.write_single(tmp_path / "single.json")
  found_joints.main([f"--model={model}", "--people=8", "--no_flip"])
  lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert [line["boxes"] for line in lines] == ["whole picture", "true box"]
  assert all(0 <= line[name] <= 1 for line in lines for name in ("pck", "oks", "part_iou", "same_hidden"))

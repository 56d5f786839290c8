"""The benchmark of the input: the times of its parts add up to the total time."""

import json

import pytest

from benchmarks import input_speed


@pytest.mark.parametrize("augment", ["host", "device"])
def test_benchmark_prints_one_line_whose_parts_add_up(augment, capsys):
  words = ["--images=4", "--picture=60x24", "--size=32x16", "--batch=2", "--steps=2", "--rounds=1"]
  input_speed.main([*words, f"--augment={augment}", "--canvas=64x32"])
  (line,) = capsys.readouterr().out.splitlines()
  printed = json.loads(line)
  assert printed["bench"] == "input_speed"
  assert printed["augment"] == augment
  assert printed["jpeg_kilobytes"] > 0
  assert sum(printed["microseconds"].values()) == pytest.approx(1e6 / printed["images_per_cpu_s"], rel=0.02)
  assert printed["images_per_cpu_s_decode_only"] > printed["images_per_cpu_s"]

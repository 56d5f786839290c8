"""The benchmark of `hap extract_poses` prints speed and waiting share."""

import json

from benchmarks import pose_extraction


def test_benchmark_prints_the_share_of_waiting(capsys):
  pose_extraction.main(["--images=2", "--copies=4", "--picture=60x24", "--batch=8", "--no_flip"])
  (line,) = capsys.readouterr().out.splitlines()
  printed = json.loads(line)
  assert printed["bench"] == "pose_extraction"
  assert printed["pictures"] == 8
  assert 0 <= printed["waiting_share"] < 1
  assert printed["pictures_per_second"] > 0

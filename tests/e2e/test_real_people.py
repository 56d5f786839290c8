"""Pre-training on pictures and annotations of a real data set. The tests are skipped if it is missing."""

import os
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from hap_jax import run as runner
from hap_jax.data.sources import coco_persons
from hap_jax.io import checkpoint_file
from hap_jax.train.report import read_metrics
from tests.data import luperson_files

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def coco(samples):
  return {"data.source": "coco_persons", "data.root": str(samples / "pose2d" / "coco")}


@pytest.mark.soak
def test_full_size_model_trains_on_coco_people(coco, tmp_path):
  overrides = {
    **coco,
    "data.coco_persons.annotations": "test_coco.json",
    "data.num_val": 0,
    "data.workers": 0,
    "batch_size": 4,
    "eval_batch_size": 4,
    "total_steps": 2,
    "base_lr": 1e-3,
    "log_every": 1,
    "panel_rows": 4,
  }
  flags = [f"--config.{key}={value}" for key, value in overrides.items()]
  # Eight simulated devices would each hold a copy of parameters and moments, too much for a small machine.
  env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
  command = [
    sys.executable,
    "-m",
    "hap_jax.main",
    "--config=configs/pretrain_b16.py",
    f"--workdir={tmp_path}",
  ]
  result = subprocess.run(
    [*command, *flags], cwd=ROOT, env=env, capture_output=True, text=True, timeout=560, check=False
  )
  assert result.returncode == 0, result.stdout + result.stderr
  rows = read_metrics(tmp_path / "metrics.jsonl")
  assert [row["step"] for row in rows] == [1, 2]
  assert all(np.isfinite(row["loss"]) for row in rows)
  assert cv2.imread(str(tmp_path / "panels" / "reconstruction_00000002.png")) is not None
  _, description = checkpoint_file.read(tmp_path)
  assert description["model"]["grid"] == [16, 8]
  assert description["model"]["width"] == 768


@pytest.mark.soak
def test_coco_people_train_as_released_and_from_the_luperson_layout(coco, tiny_config, tmp_path):
  people = coco_persons.open_source(
    root=coco["data.root"], split="train", seed=0, annotations="test_coco.json"
  )
  count = luperson_files.write(tmp_path / "data", (people[i] for i in range(len(people))))
  assert count == len(people) >= 8
  luperson_layout = {
    "data.source": "luperson",
    "data.root": str(tmp_path / "data"),
    "data.luperson.subset": "all",
  }
  for data in ({**coco, "data.coco_persons.annotations": "test_coco.json"}, luperson_layout):
    workdir = tmp_path / data["data.source"]
    runner.run(tiny_config(**data, data__num_val=0, total_steps=2), workdir)
    rows = read_metrics(workdir)
    assert [row["step"] for row in rows] == [1, 2]
    assert all(np.isfinite(row["loss"]) for row in rows)

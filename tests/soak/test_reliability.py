"""Runs that are killed at random moments and in their saves, and whose checkpoints are damaged.

`pytest -m soak tests/soak/test_reliability.py -s --kills=N` sets the number of kills.
"""

import json
import sys
import time

import numpy as np
import pytest

from tests import kills, programs

ALL = 140  # kills: 100 at random moments, and 40 that are aimed into a save or its check
PRETRAIN = (
  "pretrain_demo",
  {
    "total_steps": 24,
    "batch_size": 8,
    "log_every": 1,
    "save_every": 3,
    "eval_every": 24,
    "panel_every": 0,
    "eval_batch_size": 8,
    "baseline_records": 16,
    "model.image_size": (16, 8),
    "model.patch": 4,
    "model.decoder_width": 16,
    "model.decoder_depth": 1,
    "model.variant": "Mu",
    "model.scan": True,
    "model.remat": "none",
    "data.num_val": 8,
    "data.synthetic.num_train": 48,
    "data.synthetic.image_size": (40, 20),
    "data.synthetic.hold_in_memory": False,
  },
)
# Fine-tuning with a moving average, batch statistics and a best checkpoint.
REID = (
  "finetune_reid_demo",
  {
    "total_steps": 16,
    "batch_size": 8,
    "num_instances": 2,
    "log_every": 1,
    "save_every": 2,
    "eval_every": 8,
    "eval_every_epochs": 0,
    "eval_batch_size": 8,
    "panel_every": 0,
    "panel_rows": 2,
    "ema_decay": 0.9,
    "warmup_epochs": 0.0,
    "model.image_size": (16, 8),
    "model.patch": 4,
    "model.variant": "Mu",
    "model.scan": True,
    "model.remat": "none",
    "data.synthetic.num_train": 48,
    "data.synthetic.num_test": 32,
    "data.synthetic.image_size": (40, 20),
    "data.synthetic.hold_in_memory": False,
  },
)
# (configuration, loader workers, processes, kills at random moments, kills in a save, damages)
CASES = {
  "pretrain": (PRETRAIN, 0, 1, 38, 14, 7),
  "pretrain, 2 workers": (PRETRAIN, 2, 1, 20, 8, 4),
  "pretrain, 2 processes": (PRETRAIN, 0, 2, 7, 4, 2),
  "reid": (REID, 0, 1, 20, 8, 4),
  "reid, 2 workers": (REID, 2, 1, 15, 6, 3),
}


def start(workdir, case, cache):
  """Starts the processes of a run. Each has one device and leads its own process group."""
  (name, overrides), workers, count = case[:3]
  # A cached program of several processes may hang (seen with jax 0.10.2), see tests/conftest.py.
  env = {"JAX_COMPILATION_CACHE_DIR": str(cache) if count == 1 else ""}
  env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
  flags = [f"--config.{key}={value}" for key, value in overrides.items()]
  command = [
    sys.executable,
    "-m",
    "tests.soak.small_main",
    f"--config=configs/{name}.py",
    f"--workdir={workdir}",
  ]
  command += [*flags, f"--config.data.workers={workers}"]
  return [programs.start([*command, *words], devices=1, env=env) for words in programs.joined(count)]


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
def test_runs_end_with_the_bits_of_the_uninterrupted_run(name, tmp_path, request):
  case, share = CASES[name], request.config.getoption("--kills") / ALL
  random, aimed, damages = (max(1, round(share * number)) for number in case[3:])
  rng = np.random.default_rng(sorted(CASES).index(name))
  before = kills.child_seconds()
  kills.finish(start(tmp_path / "first", case, tmp_path / "cache"))  # fills the cache
  begun = time.monotonic()
  kills.finish(start(tmp_path / "whole", case, tmp_path / "cache"))
  seconds = time.monotonic() - begun
  workdirs, result = kills.survive(
    lambda workdir: start(workdir, case, tmp_path / "cache"),
    tmp_path,
    kills.plan(random, aimed, damages, rng),
    rng,
    seconds,
  )
  for workdir in (tmp_path / "first", *workdirs):
    kills.assert_same(workdir, tmp_path / "whole")
  spent = kills.child_seconds() - before
  print("\n" + json.dumps({"case": name, **vars(result), "cpu_seconds": round(spent)}))

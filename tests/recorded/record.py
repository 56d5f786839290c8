"""Records a tiny workdir of each task with the current version: `python tests/recorded/record.py VERSION`.

If you change the configuration, the checkpoints or the packed format, add a folder VERSION (a date) next to
the older ones. `tests/test_recorded.py` resumes, evaluates and describes the runs of all folders. A recorded
workdir is in the middle of its run. Its `end.json` has the last row of metrics.jsonl of the same run without
an interruption. Names of tasks after VERSION record only these tasks.
"""

import importlib
import json
import os
import pathlib
import shutil
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
VARIANT = "Mu"  # only the name; `shrink` replaces the sizes
STEPS, LEFT_AT = 4, 2

_RUN = {
  "total_steps": STEPS,
  "batch_size": 8,
  "eval_batch_size": 8,
  "log_every": 1,
  "save_every": LEFT_AT,
  "panel_every": 0,
  "eval_every": STEPS,
  "eval_every_epochs": 0,
  "panel_rows": 2,
  "model.variant": VARIANT,
  "model.image_size": (16, 8),
  "model.patch": 4,
  "model.dtype": "float32",
  "model.scan": True,
  "data.num_val": 8,
  "data.synthetic.num_train": 48,
  "data.synthetic.num_test": 32,
  "data.synthetic.image_size": (40, 20),
  "data.synthetic.hold_in_memory": False,
}
_NO_WARMUP = {"warmup_epochs": 0.0}  # so that the first step also changes the parameters
RUNS = {
  "pretrain": (
    "pretrain_demo",
    {"baseline_records": 16, "model.decoder_width": 16, "model.decoder_depth": 1, **_NO_WARMUP},
  ),
  "reid": ("finetune_reid_demo", {"num_instances": 2, "model.drop_path": 0.1, **_NO_WARMUP}),
  # 600 records are enough for a positive training picture of each attribute. Only some of them are drawn.
  "attributes": (
    "finetune_attributes_demo",
    {"ema_decay": 0.9, "data.synthetic.num_train": 600, **_NO_WARMUP},
  ),
  "pose2d": (
    "finetune_pose2d_demo",
    {
      # The demo had these values when 2026-11-30c was recorded.
      "total_epochs": 7.0,
      "lr_drops": (5.5, 6.6),
      "model.patch_padding": 1,
      "warmup_steps": 0,
    },
  ),
  "text_reid": (
    "finetune_text_reid_demo",
    {
      # The demo had these values when 2026-11-30c was recorded.
      "total_epochs": 4.0,
      "lr_drops": (3.2, 3.7),
      "text.lr_scale": 1.0,
      "optimizer.beta2": 0.999,
      "optimizer.clip_norm": None,
      "model.embedding_dim": 8,
      "text.width": 16,
      "text.depth": 1,
      "text.max_tokens": 8,
      "text.max_words": 200,
      "warmup_steps": 0,
      "data.synthetic_captions.num_train": 48,
      "data.synthetic_captions.num_test": 32,
      "data.synthetic_captions.image_size": (40, 20),
      "data.synthetic_captions.hold_in_memory": False,
    },
  ),
  "pose3d": (
    "finetune_pose3d_direct_demo",
    {"model.image_size": (16, 16), "model.patch_padding": 1, "model.hidden": 8, **_NO_WARMUP},
  ),
}


def shrink(variants):
  """Replaces the sizes of `VARIANT` by a model of about 10,000 parameters, so that checkpoints are small."""
  variants[VARIANT] = type(variants[VARIANT])(16, 2, 2)


def config_of(task):
  """Returns the configuration of a recorded run. It is not finalized."""
  name, changes = RUNS[task]
  config = importlib.import_module(f"configs.{name}").get_config()
  config.update_from_flattened_dict({**_RUN, **changes})
  return config


def record(task, folder):
  """Runs a task to its end, then reduces the workdir `folder` to its state after step `LEFT_AT`."""
  from hap_jax import config as config_lib
  from hap_jax import run
  from hap_jax.models import vit

  shrink(vit.VARIANTS)
  run.run(config_lib.finalize(config_of(task)), folder)
  rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
  for name in ("tensorboard", "panels", "best", f"checkpoints/{STEPS}"):
    shutil.rmtree(folder / name, ignore_errors=True)
  (folder / "curves.png").unlink(missing_ok=True)
  for path in folder.rglob("commit_success.txt"):
    path.write_text(path.read_text().replace(f"{folder}/", ""))  # the file contains the path of this machine
  left = "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= LEFT_AT)
  (folder / "metrics.jsonl").write_text(left)
  end = {key: rows[-1][key] for key in rows[-1].keys() - {"images_per_s", "data_wait"}}
  (folder / "end.json").write_text(json.dumps(end, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
  os.environ["JAX_PLATFORMS"] = "cpu"
  sys.path.insert(0, os.getcwd())
  for name in sys.argv[2:] or RUNS:
    record(name, FOLDER / sys.argv[1] / name)

"""Plumbing check of 2D pose: a small network learns the joints of a few real people by heart.

Pictures, boxes, transforms, heat maps, decoding and scoring have to agree for that. The people of the
evaluation are the people of the training, so the score says nothing about other people.
"""

import pytest

from configs import finetune_pose2d_coco_b16
from hap_jax import config as config_lib
from hap_jax import run

GOAL = 0.95  # OKS-AP


@pytest.mark.soak
def test_a_small_network_learns_the_joints_of_real_people_by_heart(samples, tmp_path):
  config = finetune_pose2d_coco_b16.get_config()
  places = {f"{split}_{part}": name for split in ("train", "val") for part, name in PLACES.items()}
  config.update_from_flattened_dict(
    {
      **{f"data.coco_pose.{option}": name for option, name in places.items()},
      "data.root": str(samples / "pose2d" / "coco"),
      "data.workers": 0,
      # Without augmentation, a few hundred steps are enough. Mirrored pictures are then not scored, either.
      "flip_test": False,
      "data.flip_prob": 0.0,
      "data.half_body_prob": 0.0,
      "data.scale_jitter": 0.0,
      "data.rotation": 0.0,
      "data.box_jitter_prob": 0.0,
      "model.variant": "Mu",
      "model.image_size": (128, 96),
      "model.head": "simple",
      "model.drop_path": 0.0,
      "batch_size": 8,
      "eval_batch_size": 16,
      "total_steps": 400,
      "base_lr": 1e-3,
      "layer_decay": 1.0,
      "log_every": 50,
      "save_every": 0,
      "eval_every": 400,
      "eval_every_epochs": 0,
    }
  )
  scores = run.run(config_lib.finalize(config), tmp_path, say=print)
  assert scores["AP"] >= GOAL


PLACES = {"annotations": "test_coco.json", "images": "."}

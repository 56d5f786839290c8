"""The demo of 2D pose learns from drawn people and finds the joints of people it never saw.

The run starts from the encoder of the pre-training demo. The split "val" has other people than the split
"train". The error of a joint is its distance divided by the longer side of the person's box.
"""

import pytest

from configs import finetune_pose2d_demo, pretrain_demo
from hap_jax import config as config_lib
from hap_jax import run

GOAL = 0.86  # PCK@0.1


@pytest.mark.soak
def test_the_pose_demo_finds_joints_of_people_it_never_saw(tmp_path):
  run.run(config_lib.finalize(pretrain_demo.get_config()), tmp_path / "encoder", say=lambda _: None)
  config = finetune_pose2d_demo.get_config()
  config.init_from = str(tmp_path / "encoder")
  scores = run.run(config_lib.finalize(config), tmp_path / "pose", say=print)
  assert scores["PCK@0.1"] > GOAL

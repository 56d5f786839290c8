"""The demo of text ReID learns from scratch and finds people it never saw by their captions."""

import pytest

from configs import finetune_text_reid_demo
from hap_jax import config as config_lib
from hap_jax import run

GOAL = 0.25  # Rank-1 of 400 captions among 1,600 pictures of 200 people. Chance is 0.005.


@pytest.mark.soak
def test_the_text_demo_finds_people_it_never_saw(tmp_path):
  scores = run.run(config_lib.finalize(finetune_text_reid_demo.get_config()), tmp_path, say=print)
  assert scores["rank1"] > GOAL

"""Pre-training on several data sets."""

import numpy as np
import pytest

from configs import common, pretrain_demo
from hap_jax import config as config_lib
from hap_jax.data.shares import ShuffledShares
from hap_jax.data.sources import synthetic
from hap_jax.tasks import pretrain
from tests.data import luperson_files


def make_config(root, **changes):
  config = pretrain_demo.get_config()
  config.data.source = "mixed"
  common.mix(
    config,
    drawn={"source": "synthetic", "num_train": 24, "image_size": (40, 20), "hold_in_memory": False},
    crowd={"source": "luperson", "root": str(root), "subset": "all", **changes.pop("crowd", {})},
  )
  config.update_from_flattened_dict({"batch_size": 8, "eval_batch_size": 8, "data.num_val": 4, **changes})
  return config_lib.finalize(config)


@pytest.fixture
def root(tmp_path):
  people = synthetic.open_source(num_train=16, image_size=(40, 20))
  luperson_files.write(tmp_path, (people[i] for i in range(16)))
  return tmp_path


def test_each_data_set_holds_out_records_by_its_own_rule(root):
  task = pretrain.make(make_config(root, **{"data.mixed.shares": (0.25, 0.75)}))
  source = task.train.source
  assert [section.size for section in source.sections] == [24, 12]
  assert isinstance(task.train.sampler, ShuffledShares)
  batches = [task.train.batch(step) for step in range(8)]
  assert {"keypoints_xy", "keypoints_visible"} <= batches[0].keys()  # both have COCO's joints, for part masks
  crowd = np.mean([batch["index"] >= 24 for batch in batches])
  assert 0.5 < crowd < 1
  held_out = task.evaluation.evals["val"].loader.source
  assert [section.size for section in held_out.sections] == [4, 4]
  assert {held_out.name(i) for i in range(8)}.isdisjoint(source.name(i) for i in range(36))
  assert [part["name"] for part in task.description.data["parts"]] == ["synthetic", "luperson"]


def test_part_masks_need_the_same_joints_in_all_data_sets(root, tmp_path):
  config = make_config(root)
  config = config_lib.replaced(config, "data.mixed.drawn.skeleton", "aic14")
  with pytest.raises(ValueError, match=r"config\.mask\.parts=True needs joints, and mixed has none"):
    pretrain.make(config)

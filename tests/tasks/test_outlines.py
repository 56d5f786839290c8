"""The outline of a task is the training step of the task: the same batch, state and outputs, without data."""

import jax
import pytest

from hap_jax import config as config_lib
from hap_jax import sharding
from hap_jax.train import state as train_state
from hap_jax.train.outline import DataSizes
from hap_jax.train.step import make_train_step

SIZES = {"num_train": 32, "num_val": 8, "num_test": 16, "image_size": (64, 32), "hold_in_memory": False}
DEMOS = [
  "pretrain_demo",
  "finetune_reid_demo",
  "finetune_attributes_demo",
  "finetune_pose2d_demo",
  "finetune_text_reid_demo",
  "finetune_pose3d_direct_demo",
]
# Several drawn attributes are rare, and each needs a positive label.
MORE_RECORDS = {"finetune_attributes_demo": 2000}


def demo(name, **overrides):
  config = config_lib.read_file(name)
  small = {f"data.{config.data.source}.{option}": value for option, value in SIZES.items()}
  small[f"data.{config.data.source}.num_train"] = MORE_RECORDS.get(name, SIZES["num_train"])
  small |= {"batch_size": 8, "eval_batch_size": 8, "model.scan": True}
  config.update_from_flattened_dict({**small, **overrides})
  return config_lib.finalize(config)


def shapes(tree):
  return jax.tree.map(lambda x: f"{tuple(x.shape)} {x.dtype}", tree)


@pytest.mark.parametrize("name", DEMOS)
def test_an_outline_has_the_batch_the_state_and_the_constants_of_its_task(name):
  config = demo(name)
  module = config_lib.load("tasks", config.task)
  task, outline = module.make(config), module.outline(config)
  assert shapes(task.train.batch(0)) == shapes(outline.batch)
  assert shapes(task.constants) == shapes(outline.constants)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  ours, theirs = (shapes(train_state.abstract(one, mesh)) for one in (outline, task))
  paths, ours = zip(*jax.tree_util.tree_flatten_with_path(ours)[0], strict=True)
  differing = [
    jax.tree_util.keystr(path)
    for path, one, other in zip(paths, ours, jax.tree.leaves(theirs), strict=True)
    if one != other
  ]
  # The words of a new text encoder are known only from the captions.
  assert all("word_embed" in path for path in differing)


@pytest.mark.parametrize("name", DEMOS)
def test_a_step_is_traced_without_data(name):
  config = demo(name)
  outline = config_lib.load("tasks", config.task).outline(config)
  mesh = sharding.make_mesh(devices=jax.devices()[:8])
  state = train_state.abstract(outline, mesh)
  scalars = jax.ShapeDtypeStruct((), "int32"), jax.ShapeDtypeStruct((), "float32")
  step = make_train_step(outline, mesh, seed=0)
  updated, metrics = jax.eval_shape(step, state, outline.constants, outline.batch, *scalars)
  assert shapes(updated) == shapes(state)
  assert {"loss", "lr", "grad_norm"} < metrics.keys()


def test_sizes_of_the_user_replace_published_ones():
  config = config_lib.finalize(config_lib.read_file("finetune_reid_market1501_b16"))
  module = config_lib.load("tasks", config.task)
  published = module.outline(config)
  assert published.sizes == DataSizes(records=12_936, persons=751)
  assert published.params["head"]["kernel"].shape == (768, 751)
  given = module.outline(config, DataSizes(persons=10))
  assert given.sizes == DataSizes(records=12_936, persons=10)
  assert given.params["head"]["kernel"].shape == (768, 10)


def test_a_size_that_is_not_known_is_stated():
  config = config_lib.finalize(config_lib.read_file("finetune_attributes_table_b16"))
  outline = config_lib.load("tasks", config.task).outline(config)
  assert outline.sizes == DataSizes()
  assert "the number of attributes is not known here, so 2 is used" in outline.lines


def test_a_crop_in_the_step_reads_whole_pictures():
  outline = config_lib.load("tasks", "pretrain").outline(demo("pretrain_demo", **{"data.augment": "device"}))
  assert outline.batch["image"].shape == (8, 400, 200, 3)
  assert {"crop", "flip"} < outline.batch.keys()

"""The attribute task: its rules, loss, scores and errors, without training."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import (
  finetune_attributes_demo,
  finetune_attributes_pa100k_b16,
  finetune_attributes_peta_b16,
  finetune_attributes_rapv1_b16,
)
from hap_jax import config as config_lib
from hap_jax import config_sources
from hap_jax.data.sources import attribute_table
from hap_jax.io import picture_file
from hap_jax.metrics import attributes as metrics
from hap_jax.tasks import attributes
from hap_jax.train import optim
from tests.data import test_attribute_table as table_files

OFFICIAL = (finetune_attributes_pa100k_b16, finetune_attributes_rapv1_b16, finetune_attributes_peta_b16)


def demo(**overrides):
  config = finetune_attributes_demo.get_config()
  small = {"data.synthetic.hold_in_memory": False, "data.synthetic.num_train": 2000}
  config.update_from_flattened_dict(small | {key.replace("__", "."): v for key, v in overrides.items()})
  return config_lib.finalize(config)


@pytest.fixture(scope="module")
def task():
  return attributes.make(demo())


def test_all_parameters_train_with_the_same_rate_and_decay(task):
  params = jax.eval_shape(task.init, jax.random.key(0))["params"]
  assert set(params) == {"encoder", "classifier"}
  rules = jax.tree.leaves(optim.match_rules(params, task.param_rules))
  assert len(rules) == len(jax.tree.leaves(params))
  assert {(rule.lr_scale, rule.weight_decay, rule.trainable) for rule in rules} == {(1.0, 5e-4, True)}
  assert task.optimizer.clip_norm == 10.0


@pytest.mark.parametrize("module", OFFICIAL)
def test_warm_up_is_a_tenth_of_the_official_run(module):
  config = module.get_config()
  assert config.warmup_epochs == pytest.approx(0.1 * config.total_epochs)
  assert config.data.train_split == "trainval"


def test_the_loss_weighs_answers_by_their_share_in_the_training_split(task):
  ratio = task.train.source.columns["attributes"].mean(axis=0)
  labels = np.stack([np.ones(len(ratio), bool), np.zeros(len(ratio), bool)])
  loss, terms = task.loss(jnp.zeros(labels.shape), {"attributes": labels}, key=None)
  # At a logit of 0, the cross entropy is log 2 for both labels, so only the weights remain.
  expected = np.log(2) * np.mean([np.exp(1 - ratio).sum(), np.exp(ratio).sum()])
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  right, count = terms["answers_right"]
  assert (right, count) == (len(ratio), 2 * len(ratio))


def test_an_attribute_that_is_never_positive_in_training_is_named():
  source = config_sources.open_source(demo(data__synthetic__num_train=400), "train")
  (absent,) = np.flatnonzero(~source.columns["attributes"].any(axis=0))
  name = source.spec.labels["attributes"][absent]
  with pytest.raises(ValueError, match=rf"synthetic: no positive label of {name} in the 400"):
    attributes.positive_ratio(source)


def test_labels_that_are_not_known_count_neither_in_the_loss_nor_in_the_right_answers():
  rng = np.random.default_rng(0)
  logits, labels = rng.normal(0, 2, (8, 3)).astype(np.float32), rng.random((8, 3)) < 0.5
  known = rng.random((8, 3)) < 0.6
  loss = attributes.make_loss(np.full(3, 0.2, np.float32))
  found, expected = (
    loss(logits, {"attributes": values, "attributes_known": known}, key=None)
    for values in (labels & known, labels | ~known)
  )
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  right, count = found[1]["answers_right"]
  assert count == known.sum()
  assert right == (((logits > 0) == labels) & known).sum()
  # With all labels known, the mask changes no bit.
  plain = loss(logits, {"attributes": labels}, key=None)
  masked = loss(logits, {"attributes": labels, "attributes_known": np.ones((8, 3), bool)}, key=None)
  jax.tree.map(np.testing.assert_array_equal, plain, masked)


def test_a_batch_without_known_labels_has_the_loss_0():
  batch = {"attributes": np.zeros((2, 3), bool), "attributes_known": np.zeros((2, 3), bool)}
  loss, terms = attributes.make_loss(np.full(3, 0.2, np.float32))(jnp.ones((2, 3)), batch, key=None)
  assert (loss, *terms["answers_right"]) == (0, 0, 0)


def open_table(folder, text, split):
  table_files.write(folder, text)
  return attribute_table.open_source(root=str(folder), split=split, seed=0)


def test_shares_and_scores_leave_out_labels_that_are_not_known(tmp_path):
  text = "file,split,hat,bag\n" + "".join(f"{i}.png,train,{'01'[i % 2]},{'01 '[i % 3]}\n" for i in range(12))
  text += "12.png,test,1,0\n13.png,test,,1\n14.png,test,0,\n"
  assert attributes.positive_ratio(open_table(tmp_path, text, "train")).tolist() == [0.5, 0.5]
  test = open_table(tmp_path, text, "test")
  probability = np.array([[0.9, 0.1], [0.9, 0.9], [0.1, 0.9]])
  rows = {"test": {"index": np.arange(3), "probability": probability}}
  scores = attributes.make_score({"test": test}, "train")(rows)
  # The two wrong answers have no known label.
  assert {scores[name] for name in ("mA", "accuracy", "recall", "label_F1")} == {1.0, 2 / 3}
  assert scores["mA"] == scores["label_F1"] == 1.0
  # Both pictures are answered rightly in all their known labels, so there is no sheet of mistakes.
  assert attributes.make_row_figures(test)(rows).keys() == {"attributes"}


def test_an_attribute_without_a_known_positive_label_is_named(tmp_path):
  text = "file,split,hat,bag\n0.png,train,1,\n1.png,train,0,0\n"
  with pytest.raises(ValueError, match=r"attribute_table: no positive label of bag in the 2 training"):
    attributes.positive_ratio(open_table(tmp_path, text, "train"))


def test_a_split_without_known_labels_cannot_be_scored(tmp_path):
  source = open_table(tmp_path, "file,split,hat,bag\n0.png,train,1,0\n1.png,test,,\n", "test")
  with pytest.raises(
    ValueError, match=r"none of the 2 labels of split 'test' is known; expected at least one"
  ):
    attributes.check_known(source, "test")


@pytest.mark.parametrize("change", [lambda names: names[:-1], lambda names: names[::-1]])
def test_a_checkpoint_with_different_attributes_is_not_scored(task, change):
  """The checkpoint has fewer attributes, or the same attributes in another order."""
  names = change(task.description.classes["attribute_names"])
  other = dataclasses.replace(
    task.description, network={"num_attributes": len(names)}, classes={"attribute_names": names}
  )
  with pytest.raises(ValueError, match=rf"predicts {len(names)} attributes .*, data set synthetic has 27"):
    attributes.make_evaluation(demo(), other)


def rows_of(evaluation):
  """Returns random predictions for some records of each split."""
  rng, rows = np.random.default_rng(0), {}
  for name, split in evaluation.evals.items():
    index = np.arange(0, len(split.loader.source), 7)
    rows[name] = {"index": index, "probability": rng.random((len(index), 27))}
  return rows


def test_the_validation_set_selects_the_best_checkpoint(task):
  rows = rows_of(task.evaluation)
  scores = task.evaluation.score(rows)
  assert task.evaluation.select == ("val_mA", "max")
  for prefix, name in (("val_", "val"), ("", "test")):
    labels = task.evaluation.evals[name].loader.source.columns["attributes"][rows[name]["index"]]
    expected = metrics.score(rows[name]["probability"], labels).metrics()
    assert {key: scores[f"{prefix}{key}"] for key in expected} == expected
  assert "mA_on_test" not in scores


def test_without_a_validation_set_the_test_set_selects_and_the_score_name_says_so():
  """The published recipe also selects the best checkpoint on the test set."""
  config = demo(data__train_split="trainval")
  evaluation = attributes.make(config).evaluation
  assert set(evaluation.evals) == {"test"}
  assert evaluation.select == ("mA_on_test", "max")
  scores = evaluation.score(rows_of(evaluation))
  assert scores["mA_on_test"] == scores["mA"]
  trained_on = config_sources.open_source(config, "trainval").columns["pid"]
  test = config_sources.open_source(config, "test").columns["pid"]
  assert not set(trained_on) & set(test)


@pytest.mark.parametrize(
  ("key", "value"),
  [("data.train_split", "test"), ("optimizer.clip_norm", 0.0), ("ema_decay", 1.0), ("warmup_lr", -1.0)],
)
def test_a_wrong_value_of_the_attribute_task_names_its_key(key, value):
  with pytest.raises(ValueError, match=rf"config\.{key}={value!r}"):
    demo(**{key: value})


def test_a_source_without_attributes_is_an_error_that_names_the_key(tmp_path):
  folder = tmp_path / "train" / "1"
  folder.mkdir(parents=True)
  for name in ("0_c1.png", "1_c2.png"):
    picture_file.write(folder / name, np.zeros((8, 4, 3), np.uint8))
  shutil.copytree(folder, tmp_path / "query" / "2")
  shutil.copytree(folder, tmp_path / "gallery" / "2")
  config = demo(
    data__source="identity_folder", data__root=str(tmp_path), data__num_val=0, data__train_split="train"
  )
  with pytest.raises(ValueError, match=r"config\.data\.source='identity_folder' has no attributes"):
    attributes.make(config)

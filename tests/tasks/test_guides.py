"""The baseline and the goal that each task draws next to its scores."""

import numpy as np
import pytest

from hap_jax import config as config_lib
from hap_jax import config_sources
from hap_jax.metrics import attributes as metrics
from hap_jax.metrics import retrieval
from hap_jax.models import vit
from hap_jax.viz.curves import Guide, Mark
from tests.recorded import record


@pytest.fixture
def guides_of(monkeypatch):
  """Returns a function (task, changes of its configuration) -> guides of a tiny run's evaluation."""
  monkeypatch.setattr(vit, "VARIANTS", dict(vit.VARIANTS))
  record.shrink(vit.VARIANTS)

  def make(task, **changes):
    config = record.config_of(task)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    config = config_lib.finalize(config)
    return config_lib.load("tasks", task).make(config).evaluation.guides, config

  return make


def chance(config):
  """Returns the chance mAP of the query and gallery of a configuration."""
  query, gallery = (config_sources.open_source(config, split) for split in ("query", "gallery"))
  columns = [side.columns[name] for name in ("pid", "camid") for side in (query, gallery)]
  return retrieval.chance_mean_ap(*columns)


def test_pretraining_is_compared_with_the_position_mean(guides_of):
  for ratio, goal in ((0.85, Mark("learned", 0.85)), (0.0, None)):
    guides, _ = guides_of("pretrain", learned_ratio=ratio)
    assert guides == {"val_ratio": Guide(Mark("position mean", 1.0), goal)}


def test_the_probe_of_pretraining_is_compared_with_chance(guides_of):
  guides, config = guides_of("pretrain", probe__source="synthetic")
  assert guides["probe_mAP_cls"] == guides["probe_mAP_mean"] == Guide(Mark("chance", chance(config)))
  assert "val_ratio" in guides


def test_reid_is_compared_with_chance(guides_of):
  guides, config = guides_of("reid")
  assert 0.01 < chance(config) < 0.9
  assert guides["mAP"] == guides["mAP_reranked"] == Guide(Mark("chance", chance(config)))


@pytest.mark.parametrize("answer", [0.0, 1.0])
def test_attributes_are_compared_with_one_answer_for_all_pictures(guides_of, answer):
  guides, _ = guides_of("attributes")
  labels = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 0]], bool)  # each label is present and absent
  score = metrics.score(np.full(labels.shape, answer), labels).metrics()["mA"]
  assert guides.keys() == {"mA", "mA_on_test", "val_mA"}
  assert all(guide.baseline.value == pytest.approx(score) for guide in guides.values())

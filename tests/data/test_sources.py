"""What all sources promise; a new file in data/sources is tested when it appears."""

import inspect
import pathlib

import pytest

import hap_jax
from configs import common
from hap_jax import config
from hap_jax.data.skeletons import COCO17

FOLDER = pathlib.Path(hap_jax.__file__).parent / "data" / "sources"
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("__init__", "base"))


def test_there_are_sources():
  assert {"synthetic", "luperson", "coco_persons"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_source_opens_by_keywords_and_names_its_licence(name):
  module = config.load("data/sources", name)
  parameters = inspect.signature(module.open_source).parameters
  assert {"root", "split", "seed", "num_val"} <= parameters.keys()
  assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
  assert module.open_source.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_options_of_the_configuration_are_options_of_the_source(name):
  options = dict(common.data().get(name, {}))
  assert options.keys() <= inspect.signature(config.load("data/sources", name).open_source).parameters.keys()


def test_skeleton_pairs_point_at_joints_of_both_sides():
  for left, right in COCO17.flip_pairs:
    assert COCO17.joints[left].removeprefix("left_") == COCO17.joints[right].removeprefix("right_")
  indices = {i for _, pairs in COCO17.parts for pair in pairs for i in pair}
  assert indices == set(range(len(COCO17.joints)))

"""A configuration has the options of the sources' signatures. They are read without importing a source."""

import inspect
import pathlib
import subprocess
import sys

import pytest

from configs import common
from hap_jax import config as config_lib
from hap_jax.data import source_options

ROOT = pathlib.Path(__file__).parents[2]
NAMES = sorted(source_options.defaults())


@pytest.mark.parametrize("name", NAMES)
def test_options_equal_the_signature_that_python_reports(name):
  module = config_lib.load("data/sources", name)
  parameters = inspect.signature(module.open_source).parameters
  wanted = {key: p.default for key, p in parameters.items() if key not in source_options.COMMON}
  assert source_options.defaults()[name] == wanted
  places = {f"data.{name}.{option}" for option in getattr(module, "PLACES", ())}
  assert {key for key in source_options.place_keys() if key.startswith(f"data.{name}.")} == places


def test_changing_the_returned_defaults_changes_no_default():
  source_options.defaults()["msmt17"]["train_set"] = "train"
  assert common.data().msmt17.train_set == "train+val"


def test_reading_the_options_imports_no_source():
  code = (
    "import sys; from configs import common; from hap_jax import config; common.data(); config.complete({});"
    "print([name for name in ('jax', 'cv2', 'hap_jax.data.sources.base') if name in sys.modules])"
  )
  run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
  assert run.stdout.strip() == "[]", run.stderr


def read(folder, text):
  path = folder / "somewhere.py"
  path.write_text(text, encoding="utf-8")
  return source_options.read(path)


def test_defaults_and_places_of_a_new_source_are_found(tmp_path):
  text = """
PLACES = ("lists",)
def open_source(*, root, split, seed=0, lists="", size=(4, 2), share=-0.5, is_on=True, num_val=0):
  pass
"""
  found = read(tmp_path, text)
  assert found.defaults == {"lists": "", "size": (4, 2), "share": -0.5, "is_on": True}
  assert found.places == ("lists",)


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("x = 1", r"somewhere\.py: no function open_source"),
    ("def open_source(*, root, share): pass", "option share of open_source: expected a literal"),
    ("def open_source(*, root, share=HALF): pass", "option share of open_source: expected a literal"),
    ("PLACES = ('a',)\ndef open_source(*, root): pass", "PLACES names a; expected options"),
    ("PLACES = places()\ndef open_source(*, root): pass", "PLACES: expected a literal"),
  ],
)
def test_error_names_a_source_with_unreadable_options(text, words, tmp_path):
  with pytest.raises(ValueError, match=words):
    read(tmp_path, text)


def test_a_recorded_configuration_gets_the_options_of_later_sources():
  recorded = {"data": {"source": "luperson", "luperson": {"subset": "all"}, "synthetic": {"num_train": 5}}}
  data = config_lib.complete(recorded)["data"]
  assert data["luperson"] == {"subset": "all"}
  assert data["peta"] == source_options.defaults()["peta"]
  assert data["synthetic"]["num_train"] == 5
  assert data["synthetic"]["num_test"] == 2_000  # the value of the version without the key
  assert config_lib.complete({"task": "pretrain"}) == {"task": "pretrain"}

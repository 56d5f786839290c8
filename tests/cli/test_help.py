"""The help of a verb lists the names of the data sources and checkpoint families that it takes."""

import pathlib

import pytest

import hap_jax
from hap_jax.cli import __main__ as cli

PACKAGE = pathlib.Path(hap_jax.__file__).parent
SOURCES = {path.stem for path in (PACKAGE / "data/sources").glob("*.py")} - {"__init__", "base"}
FAMILIES = {path.stem for path in (PACKAGE / "convert/families").glob("*.py")} - {"__init__"}


def help_of(capsys, *words):
  with pytest.raises(SystemExit) as end:
    cli.main([*words, "--help"])
  assert end.value.code == 0
  return capsys.readouterr().out


def names_in(text):
  return set(text.replace(",", " ").replace("{", " ").replace("}", " ").split())


@pytest.mark.parametrize("verb", ["evaluate", "prepare", "probe"])
def test_the_help_lists_every_data_source(verb, capsys):
  assert names_in(help_of(capsys, verb)) >= SOURCES


@pytest.mark.parametrize("verb", ["convert", "describe", "export"])
def test_the_help_lists_every_family(verb, capsys):
  assert names_in(help_of(capsys, verb)) >= {name.replace("_", "-") for name in FAMILIES}


def test_the_help_lists_every_verb(capsys):
  assert names_in(help_of(capsys)) >= {"train", *(path.stem for path in (PACKAGE / "cli").glob("[a-z]*.py"))}

"""A word names a shipped configuration, and `configs` is the right folder while a configuration is read."""

import sys

import pytest

from hap_jax import config as config_lib
from hap_jax import config_file

MINE = "from configs import common\n\ndef get_config():\n  return common.pretrain('S')\n"
# A user's own common.py builds on nothing of this project, so that its effect is plain.
OWN_COMMON = """
import ml_collections

def pretrain(variant):
  shape = {"task": "pretrain", "model": {"variant": variant + " of OWNER"}, "data": {}}
  return ml_collections.ConfigDict(shape)
"""


def own_common(owner):
  return OWN_COMMON.replace("OWNER", owner)


def write(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  return path


def variant(path):
  return config_lib.read_file(path).model.variant


def test_every_shipped_configuration_is_read_by_its_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  names = config_file.shipped()
  assert {"pretrain_demo", "finetune_reid_demo"} <= set(names)
  assert "common" not in names
  for name in names:
    assert config_lib.read_file(name).to_dict() == config_lib.read_file(names[name]).to_dict()


def test_a_word_names_the_shipped_configuration_whatever_the_current_folder_holds(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "pretrain_demo").mkdir()  # such as a workdir
  write(tmp_path / "pretrain_demo.py", MINE)
  write(tmp_path / "configs/common.py", own_common("me"))
  write(tmp_path / "configs/pretrain_demo.py", MINE)
  assert variant("pretrain_demo") == "Mu"
  assert variant("configs/pretrain_demo.py") == variant("pretrain_demo.py") == "S of me"


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("pretrain_dmo", "--config=pretrain_dmo: no shipped configuration has this name; nearest: pretrain_demo"),
    ("pretrain_l61:S", r"--config=pretrain_l61: .*; nearest: pretrain_l16"),
    ("mine", r"--config=mine: .*; nearest: mine\.py"),
    ("common", r"--config=common: .*; expected a file, or one of finetune_attributes_demo, .*, pretrain_s16"),
    ("", r"--config=: no shipped configuration .*pretrain_demo"),
    ("configs/pretrain_demo.py", r"configs/pretrain_demo\.py: no such file; nearest: pretrain_demo"),
  ],
)
def test_an_unknown_name_is_a_one_line_error_with_the_nearest_name(tmp_path, monkeypatch, name, message):
  monkeypatch.chdir(tmp_path)
  write(tmp_path / "mine.py", MINE)
  with pytest.raises(ValueError, match=f"^{message}" if message.startswith("--") else message) as error:
    config_lib.read_file(name)
  assert "\n" not in str(error.value)


def test_a_users_own_folder_wins_over_the_shipped_one(tmp_path, monkeypatch):
  for owner in ("me", "you"):
    folder = tmp_path / owner / "configs"
    write(folder / "common.py", own_common(owner))
    write(folder / "mine.py", MINE)
    write(folder / "deeper/mine.py", MINE)
  write(tmp_path / "you/mine.py", MINE)
  # Each file gets the folder that it belongs to, in any order and from any current folder.
  monkeypatch.chdir(tmp_path / "me")
  for owner in ("me", "you", "me"):
    for path in (tmp_path / owner / "configs/mine.py", tmp_path / owner / "configs/deeper/mine.py"):
      assert variant(path) == f"S of {owner}"
  assert variant("configs/mine.py") == "S of me"
  assert variant("../you/mine.py") == "S of you"  # next to the folder, not in it
  monkeypatch.chdir(tmp_path / "you/configs/deeper")
  assert variant("../mine.py") == variant("mine.py") == "S of you"


def test_a_users_folder_takes_missing_modules_from_the_shipped_folder(tmp_path):
  assert variant(write(tmp_path / "anywhere/mine.py", MINE)) == "S"
  assert variant(write(tmp_path / "configs/mine.py", MINE)) == "S"
  text = "from configs import sizes, pretrain_demo\n\ndef get_config():\n"
  text += "  config = pretrain_demo.get_config()\n  config.model.variant = sizes.SIZE\n  return config\n"
  write(tmp_path / "configs/sizes.py", "SIZE = 'Ti'\n")
  assert variant(write(tmp_path / "configs/theirs.py", text)) == "Ti"


def test_a_users_own_package_is_executed(tmp_path):
  write(tmp_path / "configs/__init__.py", "SIZE = 'Ti'\n")
  text = "from configs import SIZE, common\n\ndef get_config():\n  return common.pretrain(SIZE)\n"
  assert variant(write(tmp_path / "configs/mine.py", text)) == "Ti"


def test_a_package_of_another_project_does_not_hide_the_shipped_folder(tmp_path, monkeypatch):
  write(tmp_path / "site/configs/__init__.py", "")
  write(tmp_path / "site/configs/common.py", own_common("another project"))
  monkeypatch.syspath_prepend(tmp_path / "site")
  assert variant(write(tmp_path / "mine.py", MINE)) == "S"
  assert variant("pretrain_demo") == "Mu"


def test_a_folder_of_the_python_path_wins_over_the_shipped_one(tmp_path, monkeypatch):
  """`python -m` puts the current folder there."""
  write(tmp_path / "project/configs/common.py", own_common("me"))
  monkeypatch.syspath_prepend(tmp_path / "project")
  assert variant(write(tmp_path / "elsewhere/mine.py", MINE)) == "S of me"
  assert variant("pretrain_demo") == "Mu"


@pytest.mark.parametrize("text", [MINE, "from configs import common\n\nx = 1 / 0\n"])
def test_reading_leaves_the_imported_modules_as_they_were(tmp_path, text):
  import configs.common

  before = {name: module for name, module in sys.modules.items() if name.startswith("configs")}
  write(tmp_path / "configs/common.py", own_common("me"))
  path = write(tmp_path / "configs/mine.py", text)
  if text == MINE:
    assert variant(path) == "S of me"
  else:
    with pytest.raises(ValueError, match=r"mine\.py, line 3: ZeroDivisionError"):
      config_lib.read_file(path)
  assert {name: module for name, module in sys.modules.items() if name.startswith("configs")} == before
  assert configs.common is sys.modules["configs.common"]

"""The wheel has all files of the package and the configurations, and its `hap` works from any folder."""

import os
import re
import subprocess
import sys
import zipfile

import pytest
import yaml

import hap_jax
from tests import wheel
from tests.wheel import ROOT

# Runs the command in the way of the script that pip writes.
HAP = "from importlib.metadata import distribution; distribution('hap_jax').entry_points['hap'].load()()"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  """Returns a folder with the files of the wheel, as pip installs them."""
  folder = tmp_path_factory.mktemp("site")
  with zipfile.ZipFile(wheel.build(tmp_path_factory.mktemp("build"))) as file:
    file.extractall(folder)
  return folder


def files_of(folder):
  """Returns the paths of all files below a folder, relative to it, without bytecode."""
  paths = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
  return {str(path) for path in paths if "__pycache__" not in path.parts}


def test_the_wheel_has_every_file_of_the_package_and_the_configurations_and_no_other(site):
  wanted = {f"hap_jax/{path}" for path in files_of(ROOT / "hap_jax")}
  wanted |= {f"hap_jax/configs/{path}" for path in files_of(ROOT / "configs")}
  facts = f"hap_jax-{hap_jax.__version__}.dist-info/"
  found = files_of(site)
  assert {path for path in found if not path.startswith(facts)} == wanted
  assert f"{facts}licenses/LICENSE" in found


def test_the_installed_command_reads_a_shipped_configuration_from_another_folder(site, tmp_path):
  # A folder of this name here must not disturb it.
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs/common.py").write_text("raise ValueError('the wrong folder')\n")
  # -P: as for an installed script, the current folder is not in sys.path.
  command = [sys.executable, "-P", "-c", HAP, "train", "--config=pretrain_demo", "--dry_run"]
  env = {**os.environ, "PYTHONPATH": str(site)}
  result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
  assert result.returncode == 0, result.stderr
  assert "steps: 2000" in result.stdout
  assert "patches L=32, visible V=16, views N=2" in result.stdout


def test_the_version_is_the_same_in_the_wheel_the_command_and_the_changelog(site):
  (metadata,) = site.glob("*.dist-info/METADATA")
  assert f"\nVersion: {hap_jax.__version__}\n" in metadata.read_text(encoding="utf-8")
  # -S: without the installed packages, so this also shows that the version needs none of them.
  command = [sys.executable, "-S", "-m", "hap_jax.cli", "--version"]
  result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  assert result.stdout == f"hap_jax {hap_jax.__version__}\n"
  newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
  assert newest == hap_jax.__version__


def test_the_citation_names_the_software_and_the_paper():
  citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
  assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # the required keys of the format
  assert citation["title"] == "hap_jax"
  assert citation["authors"] == [{"name": "The hap_jax authors"}]
  (paper,) = citation["references"]
  assert paper["title"].startswith("HAP: Structure-Aware Masked Image Modeling")
  assert len(paper["authors"]) == 15

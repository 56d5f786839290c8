"""Builds the wheel of this project for tests. It needs no network."""

import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What the build reads. A copy keeps the build's own files out of the repository.
_BUILT_FROM = ("hap_jax", "configs", "pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE")
_BUILD = "from setuptools import build_meta; build_meta.build_wheel('dist')"


def copy_source(folder):
  """Copies the files that the build reads into an existing folder, and returns the folder."""
  for name in _BUILT_FROM:
    copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
    copy(ROOT / name, folder / name)
  return folder


def build(folder):
  """Builds the wheel in an empty folder and returns its path."""
  copy_source(folder)
  result = subprocess.run(
    [sys.executable, "-c", _BUILD], cwd=folder, capture_output=True, text=True, check=False
  )
  assert result.returncode == 0, result.stderr
  (wheel,) = (folder / "dist").glob("*.whl")
  return wheel

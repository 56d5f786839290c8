"""Builds the wheel of this project for tests. It needs no network."""

import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What the build reads. A copy keeps the build's own files out of the repository.
_BUILT_FROM = ("hap_jax", "configs", "pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE")


def build(folder, hook="build_wheel"):
  """Copies the project into an empty folder and builds a wheel there.

  Args:
    folder: pathlib.Path.
    hook: function of setuptools that builds. "build_editable" makes the wheel of an editable install, which
      only points to `folder`.
  Returns:
    path of the wheel.
  """
  for name in _BUILT_FROM:
    copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
    copy(ROOT / name, folder / name)
  command = [sys.executable, "-c", f"from setuptools import build_meta; build_meta.{hook}('dist')"]
  result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
  assert result.returncode == 0, result.stderr
  (wheel,) = (folder / "dist").glob("*.whl")
  return wheel

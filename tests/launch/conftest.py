"""Replacements of cluster programs that record their calls."""

import os

import pytest


@pytest.fixture
def recorder(tmp_path, monkeypatch):
  """Returns a function that puts a program on PATH.

  The program records the words of each call and then runs a line of bash. The function returns another
  function, which reads the recorded calls.
  """
  folder = tmp_path / "bin"
  folder.mkdir()
  monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

  def add(name, then="exit 0"):
    log, path = tmp_path / f"{name}.calls", folder / name
    path.write_text(f"#!/bin/bash\nprintf '%s\\0' \"$@\" >> {log}\necho >> {log}\n{then}\n")
    path.chmod(0o755)
    return lambda: _calls(log)

  return add


def _calls(log):
  """Returns the words of each recorded call."""
  return [call.split("\0") for call in log.read_text().split("\0\n") if call] if log.exists() else []

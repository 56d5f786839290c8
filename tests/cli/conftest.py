"""A fixture for tests of all commands."""

import pytest

from hap_jax.io import progress


@pytest.fixture
def eager_progress(monkeypatch):
  """Makes commands show their progress at once and 20 times per second, so that tests need not wait."""
  monkeypatch.setattr(progress, "_QUIET_SECONDS", 0)
  monkeypatch.setattr(progress, "_LINE_SECONDS", 0.05)
  monkeypatch.setattr(progress, "_CHECK_SECONDS", 0.01)

"""Test session set-up: eight simulated devices, golden folder, flags that loader workers need."""

import os
import pathlib
import signal

# Before the first import of jax: the number of simulated devices is fixed when its backend starts. Tests that
# start processes of their own hand these on, and all share what one of them has compiled.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).resolve().parents[1] / ".pytest_cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # most tests compile longer than they compute

import jax
import numpy as np
import pytest
from absl import flags

from tests import cpu_time

ROOT = pathlib.Path(__file__).resolve().parents[1]
SAMPLES = ROOT.parent / "shared" / "samples"


def pytest_addoption(parser, pluginmanager):
  pluginmanager.register(cpu_time, "cpu_time")  # its option, too
  parser.addoption(
    "--golden",
    default=str(ROOT / "tests" / "golden"),
    help="folder of golden vectors (.npz files made by the official implementation)",
  )


def pytest_configure(config):
  if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell ignores Ctrl-C for background jobs; the processes that tests interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain's worker processes read absl flags


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
  # What is compared with the official numbers, and what trains for minutes, is compiled as users compile it.
  as_users_do = {"parity", "soak"} & set(item.path.relative_to(ROOT).parts)
  jax.config.update("jax_disable_most_optimizations", not as_users_do)


@pytest.fixture(scope="session")
def golden(request):
  """Returns a function name -> dict of arrays of that golden file; skips if the folder lacks the file."""
  folder = pathlib.Path(request.config.getoption("--golden"))

  def load(name):
    path = folder / f"{name}.npz"
    if not path.is_file():
      pytest.skip(f"{path} does not exist")
    with np.load(path) as file:
      return {key: file[key] for key in file.files}

  return load


@pytest.fixture(scope="session")
def samples():
  """The folder of real pictures and annotations beside the repository; skips where it is absent."""
  if not SAMPLES.is_dir():
    pytest.skip(f"no sample data at {SAMPLES}")
  return SAMPLES

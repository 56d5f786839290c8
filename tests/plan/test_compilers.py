"""The compilers are found in their folder, and must fit the installed jax."""

import importlib.metadata
import pathlib
import re

import pytest

from hap_jax.plan import compile as compiling
from hap_jax.plan import compilers, machines
from hap_jax.train.outline import NOTHING_KNOWN

ROOT = pathlib.Path(__file__).resolve().parents[2]
JAX = importlib.metadata.version("jax")


def install(folder, **versions):
  """Makes the records that pip writes for distributions. The packages themselves are missing."""
  for name, version in versions.items():
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
  return folder


def fitting_libtpu():
  return re.search(r"[\d.]+\d", compilers.requirements()["libtpu"])[0] + ".1"


def test_an_empty_folder_has_no_compiler(tmp_path):
  assert compilers.find("tpu", tmp_path) is None
  assert compilers.find("cuda", tmp_path / "missing") is None


def test_a_fitting_compiler_is_found(tmp_path):
  assert compilers.find("tpu", install(tmp_path, libtpu=fitting_libtpu())) == tmp_path
  with_plugin = install(tmp_path, jax_cuda12_plugin=JAX, jax_cuda12_pjrt=JAX)
  assert compilers.find("cuda", with_plugin) is None  # nvcc is missing
  assert compilers.find("cuda", install(with_plugin, nvidia_cuda_nvcc_cu12="12.9.86")) == tmp_path


@pytest.mark.parametrize("version", ["0.0.17", "0.0.420.1", "1.0.0"])
def test_another_version_of_libtpu_is_an_error_that_names_the_right_one(tmp_path, version):
  wanted = re.escape(compilers.requirements()["libtpu"])
  expected = rf"libtpu {version} in .* does not fit jax {JAX}, which needs libtpu{wanted}: run .* -m pip "
  with pytest.raises(ValueError, match=expected):
    compilers.find("tpu", install(tmp_path, libtpu=version))


def test_another_version_of_the_cuda_plugin_is_an_error(tmp_path):
  install(tmp_path, jax_cuda12_plugin="0.4.1", jax_cuda12_pjrt=JAX, nvidia_cuda_nvcc_cu12="12.9.86")
  with pytest.raises(ValueError, match=rf"jax-cuda12-plugin 0\.4\.1 in .*needs jax-cuda12-plugin=={JAX}"):
    compilers.find("cuda", tmp_path)


def test_the_requirements_file_has_the_versions_that_fit_this_jax():
  lines = (ROOT / "requirements-plan.txt").read_text().splitlines()
  pairs = [line.split(";") for line in lines if line and not line.startswith("#")]
  is_old = JAX.startswith("0.10.")
  for name, versions in compilers.requirements().items():
    chosen = [
      requirement.strip()
      for requirement, *marker in pairs
      if requirement.strip().startswith(name) and (not marker or ("<" in marker[0]) == is_old)
    ]
    assert chosen == [f"{name}{versions}"]


def test_without_a_compiler_the_message_has_the_command_that_installs_it(tmp_path):
  with pytest.raises(ValueError, match=r"no compiler for v5e:2x2.*pip install --no-deps .*libtpu==.*nvcc"):
    compiling.analyse(None, NOTHING_KNOWN, machines.tpu("v5e:2x2"), "planning", tmp_path)

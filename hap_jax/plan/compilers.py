"""Finds the compilers for machines that are not there: libtpu, and jax's CUDA plugin with nvcc.

They lie in a folder of their own, not among the other packages. With the CUDA plugin among the other
packages, each start of jax on a machine without a GPU would print an error.
"""

import importlib.metadata
import pathlib
import re
import shlex
import sys

FOLDER = pathlib.Path(sys.prefix) / "compilers"
_NVCC = pathlib.Path("nvidia", "cuda_nvcc")
# {platform: distributions that its compiler needs}
_PACKAGES = {
  "tpu": ("libtpu",),
  "cuda": ("jax-cuda12-plugin", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12"),
}


def requirements():
  """Returns {distribution: the versions that fit the installed jax}, as jax itself states them.

  An empty text stands for any version.
  """
  found = {}
  for line in importlib.metadata.requires("jax") or ():
    name, versions, extra = re.match(r"([\w\-]+)(?:\[[^]]*\])?([^;]*);?(.*)", line).groups()
    if name in ("libtpu", "jax-cuda12-plugin") and re.search(r"\"(tpu|cuda12-local)\"", extra):
      found[name] = versions.strip()
  found["libtpu"] = found.get("libtpu", "")
  version = f"=={importlib.metadata.version('jax')}"
  return found | {"jax-cuda12-plugin": version, "jax-cuda12-pjrt": version, "nvidia-cuda-nvcc-cu12": ""}


def install_command(folder=FOLDER):
  """Returns the command line that installs all compilers that fit the installed jax."""
  packages = [f"{name}{versions}" for name, versions in requirements().items()]
  words = ["-m", "pip", "install", "--no-deps", "--upgrade", f"--target={folder}", *packages]
  return shlex.join([sys.executable, *words])


def find(platform, folder=FOLDER):
  """Returns the folder of the compiler of a platform, or None if it is not installed.

  Args:
    platform: "tpu" or "cuda".
    folder: the folder of the compilers.
  Raises:
    ValueError: if its version does not fit the installed jax.
  """
  present = versions(folder)
  if any(name not in present for name in _PACKAGES[platform]):
    return None
  wanted = requirements()
  for name in _PACKAGES[platform]:
    if not _fits(present[name], wanted[name]):
      jax_version = importlib.metadata.version("jax")
      raise ValueError(
        f"{name} {present[name]} in {folder} does not fit jax {jax_version}, which needs "
        f"{name}{wanted[name]}: run {install_command(folder)}"
      )
  return pathlib.Path(folder)


def versions(folder=FOLDER):
  """Returns {name: version} of the distributions in a folder."""
  found = importlib.metadata.distributions(path=[str(folder)])
  return {found.name.lower().replace("_", "-"): found.version for found in found}


def _fits(version, wanted):
  """Returns True if a version is one of those that a requirement such as "==0.0.42.*" allows."""
  exact = re.fullmatch(r"==([\d.]+?)(\.\*)?", wanted)
  if exact is None:
    return True
  base, is_prefix = exact.groups()
  return version == base or (is_prefix is not None and version.startswith(f"{base}."))


def settings(platform, folder):
  """Returns the settings of a process that uses a compiler. They must be made before jax is imported.

  Args:
    platform: "tpu", "cuda", or "" for a process that compiles nothing.
    folder: the result of `find`, or None for a process that compiles nothing.
  Returns:
    {"environment": {variable: value}, "flags": flags of XLA, "paths": folders with further packages}.
  """
  environment = {
    "JAX_PLATFORMS": "cpu",  # the devices are only described
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "false",
  }
  flags = ""
  if platform == "tpu":
    environment |= {
      "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",  # several plans may run at the same time
      "TPU_SKIP_MDS_QUERY": "1",  # there is no server with facts about a cloud machine
      "TPU_WORKER_HOSTNAMES": "localhost",
      "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # any valid name: it only prevents a warning
      "TPU_LOG_DIR": "disabled",
    }
  elif platform == "cuda":
    flags = f"--xla_gpu_cuda_data_dir={folder / _NVCC} --xla_gpu_autotune_level=0"
  return {"environment": environment, "flags": flags, "paths": [str(folder)] if folder else []}

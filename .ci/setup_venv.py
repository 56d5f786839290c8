"""Builds .venv for the Makefile: once, and again when a requirements file or the Python version changes.

Needs only Python 3.11 or 3.12 and a package index. Installs with uv, which is several times faster than pip
but reads none of pip's settings, so they are handed on to it; where uv cannot be had, pip does the work.
A stamp inside .venv holds a hash of what was installed and is written last: an interrupted run starts again.
"""

import argparse
import ast
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

SUPPORTED = ((3, 11), (3, 12))
ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
BASE_FILES = ("requirements.txt", "requirements-dev.txt")
TORCH_FILE = "requirements-torch.txt"
TIMM = "timm==1.0.31"  # --no-deps: its metadata asks for torchvision, which would replace a CPU torch

# pip's setting -> the variable in which uv looks for it, and what separates the values of a list there
UV_VARIABLES = {
  "index-url": ("UV_DEFAULT_INDEX", " "),
  "extra-index-url": ("UV_EXTRA_INDEX_URL", " "),
  "find-links": ("UV_FIND_LINKS", ","),
  "constraint": ("UV_CONSTRAINT", " "),
  "trusted-host": ("UV_INSECURE_HOST", " "),
  "cert": ("SSL_CERT_FILE", " "),
  "client-cert": ("SSL_CLIENT_CERT", " "),
  "proxy": ("ALL_PROXY", " "),
  "timeout": ("UV_HTTP_TIMEOUT", " "),
}


def say(text):
  print(f"setup: {text}", flush=True)


def run(*command, env=None):
  """Runs a command with its output shown; returns whether it succeeded."""
  return subprocess.run([str(part) for part in command], cwd=ROOT, env=env).returncode == 0


def ask(*command):
  """Returns the standard output of a command, or None if it failed."""
  done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
  return done.stdout.strip() if done.returncode == 0 else None


def ensure_venv(is_chosen):
  """Creates .venv, unless a usable one of a supported version is there and no other version was asked for.

  Returns:
    (major, minor) of .venv's Python.
  """
  running = sys.version_info[:2]
  # After a system update exchanged the interpreter under .venv, pip is among the packages it does not find.
  text = ask(PYTHON, "-c", "import pip, sys; print(*sys.version_info[:2])") if PYTHON.exists() else None
  present = tuple(int(part) for part in text.split()) if text else None
  if present in SUPPORTED and (present == running or not is_chosen):
    return present
  if running not in SUPPORTED:
    sys.exit(
      f"setup: hap_jax runs on Python 3.11 and 3.12, and {sys.executable} is {running[0]}.{running[1]}. "
      "Name another interpreter: make PYTHON=python3.12 ..."
    )
  say(f"making .venv with Python {running[0]}.{running[1]} ({sys.executable})")
  if not run(sys.executable, "-m", "venv", "--clear", VENV):
    sys.exit(f"setup: `{sys.executable} -m venv` failed; Debian and Ubuntu have it in package python3-venv")
  return running


def pip_settings():
  """Returns pip's settings for `install`; a PIP_ variable wins over [install], which wins over [global]."""
  settings = {}
  lines = (ask(PYTHON, "-m", "pip", "config", "list") or "").splitlines()
  pairs = [line.split("=", 1) for line in lines if "=" in line]
  for section in ("global.", "install.", ":env:."):
    for name, value in pairs:
      if name.startswith(section):
        settings[name[len(section) :]] = str(ast.literal_eval(value)).split()
  return settings


def uv_environment():
  """Returns this process's environment with pip's settings added under uv's names; uv's own ones win."""
  env = dict(os.environ)
  settings = pip_settings()
  for name, (variable, separator) in UV_VARIABLES.items():
    if settings.get(name):
      env.setdefault(variable, separator.join(settings[name]))
  if settings.get("extra-index-url"):
    env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")  # as pip does: the best version over all indexes
  return env


def ensure_uv():
  """Returns whether uv works in .venv, after an attempt to install it."""
  if ask(PYTHON, "-m", "uv", "--version"):
    return True
  if run(PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"):
    return True
  say("uv cannot be installed; pip does the work, more slowly")
  return False


def install(*arguments):
  """Installs into .venv with uv, or with pip where uv is missing or fails."""
  say("installing " + " ".join(arguments))
  if ensure_uv():
    if run(PYTHON, "-m", "uv", "pip", "install", "--python", PYTHON, *arguments, env=uv_environment()):
      return
    say("uv failed; pip tries the same")
  if not run(PYTHON, "-m", "pip", "install", "--disable-pip-version-check", *arguments):
    sys.exit("setup: the installation failed; the reason stands above")


def ensure(name, files, version, steps):
  """Runs the steps unless .venv's stamp `name` says that they were done for these files and this version."""
  digest = hashlib.sha256(repr((version, TIMM)).encode())
  for file in files:
    digest.update((ROOT / file).read_bytes())
  stamp = VENV / name
  if stamp.is_file() and stamp.read_text() == digest.hexdigest():
    return
  stamp.unlink(missing_ok=True)
  steps()
  stamp.write_text(digest.hexdigest())


def has_gpu():
  return bool(shutil.which("nvidia-smi") and ask("nvidia-smi", "-L"))


def refuse_cuda(build):
  sys.exit(
    f"setup: torch resolves to {build}, and this machine has no GPU. Point pip's find-links or index-url at "
    "CPU wheels of torch (PIP_FIND_LINKS, PIP_INDEX_URL, `pip config set`), `make clean`, and try again."
  )


def install_torch():
  """Installs torch and its companions; exits if torch is a CUDA build and the machine has no GPU."""
  needs_cpu_build = not has_gpu()
  if needs_cpu_build and ensure_uv():  # look before gigabytes of CUDA libraries are fetched
    command = [PYTHON, "-m", "uv", "pip", "install", "--python", PYTHON, "--dry-run", "-r", TORCH_FILE]
    plan = subprocess.run(command, cwd=ROOT, env=uv_environment(), capture_output=True, text=True)
    if " + nvidia-" in plan.stderr:
      refuse_cuda("a build for CUDA")
  install("-r", TORCH_FILE)
  install("--no-deps", TIMM)
  cuda = ask(PYTHON, "-c", "import torch; print(torch.version.cuda or 'none')")
  if cuda is None:
    sys.exit("setup: torch was installed but cannot be imported")
  if needs_cpu_build and cuda != "none":
    refuse_cuda(f"a build for CUDA {cuda}")


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--chosen", action="store_true", help="this interpreter was asked for by name")
  parser.add_argument("--torch", action="store_true", help="also install the clients of the conversion tests")
  arguments = parser.parse_args()
  version = ensure_venv(arguments.chosen)
  ensure("setup-stamp", BASE_FILES, version, lambda: install("-r", BASE_FILES[-1]))
  if arguments.torch:
    ensure("setup-stamp-torch", (TORCH_FILE,), version, install_torch)


if __name__ == "__main__":
  main()

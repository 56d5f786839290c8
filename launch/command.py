"""Checks and builds the training command that every launcher starts.

`python launch/command.py --config=FILE --workdir=DIR [--config.KEY=VALUE ...]` prints the command, quoted for
a shell. This file needs only Python's standard library, because a login node or a laptop may have no other
packages.
"""

import argparse
import pathlib
import shlex
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Parser(argparse.ArgumentParser):
  """A parser of the flags of a launcher. An error message has one line."""

  def __init__(self, **kwargs):
    super().__init__(
      allow_abbrev=False,
      epilog="All other flags, such as --config and --workdir, are passed to hap_jax.main.",
      **kwargs,
    )

  def error(self, message):
    raise ValueError(f"{message} (--help lists the flags)")


def build(words, *, root=ROOT):
  """Builds the command of a run.

  Args:
    words: flags of `hap_jax.main`, each as one word "--name=value".
    root: folder to which the path of --config is relative.
  Returns:
    list of words: python -m hap_jax.main, then --config, --workdir, and all other flags in the given order.
  Raises:
    ValueError: for an unknown flag, a flag without "=", a missing workdir, a workdir that is a URL, or a
      missing configuration file.
  """
  own, rest = {"--config": "", "--workdir": ""}, []
  for word in words:
    name, equals, value = word.partition("=")
    if name not in (*own, "--verbosity") and not name.startswith("--config."):
      raise ValueError(
        f"{word}: expected --config=FILE, --workdir=DIR, --config.KEY=VALUE, --verbosity=N or a flag of this "
        "launcher (--help lists them)"
      )
    # The value must be in the same word, because the launchers pass words on without parsing them.
    if not equals:
      raise ValueError(f"{word}: write {name}=VALUE, in one word")
    if name in own:
      own[name] = value
    else:
      rest.append(word)
  if not own["--config"]:
    raise ValueError("--config is missing: name a file of configs/")
  path = own["--config"].partition(":")[0]  # the text after the colon is an argument of get_config
  if not (root / path).is_file():
    raise ValueError(f"--config={own['--config']}: no such file in {root}")
  if not own["--workdir"]:
    raise ValueError(
      "--workdir is missing: name the folder in which the run keeps its checkpoints and logs; all processes "
      "of the run need access to it"
    )
  if "://" in own["--workdir"]:
    raise ValueError(
      f"--workdir={own['--workdir']}: expected a folder: mount the bucket, or use a shared disk"
    )
  return ["python", "-m", "hap_jax.main", *(f"{name}={value}" for name, value in own.items()), *rest]


def run_name(command):
  """Returns the last part of --workdir in a command from `build`. It is also the name of the job."""
  workdir = next(word for word in command if word.startswith("--workdir=")).partition("=")[2]
  return workdir.rstrip("/").rpartition("/")[2]


def report_errors(function, argv):
  """Runs function(argv) and returns the exit code. Prints ValueError and OSError as one line on stderr."""
  try:
    return function(argv) or 0
  except (ValueError, OSError) as error:
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return 1


def _print(argv):
  print(shlex.join(build(argv)))


if __name__ == "__main__":
  sys.exit(report_errors(_print, sys.argv[1:]))

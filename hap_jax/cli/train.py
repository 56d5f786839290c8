"""Train a model: `hap train --config=NAME --workdir=DIR`; its flags are the flags of hap_jax.main."""

import runpy
import sys


def run_words(words):
  """Runs `python -m hap_jax.main` with these words, in this process.

  `hap_jax.main` becomes the main module of the process. The worker processes of the loader import the main
  module, and absl prints the help of the main module. `hap_jax.main` parses its flags and handles signals and
  errors itself.

  Args:
    words: words of the command line after the verb.
  Raises:
    SystemExit: with the exit code of the run.
  """
  sys.argv[1:] = words
  runpy.run_module("hap_jax.main", run_name="__main__", alter_sys=True)

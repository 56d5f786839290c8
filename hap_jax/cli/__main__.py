"""All commands: `python -m hap_jax.cli VERB ...`, or `hap VERB ...` after installation.

Each verb is a file in this folder. The first line of its docstring is its help text. A verb parses its
arguments, calls the library and prints the result. It has the functions `add_arguments(parser)` and
`run(args)`. If its first arguments determine which other arguments exist, it also has the function
`extend(parser, words)`. A verb that parses the command line itself has only the function
`run_words(words)`. Only the module of the verb on the command line is imported.
"""

import argparse
import ast
import importlib
import os
import pathlib
import signal
import sys

import hap_jax
from hap_jax.io import terminal

_INTERRUPTED = 130  # the exit status that shells use after Ctrl-C
_FOLDER = pathlib.Path(__file__).parent


def verbs():
  """Returns {verb: first line of its docstring}. Imports no verb."""
  files = sorted(path for path in _FOLDER.glob("*.py") if not path.stem.startswith("_"))
  return {path.stem: ast.get_docstring(ast.parse(path.read_text())).splitlines()[0] for path in files}


def main(argv=None):
  """Runs one verb.

  Args:
    argv: words of the command line after the program's name. None: the command line of this process.
  Returns:
    the exit status: the result of the verb (0 for None), 1 after an error, 130 after Ctrl-C. After an error
    or Ctrl-C, stderr has one line.
  """
  terminal.print_any_name()
  argv = sys.argv[1:] if argv is None else list(argv)
  try:
    return _run_verb(argv)
  except KeyboardInterrupt:
    print("stopped by Ctrl-C", file=sys.stderr)
    return _INTERRUPTED


def _run_verb(argv):
  texts = verbs()
  top = argparse.ArgumentParser(
    prog="hap", description="Human-centric pre-training: train models, use checkpoints, prepare data."
  )
  top.add_argument("--version", action="version", version=f"hap_jax {hap_jax.__version__}")
  listed = top.add_subparsers(dest="verb", metavar="VERB", required=True)
  for verb, text in texts.items():
    listed.add_parser(verb, help=text, add_help=False)
  # This parser reads only the verb. A second parser for the arguments is made after the import of the verb.
  verb = top.parse_args(argv[:1]).verb

  module = importlib.import_module(f"hap_jax.cli.{verb}")
  if hasattr(module, "run_words"):
    return module.run_words(argv[1:])
  parser = argparse.ArgumentParser(prog=f"hap {verb}", description=texts[verb], allow_abbrev=False)
  module.add_arguments(parser)
  parser.add_argument("--traceback", action="store_true", help="print the traceback of an error")
  try:
    if hasattr(module, "extend"):
      module.extend(parser, argv[1:])
    args = parser.parse_args(argv[1:])
    return module.run(args) or 0
  except (ValueError, OSError) as error:
    if "--traceback" in argv:
      raise
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return 1


def run_program():
  """Runs the verb of this process's command line. A second Ctrl-C ends the process without cleanup."""

  def interrupt(*_):
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    raise KeyboardInterrupt

  # A background job of a shell ignores SIGINT, and it must keep ignoring it.
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, interrupt)
  sys.exit(main())


if __name__ == "__main__":
  run_program()

"""Commands beside training: `python -m hap_jax.cli VERB ...`, or `hap VERB ...` once installed.

Each verb is a file of this folder with `add_arguments(parser)` and `run(args)`; the first line of its
docstring is its help. A verb whose further arguments depend on its first ones has `extend(parser, words)`,
too. A verb parses, calls and prints; what it does lies in the library. Only the verb that is asked for is
imported.
"""

import argparse
import ast
import importlib
import os
import pathlib
import signal
import sys

from hap_jax.io import terminal

_INTERRUPTED = 130  # the exit status after Ctrl-C, as shells report it
_FOLDER = pathlib.Path(__file__).parent


def verbs():
  """Returns {verb: first line of its docstring} without importing any."""
  files = sorted(path for path in _FOLDER.glob("*.py") if not path.stem.startswith("_"))
  return {path.stem: ast.get_docstring(ast.parse(path.read_text())).splitlines()[0] for path in files}


def main(argv=None):
  """Runs one verb.

  Args:
    argv: words of the command line after the program's name; None: this process's.
  Returns:
    the exit status: the result of the verb, 0 for None; 1 after an error and 130 after Ctrl-C, with one line
    on stderr.
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
  top = argparse.ArgumentParser(prog="hap", description="Commands beside training.")
  listed = top.add_subparsers(dest="verb", metavar="VERB", required=True)
  for verb, text in texts.items():
    listed.add_parser(verb, help=text, add_help=False)
  verb = top.parse_args(argv[:1]).verb

  module = importlib.import_module(f"hap_jax.cli.{verb}")
  parser = argparse.ArgumentParser(prog=f"hap {verb}", description=texts[verb], allow_abbrev=False)
  module.add_arguments(parser)
  parser.add_argument("--traceback", action="store_true", help="on an error, show where it came from")
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
  """Runs the verb of this process's command line; a second Ctrl-C ends the process without cleaning up."""

  def interrupt(*_):
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    raise KeyboardInterrupt

  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, interrupt)
  sys.exit(main())


if __name__ == "__main__":
  run_program()

"""Drawn people are two data sources among others: no other part of the package knows them."""

import ast
import pathlib

import hap_jax

ROOT = pathlib.Path(hap_jax.__file__).parent


def imported(path):
  """Returns the names of the modules that a file imports, also inside functions."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
  return found


def test_only_the_sources_and_the_commands_import_drawn_people():
  importers = {
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("*.py")
    if any(f"{name}.".startswith("hap_jax.synthetic.") for name in imported(path))
  }
  outside = {name for name in importers if not name.startswith(("synthetic/", "cli/"))}
  assert outside == {"data/sources/synthetic.py", "data/sources/synthetic_captions.py"}

"""The package never imports benchmarks, and the docs name only benchmarks that exist."""

import ast
import importlib.util
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]


def imported(path):
  """Returns the names of all modules that a file imports, at any depth."""
  nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
  plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
  return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_no_file_of_the_package_imports_a_benchmark():
  files = sorted((ROOT / "hap_jax").rglob("*.py"))
  assert len(files) > 100
  assert "benchmarks" in imported(ROOT / "benchmarks" / "suite.py")  # proves that the search finds an import
  found = {
    str(path.relative_to(ROOT))
    for path in files
    if any(name.partition(".")[0] == "benchmarks" for name in imported(path))
  }
  assert found == set()


def test_docs_name_only_benchmarks_that_exist():
  pages = [*ROOT.glob("*.md"), ROOT / "Makefile", *(ROOT / "docs").glob("*.md")]
  named = {name for page in pages for name in re.findall(r"\bbenchmarks\.(\w+)", page.read_text())}
  assert "suite" in named
  missing = {name for name in named - {"NAME"} if importlib.util.find_spec(f"benchmarks.{name}") is None}
  assert missing == set()
  paths = {path for page in pages for path in re.findall(r"\bbenchmarks/[\w./]*\w", page.read_text())}
  assert {path for path in paths if not (ROOT / path).exists()} == {"benchmarks/results/h200.jsonl"}  # --out

"""Configuration files: Python files with `get_config()`, and the JSON file that a run records.

This module does not import jax.
"""

import importlib.util
import json
import pathlib
import traceback

import ml_collections

from hap_jax import config_values

_ENDINGS = (".py", ".json")


def find(name):
  """Finds the file that --config names.

  Args:
    name: path of a .py or .json file. "FILE.py:TEXT" calls get_config(TEXT).
  Returns:
    (path, list of the arguments of get_config).
  Raises:
    ValueError: if the file does not exist (the message names similar files in its folder), or if it has
      another ending.
  """
  name, arguments = str(name), []
  if not pathlib.Path(name).exists() and ":" in name:
    name, _, text = name.partition(":")
    arguments = [text]
  path = pathlib.Path(name)
  if path.is_dir():
    raise ValueError(f"--config={name}: a folder; expected a .py or .json file")
  if not path.is_file():
    folder = path.parent
    known = {p.stem: str(p) for p in folder.iterdir() if p.suffix in _ENDINGS} if folder.is_dir() else {}
    near = [known[stem] for stem in config_values.nearest(path.stem, known)]
    raise ValueError(f"--config={name}: no such file" + (f"; nearest: {', '.join(near)}" if near else ""))
  if path.suffix not in _ENDINGS:
    raise ValueError(f"--config={name}: expected a .py file, or the .json file that a run records")
  return path, arguments


def run(path, arguments=()):
  """Runs a Python file and returns the ConfigDict of its get_config(*arguments).

  Raises:
    ValueError: if the code fails or does not return a ConfigDict. The message names the file and the line.
  """
  spec = importlib.util.spec_from_file_location(f"configuration_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
      raise ValueError(f"{path}: expected a function get_config(), found none")
    config = module.get_config(*arguments)
  except Exception as error:
    place = _place(error, path)
    if place is None:  # get_config is missing, or it does not accept these arguments
      raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    raise ValueError(f"{place}: {type(error).__name__}: {_message(error)}") from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise ValueError(f"{path}: get_config() returned {type(config).__name__}, expected a ConfigDict")
  return config


def _place(error, path):
  """Returns "file, line N" of the last line of this file in the traceback of an error, or None."""
  ours = str(path.absolute())  # the import system uses the absolute path as file name
  if isinstance(error, SyntaxError) and error.filename and error.lineno:
    return f"{path if error.filename == ours else error.filename}, line {error.lineno}"
  lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == ours]
  return f"{path}, line {lines[-1]}" if lines else None


def _message(error):
  return " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())


def read_json(path):
  """Returns the nested dicts of a JSON file that `config.record` wrote.

  Raises:
    ValueError: if the file is not JSON, or not a JSON object. The message names the file.
  """
  try:
    values = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path} is damaged ({error})") from error
  if not isinstance(values, dict):
    raise ValueError(f"{path} is damaged: expected an object with keys such as task, found {values!r:.80}")
  return values

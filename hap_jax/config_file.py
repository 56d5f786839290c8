"""Configuration files: Python files with `get_config()`, and the JSON file that a run records.

The shipped configurations are Python files, too. They are found by their names alone, as in
`--config=pretrain_demo`. This module does not import jax.
"""

import contextlib
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import sys
import traceback

import ml_collections

from hap_jax import config_values

_ENDINGS = (".py", ".json")
_PACKAGE = "configs"


def shipped_folder():
  """Returns the folder of the shipped configurations, a pathlib.Path.

  In a package that was installed from a wheel, the folder is inside the package. In a checkout or an editable
  install, it is next to the package.
  """
  package = pathlib.Path(__file__).absolute().parent
  inside = package / _PACKAGE
  return inside if (inside / "common.py").is_file() else package.parent / _PACKAGE


def shipped():
  """Returns {name: path} of the shipped configurations. `common.py` has no get_config, so it is left out."""
  paths = sorted(shipped_folder().glob("*.py"))
  return {path.stem: path for path in paths if "\ndef get_config(" in path.read_text(encoding="utf-8")}


def find(name):
  """Finds the file that --config names.

  Args:
    name: path of a .py or .json file. "FILE.py:TEXT" calls get_config(TEXT). A word without "/" and without
      the ending .py or .json is the name of a shipped configuration, even if the current folder has such a
      file.
  Returns:
    (path, list of the arguments of get_config).
  Raises:
    ValueError: if the file or the shipped configuration does not exist, or if the file has another ending.
      For a missing file, the message suggests similar names.
  """
  name, arguments = str(name), []
  if not pathlib.Path(name).exists() and ":" in name:
    name, _, text = name.partition(":")
    arguments = [text]
  path = pathlib.Path(name)
  if "/" not in name and path.suffix not in _ENDINGS and not (path.suffix and path.is_file()):
    return _find_shipped(name), arguments
  if path.is_dir():
    raise ValueError(f"--config={name}: a folder; expected a .py or .json file")
  if not path.is_file():
    folder = path.parent
    known = {p.stem: str(p) for p in folder.iterdir() if p.suffix in _ENDINGS} if folder.is_dir() else {}
    near = [known[stem] for stem in config_values.nearest(path.stem, known)]
    near += [path.stem] * (path.stem in shipped())
    raise ValueError(f"--config={name}: no such file" + (f"; nearest: {', '.join(near)}" if near else ""))
  if path.suffix not in _ENDINGS:
    raise ValueError(f"--config={name}: expected a .py file, or the .json file that a run records")
  return path, arguments


def _find_shipped(name):
  """Returns the path of a shipped configuration. Raises ValueError with the nearest names."""
  known = shipped()
  if name in known:
    return known[name]
  files = [f"{name}{ending}" for ending in _ENDINGS if pathlib.Path(f"{name}{ending}").is_file()]
  near = files or config_values.nearest(name, known)
  names = f"nearest: {', '.join(near)}" if near else f"expected a file, or one of {', '.join(known)}"
  raise ValueError(f"--config={name}: no shipped configuration has this name; {names}")


def run(path, arguments=()):
  """Runs a Python file and returns the ConfigDict of its get_config(*arguments).

  Raises:
    ValueError: if the code fails or does not return a ConfigDict. The message names the file and the line.
  """
  spec = importlib.util.spec_from_file_location(f"configuration_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  try:
    with _importable_configs(path):
      spec.loader.exec_module(module)
      if not callable(getattr(module, "get_config", None)):
        raise ValueError(f"{path}: expected a function get_config(), found none")
      config = module.get_config(*arguments)
  except Exception as error:
    place = _place(error, path)
    if place is None:  # get_config is missing or does not accept the arguments
      raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    raise ValueError(f"{place}: {type(error).__name__}: {_message(error)}") from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise ValueError(f"{path}: get_config() returned {type(config).__name__}, expected a ConfigDict")
  return config


@contextlib.contextmanager
def _importable_configs(path):
  """Makes `from configs import NAME` work in a configuration file.

  The modules of the package `configs` are searched in the folders that `_configs_folders` returns, in that
  order. At the end, these modules are removed from sys.modules, because the next file may need other folders.
  """
  folders = [str(folder) for folder in _configs_folders(path)]
  init = pathlib.Path(folders[0], "__init__.py")
  if init.is_file():  # the user's package may define names in this file
    spec = importlib.util.spec_from_file_location(_PACKAGE, init, submodule_search_locations=folders)
  else:
    spec = importlib.machinery.ModuleSpec(_PACKAGE, None, is_package=True)
    spec.submodule_search_locations = folders
  earlier = _forget_configs()
  try:
    package = sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    if init.is_file():
      spec.loader.exec_module(package)
    yield
  finally:
    _forget_configs()
    sys.modules.update(earlier)


def _configs_folders(path):
  """Returns the folders of the package `configs` for a configuration file, without duplicates.

  The user's own folder comes first. This is the folder `configs` that contains the file or, if there is none,
  the folder `configs` next to the file. Then come all folders `configs` on sys.path without an `__init__.py`.
  A folder with this file is the package of another project. The shipped folder comes last.
  """
  path = pathlib.Path(os.path.abspath(path))
  holding = [folder for folder in path.parents if folder.name == _PACKAGE][:1]
  places = (pathlib.Path(os.path.abspath(entry)) / _PACKAGE for entry in sys.path)
  found = [folder for folder in places if not (folder / "__init__.py").is_file()]
  folders = [*(holding or [path.parent / _PACKAGE]), *found]
  return list(dict.fromkeys([*(folder for folder in folders if folder.is_dir()), shipped_folder()]))


def _forget_configs():
  """Removes the package `configs` from sys.modules. Returns {name: module} of the removed modules."""
  names = [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]
  return {name: sys.modules.pop(name) for name in names}


def _place(error, path):
  """Returns "FILE, line N": the line of a configuration file in which an error occurred.

  None: the traceback of the error has no line of this file.
  """
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

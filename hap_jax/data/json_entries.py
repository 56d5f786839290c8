"""Reads JSON files of annotations and checks their values.

Every error message is one line, with the file, the entry of the list and the key.
"""

import json
import os
import reprlib

import numpy as np

from hap_jax.io import regular_file

# Largest allowed absolute value, because coordinates are stored as float32.
_MAX_NUMBER = float(np.finfo(np.float32).max)
_REPR = reprlib.Repr()
_REPR.maxlevel = 2  # deeper lists and objects become "[...]" and "{...}", so a message stays one short line


def read(path, option, what):
  """Returns the content of a JSON file.

  Args:
    path: the file.
    option: configuration key that names the file, such as "config.data.coco_pose.val_annotations".
    what: the expected content, for error messages.
  Raises:
    ValueError: if the file does not exist, or is not a JSON file.
  """
  if not os.path.isfile(path):
    raise ValueError(f"{path}: no such file; expected {what} there, or set {option} to another file")
  with regular_file.open_regular(path, "r", encoding="utf-8") as file:
    try:
      return json.load(file)
    except RecursionError as error:
      raise ValueError(f"{path}: its lists or objects are nested too deeply to be read") from error
    except ValueError as error:
      raise ValueError(f"{path}: not a JSON file: {error}") from error


def check_object(entry, where, what):
  """Raises ValueError if an entry of a list is not an object. `what` is the format of the file."""
  if not isinstance(entry, dict):
    raise ValueError(f"{where} is {show(entry)}; expected an object of {what}")


def get(entry, key, where):
  """Returns the value under a key. Raises ValueError if the key is missing."""
  if key not in entry:
    raise ValueError(f'{where} has no key "{key}"; found {show(list(entry))}')
  return entry[key]


def text(entry, key, where):
  """Returns the text under a key. Raises ValueError if it is not a text."""
  value = get(entry, key, where)
  if not isinstance(value, str):
    raise ValueError(f"{where} has {show(value)} under {key}, expected a text")
  return value


def integer(entry, key, where, low=-(2**63), high=2**63 - 1):
  """Returns the whole number under a key. Raises ValueError if the value is not an integer in [low, high]."""
  value = get(entry, key, where)
  # Some annotation tools write 7.0 for 7. A bool is not accepted, although bool is a kind of int in Python.
  number = int(value) if type(value) is float and value.is_integer() else value
  if type(number) is not int or not low <= number <= high:
    raise ValueError(f"{where} has {show(value)} under {key}, expected a whole number from {low} to {high}")
  return number


def number(entry, key, where):
  """Returns the finite number under a key. Raises ValueError for any other value."""
  value = get(entry, key, where)
  if not _is_finite(value):
    raise ValueError(f"{where} has {show(value)} under {key}, expected a finite number")
  return value


def flag(value, where, key):
  """Returns a value that is 0 or 1 as a bool. Raises ValueError for any other value."""
  if not isinstance(value, int | float) or value not in (0, 1):
    raise ValueError(f"{where} has {show(value)} under {key}, expected 0 or 1")
  return bool(value)


def numbers(entry, key, where, count, what):
  """Returns the list of `count` finite numbers under a key.

  Args:
    entry: the object.
    key: the key.
    where: name of the file and the entry, for error messages.
    count: length of the list.
    what: meaning of the numbers, for error messages.
  Raises:
    ValueError: for any other value.
  """
  values = list_of(entry, key, where, count, f"numbers ({what})", f"({what})")
  for value in values:
    if not _is_finite(value):
      raise ValueError(
        f"{where} has {show(value)} among the values under {key}, expected {count} finite numbers ({what})"
      )
  return values


def list_of(entry, key, where, count, what, short=""):
  """Returns the list of `count` values under a key. The values themselves are not checked.

  Args:
    entry: the object.
    key: the key.
    where: name of the file and the entry, for error messages.
    count: length of the list.
    what: name of the values, for the error message if the value is not a list.
    short: name of the values, for the error message if the length is wrong. "": `what`.
  Raises:
    ValueError: if the value is not a list of this length.
  """
  values = get(entry, key, where)
  if not isinstance(values, list):
    raise ValueError(f"{where} has {show(values)} under {key}, expected {count} {what}")
  if len(values) != count:
    raise ValueError(f"{where} has {len(values)} values under {key}, expected {count} {short or what}")
  return values


def _is_finite(value):
  return type(value) in (int, float) and -_MAX_NUMBER <= value <= _MAX_NUMBER


def show(value):
  """Returns a JSON value as a short text. Nested lists and long texts are shortened."""
  return "null" if value is None else _REPR.repr(value)

"""Checks the columns of a source.

A column is an array with the values of one field for all records. A column is known without reading pictures.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hap_jax.io.npz_file import MAX_TEXT_LENGTH

_NUMBERS = "biuf"  # kinds of NumPy types
_MAX_NUMBER_BYTES = 8


class LazyColumns(Mapping):
  """A mapping {field: column}. Each column is computed at its first use and then kept."""

  def __init__(self, compute: dict[str, Callable[[], np.ndarray]]):
    """Takes {field: function that returns the array of this field}."""
    self._compute = compute
    self._known = {}

  def __getitem__(self, field):
    if field not in self._known:
      self._known[field] = self._compute[field]()
    return self._known[field]

  def __iter__(self):
    return iter(self._compute)

  def __len__(self):
    return len(self._compute)

  def __contains__(self, field):
    return field in self._compute  # the default method of Mapping would compute the column


def check(source):
  """Checks the columns of a source.

  Returns:
    {field: [N, ...] array of numbers, or of texts in NumPy's unicode type}.

  Raises:
    ValueError: if a column is not a field of the records, does not have one row per record, has rows of
      different lengths, or has values other than numbers or texts. The message names the column.
  """
  checked = {}
  for field in source.columns:
    where = f"column {field} of {source.spec.name}"
    if field not in source.spec.fields:
      raise ValueError(f"{where}: not a field of its records; they have {', '.join(source.spec.fields)}")
    array = as_array(source.columns[field], where)
    if len(array) != len(source):
      raise ValueError(f"{where} has {len(array)} rows; expected {len(source)}, one per record")
    checked[field] = array
  return checked


def as_array(values: Any, where):
  """Returns a column as an array of numbers or of texts.

  Texts become an array of NumPy's unicode type, with the length of the longest text.

  Args:
    values: an array of numbers, texts or Python objects, or nested sequences.
    where: name of the column, for error messages.

  Raises:
    ValueError: if the rows of `values` have different lengths, or if it contains values that are not numbers
      or texts. Also if a text is longer than MAX_TEXT_LENGTH, contains a NUL character (NumPy drops NULs at
      the end), or cannot be encoded as UTF-8 because it contains half of a surrogate pair.
  """
  array = values if isinstance(values, np.ndarray) and values.dtype != object else _regular(values, where)
  kind = array.dtype.kind
  if array.ndim == 0:
    raise ValueError(f"{where}: expected an array with one row per record, found {array.dtype} of shape ()")
  if kind == "U":
    _check_texts(array, where)
  elif kind not in _NUMBERS or array.dtype.itemsize > _MAX_NUMBER_BYTES:
    raise ValueError(f"{where} is of type {array.dtype}; expected numbers of at most 64 bits, or texts")
  return array


def _regular(values, where):
  """Converts an array of Python objects, or nested sequences, to an array of numbers or of texts."""
  ragged = f"{where} is ragged; expected rows of one shape: pad them to the longest row"
  values = values.tolist() if isinstance(values, np.ndarray) else values
  try:
    objects = np.array(values, dtype=object)
  except ValueError as error:
    raise ValueError(ragged) from error
  # A mix of numbers and texts must be rejected here, because NumPy would convert the numbers to texts.
  types = set(map(type, objects.flat))
  if any(issubclass(kind, (list, tuple, np.ndarray)) for kind in types):
    raise ValueError(ragged)
  is_text = [issubclass(kind, str) for kind in types]
  if any(is_text) and not all(is_text):
    names = ", ".join(sorted(kind.__name__ for kind in types))
    raise ValueError(f"{where} holds values of the types {names}; expected texts only, or numbers only")
  if any(is_text) and objects.ndim:
    # The check is here, because `np.array` below drops NUL characters at the end of a text.
    _check_texts(objects, where)
  return np.array(objects.tolist())


def _check_texts(array, where):
  for row, text in enumerate(array.reshape(len(array), -1).tolist()):
    for part in text:
      if len(part) > MAX_TEXT_LENGTH or "\0" in part or not _is_utf8(part):
        raise ValueError(
          f"{where}, record {row}: {part[:60]!a}, of {len(part)} characters; expected UTF-8 of at most "
          f"{MAX_TEXT_LENGTH} characters without NUL"
        )


def _is_utf8(text):
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True

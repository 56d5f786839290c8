"""What counts as plain data in a file from a stranger."""

import numpy as np

_SCALARS = frozenset({type(None), bool, int, float, complex, str, bytes})
_LEAVES = (set, frozenset, bytearray, range, np.ndarray, np.generic, np.dtype)
_MAX_KEY_PARTS = 16
_MAX_ELEMENTS = 2**24  # of an array from nested lists; RAP's labels have 3,825,820
_MAX_LEVELS = 32


class UnsafePickleError(ValueError):
  """A pickle asks for something that is not plain data; it was refused before it could run."""


class AttributeDict(dict):
  """The attributes of an object whose class is not imported."""


def hashable(items):
  """Returns future keys of a dict or set, refusing all but scalars and short flat tuples of them.

  Hashing a tuple that is nested a hundred thousand times overflows the C stack.
  """
  for item in items:
    if type(item) in _SCALARS or isinstance(item, np.generic):
      continue
    is_short = type(item) is tuple and len(item) <= _MAX_KEY_PARTS
    if not is_short or not all(type(part) in _SCALARS or isinstance(part, np.generic) for part in item):
      raise UnsafePickleError(f"has a dict or set key of type {type(item).__name__}")
  return items


def as_array(value, dtype=None):
  """Returns np.asarray(value, dtype), whose elements are counted first.

  A file can name one list or range many times, in two bytes each, so that nested lists of a small file may
  become an array that fills the memory.

  Raises:
    ValueError: if it would have more than 2**24 elements, or the lists do not make an array of that type.
  """
  level, count = [value], 0
  for _ in range(_MAX_LEVELS):
    lists = [item for item in level if type(item) in (list, tuple)]
    count += sum(_num_leaves(item) for item in level if type(item) not in (list, tuple))
    if count + sum(map(len, lists)) > _MAX_ELEMENTS:
      raise ValueError(f"lists of more than {_MAX_ELEMENTS:,} elements")
    if not lists:
      break
    level = [child for item in lists for child in item]
  else:
    raise ValueError(f"lists that are nested deeper than {_MAX_LEVELS}")
  try:
    return np.asarray(value, dtype)
  except TypeError as error:
    raise ValueError(f"lists that make no array: {error}") from error


def _num_leaves(item):
  if isinstance(item, np.ndarray):
    return item.size
  return len(item) if type(item) in (range, bytearray) else 1


def checked(root):
  """Returns a value, refusing one that holds anything but data, such as an admitted name never called."""
  seen, todo = {id(root)}, [root]
  while todo:
    value = todo.pop()
    if isinstance(value, dict):
      children = list(value.values())  # keys were checked when they were set
    elif type(value) in (list, tuple):
      children = value
    elif type(value) is np.ndarray and value.dtype == object:
      children = list(value.flat)
    elif type(value) in _SCALARS or isinstance(value, _LEAVES):
      continue
    else:
      raise UnsafePickleError(f"leaves {getattr(value, 'name', type(value).__name__)} in the data")
    # Types first, in one set: lists of millions of strings are common, objects in them are not.
    if not set(map(type, children)) <= _SCALARS:
      fresh = [child for child in children if type(child) not in _SCALARS and id(child) not in seen]
      seen.update(map(id, fresh))
      todo.extend(fresh)
  return root

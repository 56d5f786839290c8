"""Checks that the content of an untrusted file is plain data."""

import numpy as np

_SCALARS = frozenset({type(None), bool, int, float, complex, str, bytes})
_LEAVES = (set, frozenset, bytearray, range, np.ndarray, np.generic, np.dtype)
_MAX_KEY_PARTS = 16
_MAX_ELEMENTS = 2**24  # elements of an array that is made from nested lists. RAP's labels have 3,825,820
_MAX_LEVELS = 32


class UnsafePickleError(ValueError):
  """A pickle asks for something that is not plain data. It was refused, and nothing was run."""


class AttributeDict(dict):
  """The attributes of an object whose class is not imported."""


def hashable(items):
  """Returns the future keys of a dict or set after checking them.

  Only scalars and short flat tuples of scalars are allowed, because hashing a very deeply nested tuple
  overflows the C stack.

  Raises:
    UnsafePickleError: if a key has another type.
  """
  for item in items:
    if type(item) in _SCALARS or isinstance(item, np.generic):
      continue
    is_short = type(item) is tuple and len(item) <= _MAX_KEY_PARTS
    if not is_short or not all(type(part) in _SCALARS or isinstance(part, np.generic) for part in item):
      raise UnsafePickleError(f"has a dict or set key of type {type(item).__name__}")
  return items


def as_array(value, dtype=None):
  """Returns np.asarray(value, dtype) after counting the elements.

  The count is needed, because a file can repeat one list or range with two bytes. So the nested lists of a
  small file could become an array that fills the memory.

  Raises:
    ValueError: if the array would have more than 2**24 elements, or the lists do not form an array of this
      type.
  """
  level, count = [value], 0
  for _ in range(_MAX_LEVELS):
    lists = [item for item in level if type(item) in (list, tuple)]
    count += sum(_num_leaves(item) for item in level if type(item) not in (list, tuple))
    # Checked per level, before the children of a level are listed.
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
    raise ValueError(f"lists that do not form an array: {error}") from error


def _num_leaves(item):
  if isinstance(item, np.ndarray):
    return item.size
  return len(item) if type(item) in (range, bytearray) else 1


def checked(root):
  """Returns a value after checking that it holds only data.

  Raises:
    UnsafePickleError: if it holds something else, such as an admitted name that was never called.
  """
  # A list of work instead of recursion, because the nesting may be deep. `seen` ends cycles.
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
    # The set of types is compared first, because lists of millions of strings are common.
    if not set(map(type, children)) <= _SCALARS:
      fresh = [child for child in children if type(child) not in _SCALARS and id(child) not in seen]
      seen.update(map(id, fresh))
      todo.extend(fresh)
  return root

"""Checks that the content of an untrusted file is plain data."""

import numpy as np

_SCALARS = frozenset({type(None), bool, int, float, complex, str, bytes})
_MAX_KEY_PARTS = 16
# Most elements of an array that is converted from nested lists. The labels of RAP have 3,825,820 elements.
_MAX_ELEMENTS = 2**24
_MAX_LEVELS = 32


class UnsafePickleError(ValueError):
  """Raised if a pickle contains something other than plain data. Its code was not run."""


class Unread:
  """Stands for an object whose class or function is not read. It has only the name, and no content.

  Nothing of this name is imported or called.
  """

  __slots__ = ("name",)

  def __init__(self, name):
    self.name = name

  def __repr__(self):
    return f"Unread({self.name!r})"


class AttributeDict(dict):
  """The attributes of an object from a pickle, as a dict. The class of the object is not imported."""


_LEAVES = (set, frozenset, bytearray, range, np.ndarray, np.generic, np.dtype, Unread)


def hashable(items):
  """Checks the items that will become the keys of a dict or the items of a set, and returns them.

  Only scalars, `Unread` and short flat tuples of scalars are allowed, because hashing a very deeply nested
  tuple overflows the C stack.

  Raises:
    UnsafePickleError: if a key has another type.
  """
  for item in items:
    if type(item) in _SCALARS or isinstance(item, np.generic | Unread):
      continue
    is_short = type(item) is tuple and len(item) <= _MAX_KEY_PARTS
    if not is_short or not all(type(part) in _SCALARS or isinstance(part, np.generic) for part in item):
      raise UnsafePickleError(f"has a dict or set key of type {type(item).__name__}")
  return items


def as_array(value, dtype=None):
  """Returns np.asarray(value, dtype), after a check of the number of elements.

  The check is needed because a pickle can refer to the same list or range again with only two bytes. So the
  nested lists of a small file could become an array that fills the memory.

  Raises:
    ValueError: if the array would have more than 2**24 elements, if the lists are nested too deeply, or if
      `value` cannot be converted to an array of this type.
  """
  level, count = [value], 0
  for _ in range(_MAX_LEVELS):
    lists = [item for item in level if type(item) in (list, tuple)]
    count += sum(_num_leaves(item) for item in level if type(item) not in (list, tuple))
    # The number is checked at each level, before the list of the next level is made.
    if count + sum(map(len, lists)) > _MAX_ELEMENTS:
      raise ValueError(f"the nested lists have more than {_MAX_ELEMENTS:,} elements, which is not allowed")
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


def checked(root, also=()):
  """Checks that a value from a pickle contains only data, and returns the value.

  Args:
    root: the value.
    also: further types that the value may contain, as a tuple.
  Raises:
    UnsafePickleError: if the value contains anything else, for example a function or class that the pickle
      may call, but did not call.
  """
  # The list `todo` is used instead of recursion, because the nesting may be deep. With `seen`, no object is
  # checked twice, so a list that contains itself does not cause an endless loop.
  seen, todo = {id(root)}, [root]
  while todo:
    value = todo.pop()
    if isinstance(value, dict):
      children = list(value.values())  # `hashable` has checked the keys
    elif type(value) in (list, tuple):
      children = value
    elif type(value) is np.ndarray and value.dtype == object:
      children = list(value.flat)
    elif type(value) in _SCALARS or isinstance(value, (*_LEAVES, *also)):
      continue
    else:
      raise UnsafePickleError(f"leaves {getattr(value, 'name', type(value).__name__)} in the data")
    # The types are compared first, because this is fast for the common lists of millions of strings.
    if not set(map(type, children)) <= _SCALARS:
      fresh = [child for child in children if type(child) not in _SCALARS and id(child) not in seen]
      seen.update(map(id, fresh))
      todo.extend(fresh)
  return root

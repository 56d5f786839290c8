"""Checks of configuration values, and the search for a key with a similar name.

A configuration may come from a file that another program or a user wrote, such as the `config.json` of a run.
So every value is checked before it is used, and an error names the key. This module does not import jax.
"""

import dataclasses
import difflib
import numbers
import reprlib
import sys
from collections.abc import Callable
from typing import Any

import ml_collections

_GROUPS = (dict, ml_collections.ConfigDict)
_LARGEST_WHOLE = 2**63 - 1
_LIKE = 0.55  # an error message suggests a name only if its similarity is at least this number
_AS_GOOD = 0.02  # names are also suggested if they are less similar than the best name by this number or less

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


@dataclasses.dataclass(frozen=True)
class Kind:
  """The set of values that a key may have.

  Attributes:
    words: the set in words, for error messages.
    holds: value -> bool, True if the value is in the set. It accepts a value of any type.
    is_optional: True if the key may be absent.
  """

  words: str
  holds: Callable[[Any], bool]
  is_optional: bool = False

  def or_absent(self):
    """Returns this kind for a key that may be absent."""
    return dataclasses.replace(self, is_optional=True)

  def or_none(self):
    """Returns this kind with None as an additional value."""
    return dataclasses.replace(
      self, words=f"{self.words}, or None", holds=lambda x: x is None or self.holds(x)
    )


def text():
  """Returns a Kind: all strings."""
  return Kind("text", lambda x: isinstance(x, str))


def one_of(*names):
  """Returns a Kind: only these strings."""
  return Kind(" or ".join(names), lambda x: isinstance(x, str) and x in names)


def flag():
  """Returns a Kind: True and False."""
  return Kind("True or False", lambda x: isinstance(x, bool))


def group():
  """Returns a Kind: groups of keys."""
  return Kind("a group of keys", lambda x: isinstance(x, _GROUPS))


def number(*, low=None, above=None, high=None, below=None):
  """Returns a Kind: the finite numbers within bounds. Whole numbers are included.

  Args:
    low: the smallest allowed number.
    above: a bound that every number must exceed.
    high: the largest allowed number.
    below: a bound that no number may reach.
  """

  def holds(x):
    # The comparison is False for NaN and infinity, and it is exact for whole numbers of any length.
    is_finite = isinstance(x, numbers.Real) and not isinstance(x, bool) and abs(x) <= sys.float_info.max
    return (
      is_finite
      and (low is None or x >= low)
      and (above is None or x > above)
      and (high is None or x <= high)
      and (below is None or x < below)
    )

  return Kind(_bounds(low, above, high, below) + "a finite number", holds)


def whole(low=None):
  """Returns a Kind: the whole numbers of 64 bits that are at least `low`."""

  def holds(x):
    is_whole = isinstance(x, numbers.Integral) and not isinstance(x, bool) and abs(x) <= _LARGEST_WHOLE
    return is_whole and (low is None or x >= low)

  return Kind(_bounds(low, None, None, None) + "a whole number", holds)


def pair(of, names):
  """Returns a Kind: pairs of values.

  Args:
    of: the Kind of each value.
    names: names of the two values, such as "(H, W)".
  """
  return _sequence((of, of), f"{names}, each {of.words}")


def each(kind):
  """Returns a Kind: sequences of any length whose values are all of a Kind."""
  return Kind(
    f"values, each {kind.words}", lambda x: isinstance(x, (tuple, list)) and all(map(kind.holds, x))
  )


def like(value):
  """Returns a Kind: all values with the type of `value`. The type is bool, number, string or tuple.

  A tuple may have any length, because it may be a list of ids. If the length matters, as for a size, the user
  of the value checks it. If `value` is the empty tuple, the tuples may have items of any type.
  """
  if isinstance(value, bool):  # bool first, because a bool is also an int in Python
    return flag()
  if isinstance(value, int):
    return whole()
  if isinstance(value, float):
    return number()
  if isinstance(value, tuple) and not value:
    return Kind("a tuple of values", lambda x: isinstance(x, (tuple, list)))
  if isinstance(value, tuple):
    item = like(value[0])
    return Kind(
      f"a tuple of values such as {value}",
      lambda x: isinstance(x, (tuple, list)) and all(map(item.holds, x)),
    )
  return text()


def _sequence(kinds, words):
  def holds(x):
    if not isinstance(x, (tuple, list)) or len(x) != len(kinds):
      return False
    return all(kind.holds(item) for kind, item in zip(kinds, x, strict=True))

  return Kind(words, holds)


def _bounds(low, above, high, below):
  """Returns the bounds in words with a comma at the end, such as "from 0 to 1, ", or "" without bounds."""
  if low is not None and high is not None:
    return f"from {low} to {high}, "
  words = [f"at least {low}"] * (low is not None) + [f"above {above}"] * (above is not None)
  words += [f"at most {high}"] * (high is not None) + [f"below {below}"] * (below is not None)
  return " and ".join(words) + ", " if words else ""


def check(config, kinds):
  """Checks the keys of a configuration.

  Args:
    config: ConfigDict.
    kinds: {key with dots: Kind}.
  Raises:
    ValueError: for the first key that is missing or has a wrong value, or if there is a value where a group
      of keys is expected. The message names the key.
  """
  for key, kind in kinds.items():
    *parents, last = key.split(".")
    place, path = config, "config"
    # The loop walks down the groups; `place` is the current group or value.
    for part in (*parents, last):
      if not isinstance(place, _GROUPS):
        raise ValueError(f"{path}={_shown(place)}: expected a group of keys, with config.{key}")
      if part not in place:
        break
      place, path = place[part], f"{path}.{part}"
    else:
      if not kind.holds(place):
        raise ValueError(f"{path}={_shown(place)}: expected {kind.words}")
      continue
    if not kind.is_optional:
      needed_by = f"config.task={config['task']!r}" if "task" in config else "a configuration"
      raise ValueError(
        f"{needed_by} needs config.{key}, which is missing: start from a file of configs/ for this task"
      )


def _shown(value):
  """Returns the `repr` of a value on one line, cut to about 80 characters."""
  return _short.repr(value.to_dict() if isinstance(value, ml_collections.ConfigDict) else value)


def check_no_others(config, group_key, kinds):
  """Raises ValueError if a group has a key that is not in `kinds`. The message suggests similar keys."""
  for key in config[group_key]:
    name = f"{group_key}.{key}"
    if name not in kinds:
      raise ValueError(f"config.{name}: no such key; {suggest(name, kinds)}")


def flatten(config, prefix=""):
  """Returns {key with dots: value} of nested dicts or ConfigDicts. An empty group gives no key."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, _GROUPS):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[f"{prefix}{key}"] = value
  return flat


def has(config, key):
  """Returns True if a configuration has a key or a group with this dotted name."""
  flat = flatten(config)
  return key in flat or any(name.startswith(f"{key}.") for name in flat)


def nearest(name, known):
  """Returns up to three known names that are similar to a wrong name, the most similar first.

  Two names are similar if most of their letters agree, if their last parts agree ("root", "data.root"), or if
  one is a word in the last part of the other ("lr", "base_lr").
  """
  last = name.rpartition(".")[2]

  def likeness(other):
    end = other.rpartition(".")[2]
    # The similarity of the whole names has the largest weight, then the similarity of the last parts, then a
    # shared word.
    scores = (_ratio(name, other), 0.95 * _ratio(last, end), 0.9 * (last in end.split("_")))
    return max(scores)

  ranked = sorted(((likeness(other), other) for other in known), key=lambda pair: -pair[0])
  best = ranked[0][0] if ranked else 0
  return tuple(other for score, other in ranked if score >= max(_LIKE, best - _AS_GOOD))[:3]


def suggest(name, known, prefix="config."):
  """Returns the last part of an error message about an unknown name. It lists the most similar names."""
  found = nearest(name, known)
  if not found:
    return "no key has a similar name (--dry_run prints all keys)"
  return f"nearest: {', '.join(prefix + other for other in found)}"


def _ratio(one, other):
  return difflib.SequenceMatcher(None, one.lower(), other.lower()).ratio()


def override(config, overrides):
  """Sets keys of a ConfigDict.

  Args:
    config: ml_collections.ConfigDict.
    overrides: {key: value} from the option --set of a command.
  Raises:
    ValueError: if a key does not exist, or if its value has another type.
  """
  config.lock()  # after this, an unknown key is an error
  for key, value in overrides.items():
    try:
      config.update_from_flattened_dict({key: value})
    except (AttributeError, KeyError, TypeError) as error:
      reason = str(error.args[0]).partition(" Other fields present")[0]  # removes the list of all keys
      if not has(config, key):
        reason += f"; {suggest(key, flatten(config), prefix='')}"
      raise ValueError(f"--set {key}={value!r}: {reason}") from error

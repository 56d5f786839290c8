"""Finds the encoders in the content of a file: the entry that holds each one, and the prefix of its names."""

import dataclasses
import re
from typing import Any

import numpy as np

from hap_jax.convert import families
from hap_jax.convert.weights import some
from hap_jax.io.plain_data import Unread

# Names that torch.compile and FSDP put between the names of modules.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_PARALLEL = "module."  # the prefix that DataParallel puts before every name
_MAX_DEPTH = 5  # entries inside each other
# Entries that never hold the weights of a model, only numbers of the training.
_NO_WEIGHTS = re.compile(r"optim|scheduler|scaler|^lr_")


@dataclasses.dataclass(frozen=True)
class State:
  """One entry of a file with named tensors.

  Attributes:
    key: the entry, such as "teacher" or "a.b". "": the file has no entries.
    tensors: {name in the file: array or `Unread`}.
  """

  key: str
  tensors: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Place:
  """One encoder in a file.

  Attributes:
    state: the State that holds it.
    names: {name without wrappers: name in the file} of the tensors that are read with this encoder.
    prefix: the text before the names of the encoder, without wrappers.
    left: names in the file that are not read, because another encoder or another prefix was chosen.
    note: text that says which published code makes the same choice, or "".
  """

  state: State
  names: dict[str, str]
  prefix: str
  left: tuple[str, ...] = ()
  note: str = ""

  @property
  def parts(self):
    """Returns the names of the entries and modules around the encoder, as a list."""
    return [*self.state.key.split("."), *self.prefix.split(".")]

  @property
  def text(self):
    """Returns the entry and the prefix as text, or "" if there are none."""
    found = [f"entry {self.state.key!r}"] if self.state.key else []
    # A prefix of PyTorch's wrapper is no choice.
    found += [f"names with the prefix {self.prefix!r}"] if self.prefix not in ("", _PARALLEL) else []
    return ", ".join(found) + (f" ({self.note})" if self.note else "")


def find_states(content):
  """Returns all entries of a file that hold named tensors, as a list of States."""
  found, seen = [], set()
  siblings = {key: other for family in families.load_all() for key, other in family.siblings.items()}

  def walk(value, path):
    if not isinstance(value, dict) or id(value) in seen or len(path) > _MAX_DEPTH:
      return
    seen.add(id(value))  # a hostile file may use one dict many times
    tensors = {k: v for k, v in value.items() if type(k) is str and isinstance(v, np.ndarray | Unread)}
    if any(isinstance(tensor, np.ndarray) for tensor in tensors.values()):
      found.append(State(".".join(path), tensors))
    for key, inner in value.items():
      if type(key) is str and not _NO_WEIGHTS.search(key):
        other = value.get(siblings.get(key))
        walk(
          _joined(inner, other) if isinstance(inner, dict) and isinstance(other, dict) else inner,
          (*path, key),
        )

  walk(content, ())
  return found


def _joined(one, other):
  """Returns the entries of both dicts. A key in both is an error."""
  twice = [str(name) for name in one if name in other]
  if twice:
    raise ValueError(f"expected each tensor once, found in two entries: {some(twice)}")
  return {**one, **other}


def of_state(state, prefix=""):
  """Returns the Places of the encoders in a State, as a list.

  Args:
    state: a State.
    prefix: only tensors whose names begin with this text are read. "": all tensors.
  Raises:
    ValueError: if no name begins with the prefix, or if two names differ only in their wrappers.
  """
  names, left = _names(state, prefix)
  # A long name may end with a short one, so the longest name is tried first.
  anchors = sorted({family.patches for family in families.load_all()}, key=len, reverse=True)
  found = {}  # a dict, because it keeps the order and drops repeated prefixes
  for name in names:
    anchor = next((a for a in anchors if name == a or name.endswith((f".{a}", f"/{a}"))), None)
    if anchor:
      found[name.removesuffix(anchor)] = None
  return [Place(state, names, prefix, left) for prefix in found]


def whole(state, prefix=""):
  """Returns a State as a Place without an encoder. Arguments and errors are the same as in `of_state`."""
  names, left = _names(state, prefix)
  return Place(state, names, _PARALLEL if all(name.startswith(_PARALLEL) for name in names) else "", left)


def _names(state, prefix):
  """Returns ({name without wrappers: name in the file}, names in the file that do not have the prefix)."""
  names = {}
  for name in state.tensors:
    short = _WRAPPERS.sub("", name)
    if short in names:
      raise ValueError(f"{names[short]} and {name} are the same tensor")
    names[short] = name
  start = _WRAPPERS.sub("", prefix)
  left = tuple(full for name, full in names.items() if not name.startswith(start))
  names = {name: full for name, full in names.items() if name.startswith(start)}
  if not names:
    raise ValueError(f"no name begins with {prefix!r}; names are {some(list(state.tensors))}")
  return names, left


def outer_prefix(place):
  """Returns the part of the prefix of a Place that all of its names have."""
  parts, common = re.findall(r"[^./]*[./]", place.prefix), ""
  for part in parts:
    if not all(name.startswith(common + part) for name in place.names):
      break
    common += part
  return common


def prefer(places, preferences):
  """Returns the Place that a published code reads, or None if no code makes a choice between the Places.

  Args:
    places: Places of one file, at least two.
    preferences: `Preference`s of the families of these places.
  """
  for choice in preferences:
    taken = [place for place in places if choice.taken in place.parts]
    beside = [place for place in places if choice.beside in place.parts and place not in taken]
    if len(taken) != 1 or not beside or len(places) != 1 + len(beside):
      continue
    place, note = taken[0], f"the code of {choice.code} reads {choice.taken!r}, not {choice.beside!r}"
    if all(other.state is not place.state for other in beside):
      return dataclasses.replace(place, note=note)
    # Both encoders are in one entry, so the names of the other one are left out.
    at = place.parts.index(choice.taken)
    around = "".join(f"{part}." for part in place.prefix.split(".")[: at - len(place.state.key.split("."))])
    others = f"{around}{choice.beside}."
    left = tuple(full for name, full in place.names.items() if name.startswith(others))
    kept = {name: full for name, full in place.names.items() if not name.startswith(others)}
    return dataclasses.replace(place, names=kept, left=(*place.left, *left), note=note)
  return None


def options(places, selection):
  """Returns one line of options per Place that choose it, as a list.

  Args:
    places: Places of one file.
    selection: the `Selection` of the caller, for the names of the options.
  """
  keys = [place.state.key for place in places]
  found = []
  for place in places:
    words = [selection.option("key", place.state.key)] if len(set(keys)) > 1 else []
    # An entry with two encoders needs the prefix, too.
    words += [selection.option("prefix", place.prefix)] if keys.count(place.state.key) > 1 else []
    found.append(" ".join(words))
  return found

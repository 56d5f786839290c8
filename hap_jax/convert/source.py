"""Opens files of other projects. Returns the tensors of one encoder under names without prefixes."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from hap_jax.convert import beyond, detect, places
from hap_jax.convert.container import open_container
from hap_jax.convert.selection import WHOLE
from hap_jax.convert.weights import some
from hap_jax.io.plain_data import Unread


@dataclasses.dataclass(frozen=True)
class Source:
  """One foreign file, and the encoder in it that is read.

  Attributes:
    path: the path as given.
    files: the files that hold the tensors.
    state: {name: array} without the prefixes of wrappers and of the backbone. The arrays are views of the
      files.
    names: {name: name in the file}.
    unread: {name: `Unread`} of tensors that cannot be read, such as sparse tensors.
    outside: the names of `names` that the prefix of the encoder does not have, such as names of heads.
    left: names in the file that are not read, because the user or a published code chose other ones.
    taken: text about the entry and the prefix that were chosen, or "".
    objects: the names of classes that a pickle asks for and that were not read.
    beside: numbers and texts that the file stores next to the weights.
    config: see `container.Container`, also for the next three.
    processor: ...
    card: ...
    record: ...
  """

  path: pathlib.Path
  files: tuple[pathlib.Path, ...]
  state: dict[str, np.ndarray]
  names: dict[str, str]
  unread: dict[str, Unread] = dataclasses.field(default_factory=dict)
  outside: frozenset[str] = frozenset()
  left: tuple[str, ...] = ()
  taken: str = ""
  objects: tuple[str, ...] = ()
  beside: dict[str, Any] = dataclasses.field(default_factory=dict)
  config: dict[str, Any] = dataclasses.field(default_factory=dict)
  processor: dict[str, Any] = dataclasses.field(default_factory=dict)
  card: dict[str, str] = dataclasses.field(default_factory=dict)
  record: dict[str, Any] = dataclasses.field(default_factory=dict)


def open_source(path, selection=WHOLE):
  """Opens a file or a folder of another project and chooses an encoder in it. Executes no code of it.

  Args:
    path: see `container.open_container`.
    selection: a `Selection`.
  Returns:
    Source. A file without an encoder of a known family has the tensors of its largest entry.
  Raises:
    UnsafePickleError, OSError: see `container.open_container`.
    ValueError: see `container.open_container`. Also if the file has no named tensors, has several encoders,
      or does not have the entry or the prefix of the selection.
  """
  container = open_container(path)
  try:
    states = _chosen_states(container.content, selection)
    found = [place for state in states for place in places.of_state(state, selection.prefix)]
    if not found:
      largest = max(states, key=lambda state: len(state.tensors))
      return _make(container, places.whole(largest, selection.prefix))
    return _choose([_make(container, place) for place in found], found, container, selection)
  except ValueError as error:
    raise ValueError(f"{container.path}: {error}") from error


def _chosen_states(content, selection):
  """Returns the States of the selection.

  Raises:
    ValueError: if there is no State with tensors, or no State with the key of the selection.
  """
  states = places.find_states(content)
  if not states:
    raise ValueError(_no_tensors(content))
  if not selection.key:
    return states
  keys = [state.key for state in states]
  if selection.key not in keys:
    known = some([key for key in keys if key])
    remedy = f"entries with tensors are {known}" if known else "it has no entries, only tensors"
    raise ValueError(f"no entry {selection.key!r} with tensors; {remedy}")
  return [states[keys.index(selection.key)]]


def _no_tensors(content):
  """Returns the message about content without named tensors."""
  if not isinstance(content, dict):
    if isinstance(content, Unread):
      return f"holds an object of the class {content.name}, not a state dict: save its state_dict()"
    return f"holds a {type(content).__name__}, not a state dict with names"
  objects = {key: value.name for key, value in content.items() if isinstance(value, Unread)}
  if objects:
    key, name = next(iter(objects.items()))
    return f"entry {key!r} is an object of the class {name}, not a state dict: save its state_dict()"
  keys = some([str(key) for key in content]) or "none"
  return f"expected a state dict, found no tensors in its entries ({keys})"


def _make(container, place):
  """Returns the Source of a Place."""
  outer = places.outer_prefix(place)
  inner = place.prefix.removeprefix(outer)
  unwrapped = {name.removeprefix(outer): full for name, full in place.names.items()}
  names = {name.removeprefix(inner): full for name, full in unwrapped.items()}
  if len(names) != len(place.names):
    raise ValueError(f"expected each name once, found names both with and without {inner!r}")
  tensors, content = place.state.tensors, container.content
  return Source(
    path=container.path,
    files=container.files,
    state={name: tensors[full] for name, full in names.items() if isinstance(tensors[full], np.ndarray)},
    names=names,
    unread={name: tensors[full] for name, full in names.items() if isinstance(tensors[full], Unread)},
    outside=frozenset(name for name in unwrapped if not name.startswith(inner)),
    left=place.left,
    taken=place.text,
    objects=container.unread,
    beside={k: v for k, v in content.items() if type(v) in (str, int, float)} if place.state.key else {},
    config=container.config,
    processor=container.processor,
    card=container.card,
    record=container.record,
  )


def _choose(sources, found, container, selection):
  """Returns the Source of the only encoder of a known family, or of the encoder that a published code reads.

  Args:
    sources: the Source of each Place.
    found: the Places, at least one.
    container: the Container.
    selection: the Selection.
  Raises:
    ValueError: if there are several encoders. The message lists the options that choose one of them.
  """
  kinds = [detect.likely(source) or beyond.find(source) for source in sources]
  known = [index for index, kind in enumerate(kinds) if kind]
  if len(known or found) == 1:
    return sources[known[0] if known else 0]
  candidates = [found[index] for index in known] or found
  preferences = {
    choice: None for index in known for family in detect.likely(sources[index]) for choice in family.prefers
  }
  place = places.prefer(candidates, preferences)
  if place is None:
    choices = " | ".join(places.options(candidates, selection))
    raise ValueError(f"holds {len(candidates)} encoders; choose one of them: {choices}")
  return _make(container, place)

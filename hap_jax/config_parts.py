"""The data sets of a configuration: one, or several that a source such as `mixed` joins.

If the source of `config.data.source` has the option `parts`, its group lists the labels of the data sets, and
has a group for each label:

  config.data.source = "mixed"
  config.data.mixed.parts = ("coco", "aic")
  config.data.mixed.coco = {"source": "coco_pose", "root": "/data/coco"}
  config.data.mixed.aic = {"source": "aic_pose", "root": "/data/aic", "codec": "msra"}

The group of a label has
  source, root   as in config.data
  seed           seed of the source; config.seed if it is absent
  num_val        number of held-out records; config.data.num_val if it is absent
  the options of its source; config.data.<source> has those that are absent
  the settings that the task allows to differ between data sets; config.data has those that are absent
"""

import dataclasses
import re
from typing import Any

import ml_collections

from hap_jax import config_values as values
from hap_jax.data import source_options

_PLACE = {"source": values.text(), "root": values.text()}
_OPTIONAL = {"seed": values.whole(0), "num_val": values.whole(0)}
_LABEL = re.compile(r"[A-Za-z0-9]\w*")  # labels are a part of keys and of the names of scores
_SUM_ERROR = 1e-6


@dataclasses.dataclass(frozen=True)
class Part:
  """One data set of a configuration.

  Attributes:
    label: its label. "": the run has only this data set.
    key: the group of the configuration with its source and root: "data" or, for example, "data.mixed.coco".
    data: the group `data` of a configuration that has only this data set.
    seed: seed of its source.
  """

  label: str
  key: str
  data: Any
  seed: int

  def with_data(self, **changes):
    """Returns the data set with new values for some keys of its group `data`."""
    return dataclasses.replace(self, data=ml_collections.FrozenConfigDict({**self.data.to_dict(), **changes}))


def joins(name):
  """Returns True if the source `name` joins several data sets."""
  return "parts" in source_options.defaults().get(name, {})


def parts_of(config):
  """Returns the data sets of a finalized configuration, a tuple of `Part`."""
  data = config.data
  if not joins(data.source):
    return (Part("", "data", data, config.seed),)
  return tuple(_part(config, label) for label in data[data.source].parts)


def _part(config, label):
  data = config.data
  key, group = f"data.{data.source}.{label}", data[data.source][label].to_dict()
  seed = group.pop("seed", config.seed)
  options = source_options.defaults().get(group["source"], {})
  own = {name: group.pop(name) for name in list(group) if name in options}
  # The group of the joining source is reset, so that no key of it can be set without an effect.
  alone = {**data.to_dict(), data.source: dict(source_options.defaults()[data.source]), **group}
  alone[group["source"]] = {**alone.get(group["source"], {}), **own}
  return Part(label, key, ml_collections.FrozenConfigDict(alone), seed)


def only(config, label):
  """Returns the configuration, a ConfigDict, with only the data set of a label.

  Raises:
    ValueError: if there is no such data set, or if the configuration has a single one.
  """
  if not joins(config.data.source):
    raise ValueError(f"--dataset={label}: the configuration has one data set, {config.data.source}")
  labels = config.data[config.data.source].parts
  if label not in labels:
    raise ValueError(f"--dataset={label}: expected a data set of the configuration: {', '.join(labels)}")
  part, plain = _part(config, label), config.to_dict()
  return ml_collections.ConfigDict({**plain, "seed": part.seed, "data": part.data.to_dict()})


def per_part(config, kinds, names):
  """Returns {key: Kind} for the settings that data sets may have of their own.

  Args:
    config: a ConfigDict.
    kinds: {"data.<setting>": Kind} of the settings in config.data.
    names: names of the settings that may differ between data sets.
  """
  if not joins(config.data.source):
    return {}
  group = f"data.{config.data.source}"
  return {
    f"{group}.{label}.{name}": kinds[f"data.{name}"].or_absent()
    for label in config.data[config.data.source].parts
    for name in names
  }


def check(config, settings):
  """Checks the data sets of a configuration.

  Args:
    config: a ConfigDict that has the keys of every task.
    settings: names of the settings in config.data that may differ between data sets. None: the task needs a
      single data set.
  Raises:
    ValueError: if a label, a key or a share is wrong. The message names the key.
  """
  name = config.data.source
  if not joins(name):
    return
  if settings is None:
    raise ValueError(
      f"config.data.source={name!r}: the task {config.task} needs a source of a single data set"
    )
  key = f"data.{name}"
  lists = {f"{key}.parts": values.text(), f"{key}.shares": values.number(above=0)}
  values.check(config, {key: values.group()} | {name: values.each(kind) for name, kind in lists.items()})
  group = config.data[name]
  labels = tuple(group.parts)
  _check_labels(key, labels, source_options.defaults()[name])
  if config.data.root:
    raise ValueError(
      f"config.data.root={config.data.root!r} has no effect with several data sets: set the root of each "
      f"data set, config.{key}.<label>.root"
    )
  for label in labels:
    _check_part(config, f"{key}.{label}", group.get(label), settings)
  shares = tuple(group.shares)
  if shares and (len(shares) != len(labels) or abs(sum(shares) - 1) > _SUM_ERROR):
    raise ValueError(
      f"config.{key}.shares={shares}, with the sum {sum(shares):g}: expected () or {len(labels)} numbers "
      f"with the sum 1, one for each of {', '.join(labels)}"
    )


def _check_labels(key, labels, options):
  if not labels:
    raise ValueError(
      f"config.{key}.parts is empty: expected the labels of the data sets, such as ('coco', 'mpii')"
    )
  for label in labels:
    if labels.count(label) > 1:
      raise ValueError(f"config.{key}.parts={labels}: expected different labels, but {label} is used twice")
    if not _LABEL.fullmatch(label) or label in options:
      raise ValueError(
        f"config.{key}.parts: {label!r} cannot be a label; expected letters, digits and _, and none of "
        f"{', '.join(options)}"
      )


def _check_part(config, key, group, settings):
  """Raises ValueError if the group `key` of a data set is missing or has a wrong key or value."""
  if group is None or "source" not in group:
    raise ValueError(
      f"config.{key}.source is missing: set it to the source of this data set, a file of hap_jax/data/sources"
    )
  kinds = {**_PLACE, **{name: kind.or_absent() for name, kind in _OPTIONAL.items()}}
  values.check(config, {f"{key}.{name}": kind for name, kind in kinds.items()})
  if joins(group.source):
    raise ValueError(f"config.{key}.source={group.source!r}: expected a source of a single data set")
  options = source_options.defaults().get(group.source, {})
  known = [*kinds, *options, *settings]
  for name in group:
    if name not in known:
      found = values.suggest(f"{key}.{name}", [f"{key}.{other}" for other in known])
      raise ValueError(f"config.{key}.{name}: no such key; {found}")


def place_keys(flat):
  """Returns the keys of a flat configuration whose value is a file or a folder of a data set."""
  places, found = source_options.place_keys(), set()
  for key, name in flat.items():
    group, source = key.removesuffix(".source"), f"data.{name}."
    if group != key:
      found |= {f"{group}.root"}
      found |= {f"{group}.{place.removeprefix(source)}" for place in places if place.startswith(source)}
  return found | places


def with_keys_of(part, text):
  """Returns an error message of a source with the keys of a data set in place of the keys of config.data."""
  options = rf"config\.data\.(?:{re.escape(part.data.source)}\.|(?=(?:root|num_val)\b))"
  return re.sub(options, f"config.{part.key}.", text)

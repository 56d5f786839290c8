"""Opens the data sets that a configuration names.

Importing this file does not import jax.
"""

import inspect

from hap_jax import config as config_lib
from hap_jax import config_parts
from hap_jax import config_values as values
from hap_jax.data import source_options


def open_source(config, split, place=None):
  """Opens the data source of a configuration.

  Args:
    config: the finalized config.
    split: the name of the split.
    place: the group of the config that has the keys `source` and `root`; the options of the source are in
      config.data.<source>. None: config.data, which may have several data sets.
  Raises:
    ValueError: if the source cannot be opened, or if config.data.num_val is above 0, but the source has no
      split of held-out training records.
  """
  if place is None:
    return join_parts(config, open_parts(config, split))
  # Only the training data can hold out training records.
  part = config_parts.Part("", "data", config.data, config.seed)
  return open_part(part.with_data(source=place.source, root=place.root, num_val=0), split)


def open_parts(config, split):
  """Opens the data sets of a configuration. Returns a list of (Part, its source)."""
  return [(part, open_part(part, split)) for part in config_parts.parts_of(config)]


def open_part(part, split):
  """Opens a data set of a configuration, a `config_parts.Part`."""
  data = part.data
  values.check({"data": data}, {f"data.{data.source}": values.group().or_absent()})
  options = dict(data.get(data.source, {}))
  try:
    if holds_out(data.source):
      options = {"num_val": data.num_val, **options}
    elif data.num_val:
      raise ValueError(
        f"config.data.num_val={data.num_val}: {data.source} has its own splits for the scores; set it to 0"
      )
    return open_named_source(data.source, root=data.root, split=split, seed=part.seed, options=options)
  except ValueError as error:
    if not part.label:
      raise
    raise ValueError(config_parts.with_keys_of(part, str(error))) from error


def join_parts(config, opened):
  """Joins the opened data sets of a configuration to one source.

  Args:
    config: the finalized config.
    opened: list of (Part, its source), in the order of `config_parts.parts_of`.
  """
  name = config.data.source
  if not config_parts.joins(name):
    return opened[0][1]
  options = {option: config.data[name][option] for option in source_options.defaults()[name]}
  options["parts"] = tuple((part.label, source) for part, source in opened)
  return open_named_source(name, root="", split="", seed=config.seed, options=options)


def holds_out(name):
  """Returns True if the data source `name` can hold out training records as its split "val"."""
  return "num_val" in inspect.signature(config_lib.load("data/sources", name).open_source).parameters


def published_sizes(config, split):
  """Returns {name: size} of a split of the data sets, as far as they are known without their data.

  With several data sets, their records and persons are added, and the other sizes are those of the largest. A
  size is known if all data sets know it. See `published` in data/sources/base.py.
  """
  found = [_published(part.data, split) for part in config_parts.parts_of(config)]
  known = set.intersection(*map(set, found))
  return {
    name: (sum if name in ("records", "persons") else max)(sizes[name] for sizes in found) for name in known
  }


def _published(data, split):
  module = config_lib.load("data/sources", data.source)
  options = dict(data.get(data.source, {}))
  return module.published(split, options) if hasattr(module, "published") else {}


def open_named_source(name, *, root, split, seed=0, options=None):
  """Opens a split of the data source `name`, a file of hap_jax/data/sources.

  Args:
    name: name of the source.
    root: folder of the data set.
    split: name of the split.
    seed: seed of all random values of the source.
    options: {option: value} of this source. None: all options have their defaults.
  Raises:
    ValueError: if the source, the option or the split does not exist, or a value has the wrong type.
  """
  opener, options = config_lib.load("data/sources", name).open_source, options or {}
  parameters = inspect.signature(opener).parameters
  # num_val is allowed, because `hap prepare --set num_val=N` sets it.
  known = set(parameters) - {"root", "split", "seed"}
  if unknown := sorted(set(options) - known):
    raise ValueError(
      f"data/sources/{name}.py has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}"
    )
  for option, value in options.items():
    default = parameters[option].default
    # A value must have the type of the default in the signature. The type is not stated elsewhere.
    kind = values.like(default)
    if default is not inspect.Parameter.empty and not kind.holds(value):
      raise ValueError(f"option {option}={value!r} of data/sources/{name}.py: expected {kind.words}")
  return opener(root=root, split=split, seed=seed, **options)

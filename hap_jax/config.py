"""Reads, completes, checks and freezes configurations, and imports the modules that they name.

Importing this file does not import jax, because the training command uses it to read its flags before all
other imports.
"""

import importlib
import json
import pathlib
import pkgutil

import ml_collections

from hap_jax import config_file, config_parts
from hap_jax import config_values as values
from hap_jax.data import source_options
from hap_jax.io import unfinished

CONFIG_FILE = "config.json"


class _Absent:
  """The value of a key that a configuration does not have."""

  def __repr__(self):
    return "absent"


_ABSENT = _Absent()

# A resumed run may change these keys. It may also change the keys that a data source lists in its PLACES. All
# other keys must stay the same, because they change the result of the run.
_FREE_KEYS = {
  "eval_batch_size",
  "log_every",
  "save_every",
  "panel_every",
  "eval_every",
  "eval_every_epochs",
  "keep_last",
  "keep_every",
  "panel_rows",
  "learned_ratio",
  "data.root",
  "data.eval_root",
  "probe.root",
  # The folders of body models. The checkpoint records the digest of the body, which must stay the same.
  "body",
  "data.eval_body",
  "data.workers",
  "data.max_bad_share",
  "mesh.data",
  "mesh.fsdp",
  "mesh.tensor",
  # These keys only select the way in which the same numbers are computed.
  "align_block",
  "model.attention",
  "model.remat",
  "model.scan",
}

# Keys that newer versions added: {marker key: {added key: value}}. The value describes what older versions
# did. A recorded configuration gets the added keys only if it has the marker key, because a task without the
# marker key does not use them. If you add a key to configs/common.py, add it here too; otherwise
# tests/test_recorded.py fails. Do not add the options of a data source: a missing option gets the default in
# the signature of `open_source`. Add an option only if older versions did something else than this default.
_ADDED_KEYS = {
  "seed": {
    "eval_every_epochs": 0,
    "keep_every": 0,
    "mesh.data": -1,
    "mesh.fsdp": 1,
    "mesh.tensor": 1,
    "accumulate": 1,
    "continue_from": "",
    "init_key": "",
    "init_prefix": "",
    "init_encoder_only": False,
  },
  # The default of model.remat is "dots" today, but versions without the key stored all activations.
  "model.variant": {"model.remat": "none", "model.attention": "xla", "model.norm_eps": 0.0},
  # Versions without learned_ratio printed a verdict after every pre-training. The goal was 0.85.
  "align_weight": {"learned_ratio": 0.85, "align_block": 0, "probe.source": "", "probe.root": ""},
  "data.crop_area": {"data.augment": "host", "data.canvas": (400, 200)},
  "data.pad": {"ema_decay": 0.0},
  "model.map_norm": {"model.num_experts": 1, "model.part_features": 0},
  "text.width": {"optimizer.clip_norm": None},
  "data.synthetic.num_train": {"data.synthetic.num_test": 2_000},
  # Versions without these keys did not rotate pictures as their EXIF headers say. The default today is
  # "apply".
  "data.source": {"data.folder.exif": "ignore", "data.identity_folder.exif": "ignore"},
}

# These groups become keyword arguments of a function, so no other keys are allowed in them.
_MESH = {f"mesh.{axis}": values.whole().or_absent() for axis in ("data", "fsdp", "tensor")}
_OPTIMIZER = {
  "optimizer.kind": values.one_of("adamw", "sgd"),
  "optimizer.beta1": values.number(low=0, below=1).or_absent(),
  "optimizer.beta2": values.number(low=0, below=1).or_absent(),
  "optimizer.eps": values.number(above=0).or_absent(),
  "optimizer.clip_norm": values.number(above=0).or_none().or_absent(),
}
_SHAPE = {"task": values.text(), "model": values.group(), "data": values.group()}

# Keys that every task has. The `check` function of a task checks the further keys of the task.
_KINDS = {
  **_SHAPE,
  "seed": values.whole(0),
  "total_steps": values.whole(0),
  "continue_from": values.text(),
  "init_from": values.text(),
  "init_key": values.text(),
  "init_prefix": values.text(),
  "init_encoder_only": values.flag(),
  **{f"{name}_every": values.whole(0) for name in ("log", "save", "panel", "eval", "keep")},
  "eval_every_epochs": values.whole(0),
  "keep_last": values.whole(1),
  "mesh": values.group(),
  **_MESH,
  "accumulate": values.whole(1),
  "total_epochs": values.number(above=0),
  "warmup_epochs": values.number().or_absent(),  # absent: the task counts its warm-up in steps
  "batch_size": values.whole(1),
  "eval_batch_size": values.whole(1),
  "base_lr": values.number(above=0),
  "weight_decay": values.number(low=0),
  "optimizer": values.group(),
  **_OPTIMIZER,
  "model.variant": values.text(),
  "model.image_size": values.pair(values.whole(1), "(H, W)"),
  "model.patch": values.whole(1),
  "model.norm_eps": values.number(low=0, below=1),
  "model.dtype": values.one_of("auto", "float32", "bfloat16"),
  "model.scan": values.flag(),
  "model.remat": values.text(),
  "model.attention": values.text(),
  "data.source": values.text(),
  "data.root": values.text(),
  "data.workers": values.whole(0),
  "data.num_val": values.whole(0),
  "data.max_bad_share": values.number(low=0),
  "data.flip_prob": values.number(low=0, high=1),
}


def finalize(config):
  """Checks a configuration, replaces the value "auto" of model.dtype and freezes it.

  Args:
    config: ml_collections.ConfigDict from a file of `configs/` or of an older run, with the overrides of
      the command line applied.
  Returns:
    FrozenConfigDict.
  Raises:
    ValueError: for a wrong key or value. The message names the key and the remedy.
  """
  config = ml_collections.ConfigDict(complete(config.to_dict()))
  values.check(config, {"task": values.text()})
  task = load("tasks", config.task)
  values.check(config, _KINDS)
  values.check_no_others(config, "mesh", _MESH)
  values.check_no_others(config, "optimizer", _OPTIMIZER)
  warmup_epochs = config.get("warmup_epochs", 0.0)
  require(
    0 <= warmup_epochs <= config.total_epochs,
    "warmup_epochs",
    warmup_epochs,
    f"from 0 to total_epochs={config.total_epochs}",
  )
  for key in ("init_key", "init_prefix", "init_encoder_only"):
    wanted = "no value, because config.init_from names no checkpoint"
    require(config.init_from or not config[key], key, config[key], wanted)
  _finalize_model(config.model)
  config_parts.check(config, getattr(task, "PER_DATA_SET", None))
  task.check(config)
  return ml_collections.FrozenConfigDict(config)


def _finalize_model(model):
  """Checks the group `model` of a configuration and replaces the value "auto" of model.dtype."""
  # These imports are not at the top, because the training command reads its flags before it imports jax.
  import jax

  from hap_jax.models import layers, vit

  vit.variant(model.variant)
  layers.grid_of(model.image_size, model.patch)
  if model.dtype == "auto":
    model.dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  for key, choices in (("remat", layers.REMAT_POLICIES), ("attention", layers.ATTENTIONS)):
    require(model[key] in choices, f"model.{key}", model[key], " or ".join(choices))


def require(holds, key, value, wanted):
  """Raises ValueError unless `holds`. The message names config.<key>, its value and the expected value."""
  if not holds:
    raise ValueError(f"config.{key}={value!r}: expected {wanted}")


def load(kind, name):
  """Imports hap_jax/<kind>/<name>.py, a file that a configuration or a checkpoint names.

  Args:
    kind: a folder such as "tasks" or "data/sources".
    name: file name without its ending.
  Raises:
    ValueError: if the file does not exist. The message lists the existing files.
  """
  known = names(kind)
  if name not in known:
    raise ValueError(
      f"no {kind}/{name or '(empty)'}.py; the configuration must name one of {', '.join(known)}"
    )
  return importlib.import_module(f"hap_jax.{kind.replace('/', '.')}.{name}")


def names(kind):
  """Returns the names of the files of hap_jax/<kind> that `load` can import, in alphabetical order.

  Folders that were added to the `__path__` of the package are included.
  """
  package = importlib.import_module(f"hap_jax.{kind.replace('/', '.')}")
  return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name != "base")


def read_file(name):
  """Reads a configuration: a Python file, such as a file of configs/, or the `config.json` of a run.

  Args:
    name: path of the file. "FILE.py:TEXT" calls get_config(TEXT).
  Returns:
    ConfigDict, not locked. A configuration from JSON is completed with the keys of newer versions.
  Raises:
    ValueError: if the file cannot be read or is not a configuration. The message has one line. It names the
      file and, if the Python code fails, the number of the line.
  """
  path, arguments = config_file.find(name)
  if path.suffix == ".json":
    return from_recorded(config_file.read_json(path), path)
  config = config_file.run(path, arguments)
  _check_shape(config, path)
  return config


def from_recorded(recorded, path):
  """Returns the ConfigDict of a configuration that a run or a checkpoint recorded.

  A configuration of an older version does not have the keys that were added later. Each of these keys gets
  the value that the older version used.

  Args:
    recorded: nested dicts of JSON values.
    path: path of the file, for error messages.
  Raises:
    ValueError: if it is not a configuration. The message names the file.
  """
  try:
    if not isinstance(recorded, dict):
      raise ValueError(f"found {recorded!r:.80}")
    config = ml_collections.ConfigDict(_with_tuples(complete(recorded)))
  except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
    raise ValueError(f"{path}: expected a recorded configuration: {error}") from error
  _check_shape(config, path)
  return config


def _check_shape(config, path):
  try:
    values.check(config, _SHAPE)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def _with_tuples(value):
  """Returns JSON values with each list replaced by a tuple, because configurations use tuples."""
  if isinstance(value, dict):
    return {key: _with_tuples(item) for key, item in value.items()}
  return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def complete(config):
  """Returns the configuration (nested dicts). Keys of newer versions are added if they are missing."""
  flat = values.flatten(config)
  # A key is added only if the configuration has its marker key, see _ADDED_KEYS.
  added = [item for present, keys in _ADDED_KEYS.items() if present in flat for item in keys.items()]
  if "data.source" in flat:
    added += [
      (f"data.{name}.{option}", default)
      for name, options in source_options.defaults().items()
      for option, default in options.items()
    ]
  for key, value in added:
    if key not in flat:
      config = _with_key(config, key.split("."), value)
      flat[key] = value
  return config


def _with_key(config, path, value):
  """Returns a copy of nested dicts with a value added at a path.

  If a parent of the last key is not a dict, nothing is added.
  """
  if not isinstance(config, dict):
    return config
  first, *rest = path
  return {**config, first: _with_key(config.get(first, {}), rest, value) if rest else value}


def replaced(config, key, value):
  """Returns a finalized config in which one key has another value, a JSON value.

  Raises:
    ValueError: if the new configuration is not valid, for example because the value does not fit other keys.
  """
  plain = _with_key(to_plain(config), key.split("."), value)
  return finalize(from_recorded(plain, f"config.{key}={value!r}"))


def to_plain(config):
  """Returns a configuration as nested dicts of JSON values."""
  return json.loads(config.to_json_best_effort())


def check_same(config, workdir):
  """Checks that a configuration fits the configuration recorded in a workdir, if there is one.

  If the recorded configuration does not have a key of a newer version, the value that the older version used
  is compared. The options of data sources that the run does not use are not compared.

  Args:
    config: the finalized config.
    workdir: folder of the run.
  Raises:
    ValueError: if a key that must not change during a run has a different value, or if the recorded
      configuration is damaged.
  """
  path = pathlib.Path(workdir) / CONFIG_FILE
  if not path.exists():
    return
  try:
    changed = changes(config_file.read_json(path), to_plain(config))
  except ValueError as error:
    raise ValueError(f"{error}: restore the file, or give another --workdir") from error
  if changed:
    listed = "; ".join(f"config.{key} was {old!r}, now {new!r}" for key, (old, new) in changed.items())
    raise ValueError(
      f"{workdir} was started with a different configuration: {listed}. Resume it with its own configuration "
      f"({path}), or give another --workdir. To continue it under the new configuration, give a new "
      f"--workdir and --config.continue_from={workdir}; to start from its weights use --config.init_from"
    )


def changes(begun, now):
  """Returns {key: (old value, new value)} of the keys that change the result of a run.

  Keys that a resumed run may change, and the options of sources that the run does not use, are left out.

  Args:
    begun: nested dicts of JSON values, the recorded configuration of an earlier start or of another run. If
      it does not have a key of a newer version, the value that the older version used is compared.
    now: nested dicts of JSON values, the configuration of this start.
  """
  # Added defaults may be tuples, but a JSON file has only lists. Writing both as JSON makes them comparable.
  begun, now = (values.flatten(as_json(plain)) for plain in (complete(begun), now))
  free, unused = _FREE_KEYS | config_parts.place_keys(now), _unused_options(now)
  return {
    key: (begun.get(key, _ABSENT), now.get(key, _ABSENT))
    for key in sorted(begun.keys() | now.keys())
    if key not in free and not key.startswith(unused) and begun.get(key, _ABSENT) != now.get(key, _ABSENT)
  }


def as_json(value):
  """Returns a value as it is after it was written as JSON and read again: a tuple becomes a list."""
  return json.loads(json.dumps(value))


def _unused_options(flat):
  """Returns the key prefixes of the sources that a flat configuration does not use."""
  used = {value for key, value in flat.items() if key.endswith("source")}
  return tuple(f"data.{name}." for name in source_options.defaults() if name not in used)


def record(config, workdir):
  """Writes the configuration into a workdir, unless the workdir already has one."""
  path = pathlib.Path(workdir) / CONFIG_FILE
  if path.exists():
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  # The file is written completely or not at all. So a kill at this point, or several processes that write the
  # file, cannot damage it.
  unfinished.write(path, json.dumps(to_plain(config), indent=2) + "\n")

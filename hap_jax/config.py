"""Configurations: check and derive once, freeze, and find the files that a configuration names."""

import importlib.util
import inspect
import json
import math
import pathlib
import uuid

import jax
import ml_collections
from flax.traverse_util import flatten_dict

from hap_jax.models import layers, vit

CONFIG_FILE = "config.json"

_PLACES = ("annotations", "images")  # options of sources that are files or folders

# A run may be resumed with other values of these; any other difference would make it another run.
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
  "data.root",
  *(f"data.{name}.{what}" for name in ("coco_persons", "pa100k", "peta", "rapv1") for what in _PLACES),
  "probe.root",
  "data.workers",
  "data.max_bad_share",
  "mesh.data",
  "mesh.fsdp",
  "mesh.tensor",
  # Ways to compute the same numbers.
  "align_block",
  "model.attention",
  "model.remat",
  "model.scan",
}


def finalize(config):
  """Checks a configuration, derives what is left open and freezes it.

  Args:
    config: ml_collections.ConfigDict from a file of `configs/`, overrides applied.
  Returns:
    FrozenConfigDict.
  Raises:
    ValueError: naming the key and the remedy.
  """
  config = ml_collections.ConfigDict(config.to_dict())
  task = load("tasks", config.task)
  for key in ("batch_size", "eval_batch_size", "keep_last", "accumulate"):
    require(config[key] >= 1, key, config[key], "at least 1")
  for key in ("seed", "total_steps", "log_every", "save_every", "panel_every", "keep_every"):
    require(config[key] >= 0, key, config[key], "0 or more")
  for key in ("eval_every", "eval_every_epochs", "weight_decay"):
    require(config[key] >= 0, key, config[key], "0 or more")
  for key in ("workers", "num_val", "max_bad_share"):
    require(config.data[key] >= 0, f"data.{key}", config.data[key], "0 or more")
  require(config.total_epochs > 0, "total_epochs", config.total_epochs, "above 0")
  require(
    0 <= config.warmup_epochs <= config.total_epochs,
    "warmup_epochs",
    config.warmup_epochs,
    f"from 0 to total_epochs={config.total_epochs}",
  )
  require(math.isfinite(config.base_lr) and config.base_lr > 0, "base_lr", config.base_lr, "above 0")
  vit.variant(config.model.variant)
  require(len(config.model.image_size) == 2, "model.image_size", config.model.image_size, "(H, W)")
  layers.grid_of(config.model.image_size, config.model.patch)
  if config.model.dtype == "auto":
    config.model.dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  require(
    config.model.dtype in ("float32", "bfloat16"),
    "model.dtype",
    config.model.dtype,
    "auto, float32 or bfloat16",
  )
  for key, choices in (("remat", layers.REMAT_POLICIES), ("attention", layers.ATTENTIONS)):
    require(config.model[key] in choices, f"model.{key}", config.model[key], " or ".join(choices))
  require(0 <= config.data.flip_prob <= 1, "data.flip_prob", config.data.flip_prob, "from 0 to 1")
  try:
    task.check(config)
  except (AttributeError, KeyError) as error:
    key = str(error.args[0]).strip("\"'")
    raise ValueError(
      f"config.task={config.task!r} needs config.{key}, which is not there: begin with a configuration of "
      "configs/ for this task"
    ) from error
  return ml_collections.FrozenConfigDict(config)


def require(holds, key, value, wanted):
  """Raises ValueError that names config.<key>, its value and what was wanted, unless `holds`."""
  if not holds:
    raise ValueError(f"config.{key}={value!r}: expected {wanted}")


def load(kind, name):
  """Imports hap_jax/<kind>/<name>.py, a file that a configuration names.

  Args:
    kind: "tasks" or "data/sources". name: file name without its ending.
  Raises:
    ValueError: naming the files that exist, if this one does not.
  """
  folder = pathlib.Path(__file__).parent / kind
  names = sorted(p.stem for p in folder.glob("*.py") if p.stem not in ("__init__", "base"))
  if name not in names:
    raise ValueError(
      f"no {kind}/{name or '(empty)'}.py; the configuration may name one of {', '.join(names)}"
    )
  return importlib.import_module(f"hap_jax.{kind.replace('/', '.')}.{name}")


def open_source(config, split, place=None):
  """Opens the data source that place.source names, at place.root, with the options of config.data.<its name>.

  Args:
    config: finalized. split: of the source. place: a part of the config; None: config.data.
  """
  # Records are held out of the training data alone.
  num_val = config.data.num_val if place is None else 0
  place = config.data if place is None else place
  options = {"num_val": num_val, **config.data.get(place.source, {})}
  return open_named_source(place.source, root=place.root, split=split, seed=config.seed, options=options)


def open_named_source(name, *, root, split, seed=0, options):
  """Opens a split of the data source `name`, a file of hap_jax/data/sources.

  Args:
    root: folder of the data set. options: {option: value} of this source.
  Raises:
    ValueError: if there is no such source, option or split.
  """
  opener = load("data/sources", name).open_source
  known = set(inspect.signature(opener).parameters) - {"root", "split", "seed"}
  if unknown := sorted(set(options) - known):
    raise ValueError(
      f"data/sources/{name}.py has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}"
    )
  return opener(root=root, split=split, seed=seed, **options)


def read_file(path):
  """Runs a configuration file, such as one of configs/, and returns its ConfigDict.

  Raises:
    ValueError: if there is no such file.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f"--config={path}: no such file")
  spec = importlib.util.spec_from_file_location(f"configuration_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


def to_plain(config):
  """Returns a configuration as nested dicts of JSON values."""
  return json.loads(config.to_json_best_effort())


def check_same(config, workdir):
  """Checks a configuration against the one that a workdir was begun with, if it was.

  Raises:
    ValueError: if the run was begun with other values of keys that make it what it is.
  """
  path = pathlib.Path(workdir) / CONFIG_FILE
  if not path.exists():
    return
  try:
    begun = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f"{path} is damaged ({error}): restore it, or give another --workdir") from error
  begun, now = flatten_dict(begun, sep="."), flatten_dict(to_plain(config), sep=".")
  changed = [key for key in sorted(begun.keys() | now.keys()) if begun.get(key) != now.get(key)]
  changed = [key for key in changed if key not in _FREE_KEYS]
  if changed:
    listed = "; ".join(f"config.{key} was {begun.get(key)!r}, now {now.get(key)!r}" for key in changed)
    raise ValueError(
      f"{workdir} was begun with another configuration: {listed}. Resume it with its own ({path}), or give "
      "another --workdir; to start from its weights use --config.init_from"
    )


def record(config, workdir):
  """Writes the configuration into a workdir that has none yet."""
  path = pathlib.Path(workdir) / CONFIG_FILE
  if path.exists():
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  # Renamed when whole, so that a kill leaves no half of it; each process of a run has a name of its own.
  unfinished = path.with_name(f"{CONFIG_FILE}.{uuid.uuid4().hex}.tmp")
  unfinished.write_text(json.dumps(to_plain(config), indent=2) + "\n")
  unfinished.rename(path)

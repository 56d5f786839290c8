"""Describes a checkpoint in plain JSON values, with the commands that can use it."""

import contextlib
import dataclasses
import math
import pathlib
import re

from hap_jax import config as config_lib
from hap_jax.convert import constants, families, licences, write
from hap_jax.convert import read as reading
from hap_jax.convert.container import kind_of
from hap_jax.convert.lineage import text as lineage_text
from hap_jax.convert.selection import WHOLE
from hap_jax.convert.weights import flatten, grid_text, some
from hap_jax.description import Encoder
from hap_jax.io import checkpoint_file
from hap_jax.models.layers import LAYER_NORM_EPSILON

_LONG = 16  # values; the text names only the length of a longer list
_ENCODER = tuple(field.name for field in dataclasses.fields(Encoder))


def describe(path, *, family="", grid=None, selection=WHOLE):
  """Describes a checkpoint. Executes no code of the file. In a workdir, checks all its checkpoints.

  Args:
    path: as for `read.read`.
    family: as for `read.read`.
    grid: as for `read.read`.
    selection: as for `read.read`.
  Returns:
    plain JSON values. `text` formats them for readers.
  Raises:
    UnsafePickleError, ValueError: same as `read.read`.
  """
  path = pathlib.Path(path)
  weights = reading.read(path, family=family, grid=grid, selection=selection)
  with contextlib.suppress(ValueError):  # a checkpoint can be described without its constants
    weights = constants.complete(weights)
  counts = {stack: _count(tree) for stack, tree in {**weights.params, **weights.constants}.items()}
  described = weights.facts()
  step = {"step": described["step"]} if "step" in described else {}
  return {
    "file": str(path),
    "container": kind_of(path),
    "taken": weights.taken,
    "objects": list(weights.objects),
    "family": weights.family,
    "task": weights.task,
    "stage": _stage(weights),
    **step,
    "model": described["model"],
    "grid_from": weights.grid_from,
    "parameters": counts,
    "heads": _heads(weights, counts),
    "normalization": weights.normalization,
    "unused": list(weights.unused),
    "licence": weights.licence,
    "made_from": weights.made_from,
    "lineage": list(weights.lineage),
    "checkpoints": checkpoint_file.check_all(path) if weights.family == reading.OWN_FAMILY else [],
    "commands": _commands(path, weights, selection),
  }


def text(facts):
  """Returns the result of `describe` as lines of text."""
  model, counts, pixels = facts["model"], facts["parameters"], facts["normalization"]
  variant = f"ViT-{model['variant']}" if model["variant"] else "ViT"
  heads = f"{model['num_heads']} heads" if model["num_heads"] else "number of heads unknown"
  grid = facts["grid_from"]
  if model["grid"]:
    H, W = model["image_size"]
    grid = f"{grid_text(model['grid'])} patches, images of {H} x {W}, height x width ({grid})"
  parts = ", ".join(f"{name} {number:,}" for name, number in _merged(counts, facts["heads"]).items())
  rows = [
    ("format", facts["container"]),
    *([("weights", facts["taken"])] if facts["taken"] else []),
    ("family", facts["family"]),
    ("stage", facts["stage"] + (f", step {facts['step']}" if "step" in facts else "")),
    (
      "encoder",
      f"{variant}, width {model['width']}, {model['depth']} blocks, {heads}{_epsilon_text(model)}"
      f"{_experts_text(model)}",
    ),
    ("grid", grid),
    ("patches", _patches_text(model)),
    ("decoder", _decoder_text(model["decoder"])),
    ("heads", ", ".join(f"{name} ({size})" for name, size in facts["heads"].items()) or "none"),
    *(
      (key, value)
      for key, value in (("network", _network_text(model)), ("assumed", model.get("assumed")))
      if value
    ),
    ("parameters", f"{sum(counts.values()):,} ({parts})"),
    (
      "pixels",
      f"scaled to {pixels.get('range', [0, 1])}, minus {pixels['mean']}, divided by {pixels['std']} "
      f"({pixels['from']})",
    ),
    ("not used", some(facts["unused"]) or "nothing"),
    *([("not read", f"objects of {some(facts['objects'])}")] if facts["objects"] else []),
    ("licence", facts["licence"]),
    *(("made from", licences.text(item)) for item in facts["made_from"]),
    *(("origin", lineage_text(origin)) for origin in facts["lineage"]),
    *(("checkpoint", f"{item['name']}: {item['state']}") for item in facts["checkpoints"]),
    *(("can", command) for command in facts["commands"]),
  ]
  return [facts["file"]] + [f"  {key:10s}  {value}" for key, value in rows]


def _count(tree):
  return sum(math.prod(leaf.shape) for leaf in flatten(tree).values())


def _stage(weights):
  """Returns the training stage and the task of the weights as text."""
  if weights.heads:
    return f"fine-tuned for {weights.task}"
  # A fine-tuned model may have been converted to a family without a head, or only its encoder was read. Then
  # its lineage still records the task of the fine-tuning.
  earlier = [_task_of(origin, weights.task) for origin in weights.lineage]
  fine_tuned = next((task for task in earlier if task != weights.task), None)
  if fine_tuned:
    return f"encoder of a model fine-tuned for {fine_tuned}"
  # The head of a foreign classifier is not used, but the name of the head shows that it is a classifier.
  if any(re.sub(r"[./][^./]*$", "", name).endswith(("head", "classifier")) for name in weights.unused):
    return "encoder of a classifier"
  if weights.decoder:
    return "pre-trained, with its decoder"
  family = None if weights.is_recorded else families.find(weights.family)
  return family.stage if family else "pre-trained, without decoder"


def _task_of(origin, default):
  """Returns the task of an origin, or `default` if neither the origin nor its family states a task."""
  family = families.find(origin["family"])
  return origin.get("task", family.task if family else default)


def _heads(weights, counts):
  """Returns {subtree: its size as text} for all subtrees except encoder and decoder."""
  found = {}
  for name in weights.heads:
    kernel = weights.params[name].get("kernel")
    found[name] = f"{counts[name]:,} parameters" if kernel is None else " -> ".join(map(str, kernel.shape))
  return found


def _merged(counts, heads):
  """Returns the number of parameters of each part, with all heads as one part."""
  rest = sum(counts[name] for name in heads)
  return {k: n for k, n in counts.items() if k not in heads} | ({"heads": rest} if rest else {})


def _experts_text(model):
  count = model.get("num_experts", 1)
  return f", {count} experts with {model['part_features']} outputs in each MLP" if count > 1 else ""


def _patches_text(model):
  class_token = "" if model["class_token"] else ", no class token"
  return f"{model['patch']} x {model['patch']} pixels, padding {model['patch_padding']}{class_token}"


def _epsilon_text(model):
  epsilon = model["norm_eps"]
  return "" if epsilon == LAYER_NORM_EPSILON else f", layer norms with the epsilon {epsilon:g}"


def _network_text(model):
  """Returns the settings of all parts of the network except encoder and decoder, as text."""
  known = {"variant", "image_size", "decoder", "assumed", *_ENCODER}
  rest = {key: value for key, value in model.items() if key not in known and not isinstance(value, dict)}
  return ", ".join(
    f"{key} ({len(value)} values)" if isinstance(value, list) and len(value) > _LONG else f"{key} {value}"
    for key, value in rest.items()
  )


def _decoder_text(decoder):
  if decoder is None:
    return "none"
  return f"width {decoder['width']}, {decoder['depth']} blocks, {decoder['num_heads'] or 'unknown'} heads"


def _commands(path, weights, selection):
  """Returns the command lines that can use the checkpoint.

  If the grid or the number of heads is unknown, one line names the option that sets it.
  """
  start = selection.words(of_run=True)
  start = f"python -m hap_jax.main --config=FILE --config.init_from={path}{start} ..."
  path = f"{path}{selection.words()}"
  if weights.grid is None:
    return [f"hap convert {path} --source_grid=HxW ...: all other commands need the grid first"]
  commands = [start]
  if weights.num_heads is None:
    return [*commands, f"hap convert {path} --num_heads=N ...: all other commands need this number first"]
  # These commands use the tokens after the final norm.
  if "norm" in weights.params["encoder"]:
    verbs = (
      ("embed", "probe", "export") if _holds_constants(weights) else ("embed", "predict", "probe", "export")
    )
    commands += [f"hap {verb} {path} ..." for verb in verbs]
  if weights.variant and _is_trained_here(weights) and not _holds_constants(weights):
    config = "" if weights.description.config else " --config=FILE"
    commands.append(f"hap evaluate {path}{config} ...")
  targets = [target for target in write.targets() if _fits(weights, target)]
  commands += [f"hap convert {path} --to={'|'.join(targets)} ..."] if targets else []
  gap = write.find_gap(weights)
  if gap:
    targets = [target for target in (write.OWN, weights.family) if target not in targets]
    commands.append(f"hap convert {path} --to={'|'.join(targets)} ...: {gap}")
  return commands


def _holds_constants(weights):
  """Returns True for a foreign file with constants. Some commands need them next to a checkpoint."""
  return bool(weights.constants) and weights.family != reading.OWN_FAMILY


def _is_trained_here(weights):
  """Returns True if `hap_jax/tasks` has the task and the description has all sizes of its network."""
  decoder = weights.decoder
  if decoder and decoder["num_heads"] is None:  # the configuration sets it later, so any number works here
    weights = weights.with_network(decoder={**decoder, "num_heads": 1})
  try:
    config_lib.load("tasks", weights.task).network(weights.description)
  except (KeyError, ValueError):
    return False
  return True


def _fits(weights, target):
  # The conversion runs the same checks, so every printed command works.
  try:
    write.check_target(weights, target)
    if target != write.OWN:
      write.to_state(weights, families.load(target))
  except ValueError:
    return False
  return True

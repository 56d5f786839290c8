"""Converts a checkpoint, and proves that the result computes the same outputs.

The steps are: read the source; write the result under a hidden name next to the destination; run source and
result; compare their outputs; rename the result.
"""

import contextlib
import json
import pathlib

from hap_jax import config as config_lib
from hap_jax import malloc
from hap_jax.convert import constants, families, patch_size, real_class, verify, write
from hap_jax.convert import read as reading
from hap_jax.convert.container import weights_file
from hap_jax.convert.selection import WHOLE
from hap_jax.io import unfinished
from hap_jax.io.progress import SILENT

REPORT = "conversion.json"


def convert(
  source,
  out,
  *,
  to=write.OWN,
  grid=None,
  force=False,
  family="",
  source_grid=None,
  heads=(None, None),
  text_encoder="",
  dataset="",
  real=True,
  selection=WHOLE,
  norm_eps=None,
  patch=None,
  progress=SILENT,
):
  """Converts a checkpoint and proves the result. Leaves nothing behind after an error.

  Args:
    source: a path that `read.read` accepts.
    out: the file or folder to make.
    to: one of `write.targets()`.
    grid: (Gh, Gw) to which the position tables are resized. None: the tables keep their size.
    force: True to replace an existing destination.
    family: the family of the source. "": it is detected from the file.
    source_grid: (Gh, Gw) of the source. None: it is found from the file.
    heads: (number of heads of the encoder, number of heads of the decoder). None: it is found from the file.
    text_encoder: a BERT folder with the vocabulary of the text encoder in the file. "": the file records the
      vocabulary, or has no text encoder.
    dataset: label of a data set of the source. Only the network for this data set is written, without
      experts. "": the whole network is written.
    real: True to also run the PyTorch class of the target, if it is installed.
    selection: a `Selection`, the part of the source to convert.
    norm_eps: an epsilon of the layer norms in place of the source's own. None: it does not change.
    patch: side of the patches in pixels to which the patch kernels are resized. None: they keep their side.
    progress: a started `Progress` that counts the steps of the conversion.
  Returns:
    the report, plain JSON values. It is also written to conversion.json, in the result folder or next to the
    result file.
  Raises:
    UnsafePickleError: if the pickle of the source is built in a way that no writer uses.
    ValueError: if the source cannot be read, the target cannot hold the source, the destination exists or
      contains the source, or the outputs differ.
    OSError: if the destination cannot be written.
  """
  out = pathlib.Path(out)
  _check_destination(source, out, to, force)
  progress.begin(5 if real else 4, "steps")
  progress.stage("reading the source")
  weights = reading.read(source, family=family, grid=source_grid, selection=selection)
  weights, notes = _with_norm_eps(_with_heads(weights, heads), norm_eps)
  weights, more_notes = patch_size.resize(weights, patch)
  notes += more_notes
  weights = _with_text_encoder(weights, text_encoder)
  if dataset:
    weights = _of_data_set(source, weights, dataset)
  if write.holds_constants(to):
    weights = constants.complete(weights)
  source_grid = weights.grid  # the proof needs the grid before the resize
  weights, resized = write.regrid(weights, grid)
  write.check_target(weights, to)
  setting = verify.Setting.of(weights, source_grid, selection, norm_eps)
  progress.stage("writing the result", add=1)
  with contextlib.ExitStack() as ends:  # at the end, first the result gets its name, then the report
    report = None
    if not write.makes_folder(to):
      report = ends.enter_context(unfinished.named_at_end(out.with_name(REPORT)))
    part = ends.enter_context(unfinished.named_at_end(out, replace=force))
    written = write.write(part, weights, to)
    facts, is_own = _facts(source, weights, to, written, resized, notes), weights.family == reading.OWN_FAMILY
    outputs = verify.outputs_of(setting, None if to == write.OWN else families.load(to).stacks)
    del weights  # frees memory for the proof, which reads both files again
    facts["proof"] = _prove(source, part, is_own, to, setting, outputs, real, progress)
    if report is None:
      (part / REPORT).write_text(_json(facts))
    else:
      report.write_text(_json({**_reports_beside(out), out.name: facts}))
  return facts


def _check_destination(source, out, to, force):
  write.check_container(out, to)
  if not out.parent.is_dir():
    raise ValueError(f"--out={out}: there is no folder {out.parent}; make it first")
  if out.exists():
    _check_apart(source, out)
  if out.exists() and not force:
    raise ValueError(f"--out={out} exists; give another path, or --force to replace it")
  if out.is_dir() and not write.makes_folder(to):
    raise ValueError(f"--out={out} is a folder, but --to={to} makes a file; give the name of a file")
  # --force must never delete a folder with other files.
  if out.is_dir() and any(out.iterdir()) and not _is_result(out):
    raise ValueError(f"--out={out} is not the result of a conversion: --force does not replace it")
  if not write.makes_folder(to):
    _reports_beside(out)  # raises an error now, not after the conversion


def _check_apart(source, out):
  """Raises ValueError if `out` is the source, its file of weights, or a folder that contains the source."""
  source, place = pathlib.Path(source), out.resolve()
  is_shard = place.parent == source.resolve() and place.suffix in (".safetensors", ".bin")
  if is_shard or place in (source.resolve(), (weights_file(source) or source).resolve()):
    raise ValueError(f"--out={out} is the source itself")
  if source.resolve().is_relative_to(place):
    raise ValueError(f"--out={out} holds the source {source}: give another path")


def _is_result(folder):
  """Returns True if a conversion made this folder.

  In a folder that a conversion made, conversion.json is one report. If results are files, conversion.json is
  next to them and holds {file name: report}. So a folder with such files is not a result.
  """
  path = folder / REPORT
  try:
    return path.is_file() and _is_report(json.loads(path.read_text()))
  except ValueError:
    return False


def _is_report(value):
  return isinstance(value, dict) and "proof" in value  # other programs may also write a conversion.json


def _with_heads(weights, heads):
  """Returns the Weights with the numbers of heads that the caller gave. Shapes of tensors do not show them.

  Raises:
    ValueError: if a number does not divide the width, or differs from the known number.
  """
  num_heads, decoder_heads = heads
  file, decoder = weights.lineage[0]["file"], weights.decoder
  if num_heads is not None:
    _check_heads(f"--num_heads={num_heads}: {file}", num_heads, weights.num_heads, weights.width)
    weights = weights.with_encoder(num_heads=num_heads)
  if decoder is not None and decoder_heads is not None:
    option = f"--decoder_heads={decoder_heads}: the decoder of {file}"
    _check_heads(option, decoder_heads, decoder["num_heads"], decoder["width"])
    weights = weights.with_network(decoder={**decoder, "num_heads": decoder_heads})
  return weights


def _with_norm_eps(weights, norm_eps):
  """Returns (Weights with the epsilon that the caller gave, lines of text about the change)."""
  own = weights.description.encoder.norm_eps
  if norm_eps in (None, own):
    return weights, ()
  if not 0 < norm_eps < 1:
    raise ValueError(f"--norm_eps={norm_eps:g}: expected a number between 0 and 1")
  note = f"the epsilon of the layer norms is {norm_eps:g} in place of {own:g}: the features change"
  return weights.with_encoder(norm_eps=norm_eps), (note,)


def _check_heads(option, given, known, width):
  if given < 1 or width % given or known not in (None, given):
    expected = "a number from 1 that divides the width" if known is None else f"its {known} heads"
    raise ValueError(f"{option} has width {width}, expected {expected}")


def _with_text_encoder(weights, folder):
  """Returns the Weights with the vocabulary of their text encoder, from the file or from a BERT folder."""
  family = families.find(weights.family)
  if family is not None and family.add_text_encoder is not None:
    return family.add_text_encoder(weights, folder)
  if folder:
    raise ValueError(
      f"--text_encoder={folder}: expected a file of a family with a text encoder, but "
      f"{weights.lineage[0]['file']} is of the family {weights.family}; remove --text_encoder"
    )
  return weights


def _of_data_set(source, weights, label):
  """Returns the Weights of the network for one data set of the source."""
  task = config_lib.load("tasks", weights.task)
  if not hasattr(task, "of_data_set"):
    raise ValueError(
      f"--dataset={label}: networks of the task {weights.task} have no part for single data sets"
    )
  return task.of_data_set(weights, label)


def _facts(source, weights, to, written, resized, notes):
  return {
    "source": str(source),
    "family": weights.family,
    "taken": weights.taken,
    "to": to,
    "task": weights.task,
    "model": weights.facts()["model"],
    "grid_from": weights.grid_from,
    "parameters": written.num_parameters,
    "tensors": written.num_tensors,
    "resized": list(resized),
    "notes": list(notes),
    "missing": list(written.missing),
    "unused": [*weights.unused, *written.dropped],
    "placeholders": list(written.placeholders),
    "licence": weights.licence,
    "made_from": weights.made_from,
    "lineage": list(weights.lineage),
  }


def _prove(source, part, is_own, to, setting, outputs, real, progress):
  """Runs source and result on the same pictures and compares their outputs.

  Args:
    source: the path of the source.
    part: the path of the written file or folder.
    is_own: True if the source is a checkpoint of this project.
    to: one of `write.targets()`.
    setting: a `verify.Setting`.
    outputs: the names of the outputs to compare.
    real: True to also run the PyTorch class of the target.
    progress: as in `convert`. Its first two steps are done.
  Returns:
    the report's entry "proof", as a dict.
  Raises:
    ValueError: if an output differs.
  """
  target = None if to == write.OWN else families.load(to)
  progress.stage("computing the outputs of the source", add=1)
  malloc.return_freed()
  want = verify.run_own(source, setting) if is_own else verify.run_foreign(source, setting)
  progress.stage("computing the outputs of the result", add=1)
  malloc.return_freed()
  got = verify.run_written(part, setting, target)
  errors = verify.compare(want, got, outputs)
  proof = {
    "pictures": "2 pictures of normal noise, half of the patches hidden from the decoder",
    "tolerance": verify.MAX_ERROR,
    "max_abs_error": max(error["max_abs_error"] for error in errors.values()),
    "outputs": errors,
  }
  if not real:
    return {**proof, "real_class": "not asked for"}
  progress.stage("computing the outputs of the PyTorch class", add=1)
  found, name = real_class.outputs(part, target, setting, verify.make_batch(setting))
  if found is None:
    return {**proof, "real_class": name}
  return {**proof, "real_class": {"name": name, "outputs": verify.compare(want, found, tuple(found))}}


def _reports_beside(out):
  """Returns {file name: report} from the conversion.json next to a file.

  Raises:
    ValueError: if conversion.json is not a report of conversions.
  """
  path = out.with_name(REPORT)
  if not path.exists():
    return {}
  try:
    reports = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f"{path}: expected a report of conversions ({error}): move the file away") from error
  if not isinstance(reports, dict) or not all(map(_is_report, reports.values())):
    raise ValueError(f"{path}: expected a report of conversions, found other content: move the file away")
  return reports


def _json(facts):
  return json.dumps(facts, indent=2) + "\n"

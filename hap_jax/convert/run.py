"""A conversion with its proof: read, write beside the destination, run both sides, compare, then rename."""

import contextlib
import json
import pathlib

from hap_jax import malloc
from hap_jax.convert import families, real_class, verify, write
from hap_jax.convert import read as reading
from hap_jax.convert import source as sources
from hap_jax.io import unfinished

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
  real=True,
):
  """Converts a checkpoint and proves it; nothing is left behind if anything is wrong.

  Args:
    source: as `read.read` takes. out: file or folder to make. to: one of `write.targets()`.
    grid: (Gh, Gw) to resize position tables to; None: as they are. force: replace what is there.
    family, source_grid: of the source, where it does not tell them itself.
    heads: (encoder's, decoder's), where the source and its sizes do not tell them.
    real: compare with the class of the other project too, where it is installed.
  Returns:
    the report, plain JSON values; it is also in conversion.json, inside a folder or beside a file.
  Raises:
    UnsafePickleError, ValueError: if the source cannot be read, the target cannot hold it, the destination
      exists or holds the source, or both sides differ. OSError: if the destination cannot be written.
  """
  out = pathlib.Path(out)
  _check_destination(source, out, to, force)
  weights = _with_heads(reading.read(source, family=family, grid=source_grid), heads)
  source_grid = weights.grid
  weights, resized = write.regrid(weights, grid)
  write.check_target(weights, to)
  setting = verify.Setting.of(weights, source_grid)
  with contextlib.ExitStack() as ends:  # the last that is entered gets its name first
    report = None
    if not write.makes_folder(to):
      report = ends.enter_context(unfinished.named_at_end(out.with_name(REPORT)))
    part = ends.enter_context(unfinished.named_at_end(out, replace=force))
    written = write.write(part, weights, to)
    facts, is_own = _facts(source, weights, to, written, resized), weights.family == reading.OWN_FAMILY
    outputs = verify.outputs_of(setting, None if to == write.OWN else families.load(to).stacks)
    del weights  # the proof needs the memory
    facts["proof"] = _prove(source, part, is_own, to, setting, outputs, real)
    if report is None:
      (part / REPORT).write_text(_json(facts))
    else:
      report.write_text(_json({**_reports_beside(out), out.name: facts}))
  return facts


def _check_destination(source, out, to, force):
  write.check_container(out, to)
  if not out.parent.is_dir():
    raise ValueError(f"--out={out}: there is no folder {out.parent}")
  if out.exists():
    _check_apart(source, out)
  if out.exists() and not force:
    raise ValueError(f"--out={out} exists; give another, or --force to replace it")
  if out.is_dir() and not write.makes_folder(to):
    raise ValueError(f"--out={out} is a folder, --to={to} makes a file")
  if out.is_dir() and any(out.iterdir()) and not _is_result(out):
    raise ValueError(f"--out={out} is no result of a conversion: --force does not replace it")
  if not write.makes_folder(to):
    _reports_beside(out)


def _check_apart(source, out):
  """Raises ValueError if what is at `out` is the source, of a folder its weights, or holds it."""
  source, place = pathlib.Path(source), out.resolve()
  if place in (source.resolve(), (sources.weights_file(source) or source).resolve()):
    raise ValueError(f"--out={out} is the source itself")
  if source.resolve().is_relative_to(place):
    raise ValueError(f"--out={out} holds the source {source}: give another")


def _is_result(folder):
  """Tells if a conversion made a folder: the report in it is then of itself, not of files beside it."""
  path = folder / REPORT
  try:
    return path.is_file() and _is_report(json.loads(path.read_text()))
  except ValueError:
    return False


def _is_report(value):
  return isinstance(value, dict) and "proof" in value


def _with_heads(weights, heads):
  """Fills in the numbers of heads that neither the file nor its sizes tell."""
  num_heads, decoder_heads = heads
  file, decoder = weights.lineage[0]["file"], weights.decoder
  if num_heads is not None:
    _check_heads(f"--num_heads={num_heads}: {file}", num_heads, weights.num_heads, weights.width)
    weights = weights.with_encoder(num_heads=num_heads)
  if decoder is not None and decoder_heads is not None:
    what = f"--decoder_heads={decoder_heads}: the decoder of {file}"
    _check_heads(what, decoder_heads, decoder["num_heads"], decoder["width"])
    weights = weights.with_network(decoder={**decoder, "num_heads": decoder_heads})
  return weights


def _check_heads(what, given, known, width):
  if given < 1 or width % given or known not in (None, given):
    expected = "a number from 1 that divides it" if known is None else f"its {known} heads"
    raise ValueError(f"{what} is {width} wide, expected {expected}")


def _facts(source, weights, to, written, resized):
  return {
    "source": str(source),
    "family": weights.family,
    "to": to,
    "task": weights.task,
    "model": weights.facts()["model"],
    "grid_from": weights.grid_from,
    "parameters": written.num_parameters,
    "tensors": written.num_tensors,
    "resized": list(resized),
    "missing": list(written.missing),
    "unused": [*weights.unused, *written.dropped],
    "licence": weights.licence,
    "made_from": weights.made_from,
    "lineage": list(weights.lineage),
  }


def _prove(source, part, is_own, to, setting, outputs, real):
  """Runs both sides on the same pictures and compares these outputs; returns what the report says of it."""
  target = None if to == write.OWN else families.load(to)
  malloc.return_freed()
  want = verify.run_own(source, setting) if is_own else verify.run_foreign(source, setting)
  malloc.return_freed()
  got = verify.run_written(part, setting, target)
  errors = verify.compare(want, got, outputs)
  proof = {
    "pictures": "2 of normal noise, half of the patches hidden from the decoder",
    "tolerance": verify.MAX_ERROR,
    "max_abs_error": max(error["max_abs_error"] for error in errors.values()),
    "outputs": errors,
  }
  if not real:
    return {**proof, "real_class": "not asked for"}
  found, name = real_class.outputs(part, target, setting, verify.make_batch(setting))
  if found is None:
    return {**proof, "real_class": name}
  return {**proof, "real_class": {"name": name, "outputs": verify.compare(want, found, tuple(found))}}


def _reports_beside(out):
  """Returns {file name: report} of the conversion.json beside a file."""
  path = out.with_name(REPORT)
  if not path.exists():
    return {}
  try:
    reports = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f"{path} is no report of conversions ({error}): move it away") from error
  if not isinstance(reports, dict) or not all(map(_is_report, reports.values())):
    raise ValueError(f"{path} is no report of conversions: move it away")
  return reports


def _json(facts):
  return json.dumps(facts, indent=2) + "\n"

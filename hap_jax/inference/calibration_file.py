"""The file calibration.json of a checkpoint: thresholds, and curves from scores to probabilities.

`hap calibrate` writes it beside the weights: into the folder of the checkpoint, or as
<file>.calibration.json next to a file of weights. It holds for these weights and for one feature only. Anyone
may have written a file, so every value is checked when it is read.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import pathlib
import reprlib
from typing import Any

from hap_jax.convert import read as reading
from hap_jax.convert.container import weights_file
from hap_jax.convert.selection import WHOLE
from hap_jax.convert.weights import flatten
from hap_jax.io import checkpoint_digests, checkpoint_file, regular_file, unfinished
from hap_jax.metrics.calibration import METHODS, Curve

FILE = "calibration.json"
NONE = "none"  # value of --calibration for commands that must not use a calibration
KINDS = ("picture", "text")  # kinds of queries
_FORMAT = 1
_MAX_BYTES = 2**24
_MOST_POINTS = 100_000  # of a curve
_DIGITS = 9  # of the numbers of a curve; the file would be twice as large with all digits


@dataclasses.dataclass(frozen=True)
class QueryCalibration:
  """The threshold and the curve of one kind of query.

  Attributes:
    threshold: the lowest score that passes.
    far: the FAR for which the threshold was chosen.
    tar: share of the pairs of one person that pass, on the data of the calibration.
    prior: the probability of one person before two pictures are compared.
    curve: the `Curve` from scores to probabilities.
    facts: further plain JSON values: numbers of persons and pairs, camera rule, quality.
  """

  threshold: float
  far: float
  tar: float
  prior: float
  curve: Curve
  facts: dict[str, Any]

  def judge(self, score):
    """Returns {"probability": float, "passes": bool} of a score."""
    probability = float(self.curve.probability(score, self.prior))
    return {"probability": round(probability, 6), "passes": bool(score >= self.threshold)}

  def to_json(self):
    """Returns the numbers that a result needs, as plain JSON values."""
    return {name: getattr(self, name) for name in ("threshold", "far", "prior")}


@dataclasses.dataclass(frozen=True)
class CalibrationFile:
  """The content of a calibration file.

  Attributes:
    weights: the digest of the weights, see `digest`.
    feature: the kind of the vectors, see `embed.Extractor`.
    data: the data source of the calibration.
    date: the day of the calibration, such as "2025-01-31".
    version: the version of this project that wrote the file.
    queries: {kind of query: QueryCalibration}.
  """

  weights: str
  feature: str
  data: str
  date: str
  version: str
  queries: dict[str, QueryCalibration]


def add_argument(parser):
  """Adds --calibration to the arguments of a command that computes scores."""
  parser.add_argument(
    "--calibration",
    default="",
    metavar="FILE",
    help=f"file that hap calibrate wrote, or {NONE} (default: the file beside the weights, if it exists)",
  )


def digest(weights):
  """Returns a digest of the arrays of a checkpoint's `convert.weights.Weights`, as text.

  Optimizer moments do not count. Weights that a checkpoint stores elsewhere count by the digest that its
  description records.
  """
  arrays = {path: leaf for tree in weights.variables.values() for path, leaf in flatten(tree).items()}
  lines = [f"{path} {checkpoint_digests.digest_array(arrays[path])}" for path in sorted(arrays)]
  stored = weights.description.network
  lines += [f"{key} {stored[key]}" for key in sorted(stored) if key.endswith("_digest")]
  return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def place(path, weights=None):
  """Returns the path of the calibration file of a checkpoint, a pathlib.Path. The file need not exist.

  Args:
    path: the path of the checkpoint, as the user gave it.
    weights: the `convert.weights.Weights` that were read from it. None: they were not read yet.
  """
  path = pathlib.Path(path)
  if path.is_file():
    return path.with_name(f"{path.name}.{FILE}")
  if checkpoint_file.is_checkpoint(path) or weights_file(path) is not None:
    return path / FILE
  # A workdir has several checkpoints. The description says which of them was read.
  step = None if weights is None else weights.description.more.get("step")
  folder = checkpoint_file.folder_of(path) / str(step)
  return (folder if folder.is_dir() else checkpoint_file.find(path) or path) / FILE


def find(option, path, weights):
  """Returns (path of the calibration file, CalibrationFile) of a checkpoint, or None.

  Args:
    option: the value of --calibration: a file, `NONE`, or "" for the file beside the weights, if it exists.
    path, weights: as in `place`.
  Raises:
    ValueError: if the file has another form, or was made for other weights.
    OSError: if the file of the option is missing, or cannot be read.
  """
  if option == NONE:
    return None
  file = pathlib.Path(option) if option else place(path, weights)
  if not option and not file.exists():
    return None
  found = read(file)
  if found.weights != digest(weights):
    raise ValueError(
      f"{file}: was made for other weights than {path}: make it again with hap calibrate {path}, or pass "
      f"--calibration={NONE}"
    )
  return file, found


def find_for_query(option, path, weights, *, feature, kind):
  """Returns the `QueryCalibration` for a command that computes scores, or None.

  Args:
    option, path, weights: as in `find`.
    feature: the kind of the vectors that the command computes.
    kind: the kind of the query.
  Raises:
    ValueError, OSError: as in `find`. Also if the file was made for another feature.
  """
  found = find(option, path, weights)
  if found is None:
    return None
  file, content = found
  if content.feature != feature:
    raise ValueError(
      f"{file}: was made for the feature {content.feature}, but the scores are of the feature {feature}: "
      f"set --feature={content.feature}, or pass --calibration={NONE}"
    )
  return content.queries.get(kind)


def explain_missing(path, feature, kind):
  """Returns a line that says why there are only scores."""
  text = f"no calibration for {kind} queries, so there is neither a probability nor a threshold"
  return f"{text}: make it with hap calibrate {path}" if feature == "embedding" else text


def carry(source, out, *, family="", grid=None, selection=WHOLE):
  """Copies the calibration of a checkpoint to the result of its conversion, for the weights of the result.

  Args:
    source: the path of the checkpoint.
    out: the path of the result. Its proof has shown that the outputs are the same.
    family: as in `convert.read.read`, for the source.
    grid: the same.
    selection: the same.
  Returns:
    a line about the result, or "" if the checkpoint has no calibration.
  Raises:
    ValueError: if the file has another form.
    OSError: if the copy cannot be written.
  """
  file = place(source)
  if not file.exists():
    return ""
  content = read(file)
  before = reading.read(source, family=family, grid=grid, selection=selection)
  after = reading.read(out)
  if content.weights != digest(before):
    return f"calibration: not copied, because {file} was made for other weights"
  if after.task != before.task:
    return f"calibration: not copied, because {out} is for the task {after.task}"
  if after.grid != before.grid:
    return "calibration: not copied, because the grid has changed: make it again with hap calibrate"
  copy = place(out, after)
  write(copy, dataclasses.replace(content, weights=digest(after)))
  return f"calibration: {copy}"


def write(path, content):
  """Writes a `CalibrationFile`, completely or not at all."""
  queries = {}
  for kind, one in content.queries.items():
    numbers = {name: getattr(one, name) for name in ("threshold", "far", "tar", "prior")}
    score, ratio = ([round(x, _DIGITS) for x in points] for points in (one.curve.score, one.curve.log_ratio))
    curve = {"method": one.curve.method, "score": score, "log_ratio": ratio}
    queries[kind] = {**numbers, **one.facts, "curve": curve}
  head = {name: getattr(content, name) for name in ("weights", "feature", "data", "date", "version")}
  text = json.dumps({"format": _FORMAT, **head, "queries": queries}, indent=1)
  unfinished.write(path, text + "\n")


def read(path):
  """Reads a `CalibrationFile`.

  Raises:
    OSError: if the file is missing or cannot be read.
    ValueError: if its content has another form. The message names the key.
  """
  try:
    values = json.loads(regular_file.read_bytes(path, _MAX_BYTES))
    if not isinstance(values, dict) or values.get("format") != _FORMAT:
      found = values.get("format", "no format") if isinstance(values, dict) else "no object"
      raise ValueError(f'"format" is {reprlib.repr(found)}, expected {_FORMAT}')
    texts = {name: _get(values, name, str) for name in ("weights", "feature", "data", "date", "version")}
    queries = _get(values, "queries", dict)
    if not queries or not queries.keys() <= set(KINDS):
      raise ValueError(
        f'"queries" has the keys {reprlib.repr(list(queries))}, expected {" and ".join(KINDS)}'
      )
    return CalibrationFile(
      **texts, queries={kind: _read_query(_get(queries, kind, dict)) for kind in queries}
    )
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path}: not a calibration that hap calibrate wrote: {error}") from error


def _read_query(values):
  """Returns the `QueryCalibration` of plain JSON values."""
  numbers = {name: _number(values, name) for name in ("threshold", "far", "tar", "prior")}
  for name, value in numbers.items():
    low, high = (-2, 2) if name == "threshold" else (0, 1)
    if not (low < value < high or (name == "tar" and low <= value <= high)):
      raise ValueError(f'"{name}" is {value}, expected a number between {low} and {high}')
  curve = _get(values, "curve", dict)
  method = _get(curve, "method", str)
  if method not in METHODS:
    raise ValueError(f'"method" is {reprlib.repr(method)}, expected {" or ".join(METHODS)}')
  points = [_numbers(curve, name) for name in ("score", "log_ratio")]
  if len(points[0]) != len(points[1]):
    raise ValueError(f'"score" has {len(points[0])} numbers and "log_ratio" {len(points[1])}')
  known = {*numbers, "curve"}
  facts = {name: value for name, value in values.items() if name not in known}
  return QueryCalibration(**numbers, curve=Curve(method, *points), facts=facts)


def _get(values, name, kind):
  """Returns the value of a key. Raises ValueError if it is missing or has another type."""
  value = values.get(name)
  if not isinstance(value, kind):
    words = {str: "a text", dict: "an object", list: "a list"}
    raise ValueError(f'"{name}" is {reprlib.repr(value)}, expected {words[kind]}')
  return value


def _number(values, name):
  """Returns the finite number of a key as float."""
  value = values.get(name)
  if not _is_finite(value):
    raise ValueError(f'"{name}" is {reprlib.repr(value)}, expected a finite number')
  return float(value)


def _numbers(values, name):
  """Returns the finite numbers of a key, which ascend, as a tuple of floats."""
  found = _get(values, name, list)
  if not 1 <= len(found) <= _MOST_POINTS or not all(map(_is_finite, found)):
    raise ValueError(f'"{name}" is {reprlib.repr(found)}, expected 1 to {_MOST_POINTS:,} finite numbers')
  if any(a > b for a, b in itertools.pairwise(found)):
    raise ValueError(f'the numbers of "{name}" do not ascend')
  return tuple(map(float, found))


def _is_finite(value):
  try:
    return type(value) in (int, float) and math.isfinite(value)
  except OverflowError:  # a whole number beyond float64
    return False

"""Makes the calibration of a checkpoint from the test persons of a data set."""

import datetime
import pathlib

import hap_jax
from hap_jax import config_parts
from hap_jax.convert import read as reading
from hap_jax.convert.selection import WHOLE
from hap_jax.inference import calibration_file, scoring, verifying
from hap_jax.inference.calibration_file import CalibrationFile, QueryCalibration
from hap_jax.io.progress import SILENT
from hap_jax.metrics import roc

FEATURE = "embedding"  # the feature of the rows of an Evaluation


def calibrate(
  path,
  *,
  far,
  prior,
  config=None,
  overrides=None,
  dataset="",
  selection=WHOLE,
  out=None,
  force=False,
  say=print,
  progress=SILENT,
):
  """Scores a checkpoint, and writes its calibration file.

  Args:
    path: a checkpoint that `convert.read.read` can read, of a task that searches for persons.
    far: the share of pairs of two persons that may pass the threshold.
    prior: the probability of one person before two pictures are compared.
    config, overrides: as in `scoring.score`.
    dataset: label of the data set, if the configuration has several.
    selection: a `Selection`, the part of the checkpoint to read.
    out: the file to write. None: `calibration_file.place`.
    force: True: replace an older file.
    say: prints a line.
    progress: a `Progress`. This function starts and ends it.
  Returns:
    the path of the file.
  Raises:
    ValueError: as in `scoring.score` and `verifying.measure`. Also if the file exists, if the data has fewer
      pairs than the FAR needs, if it has too few persons, or if there are several data sets.
    OSError: if the file cannot be written.
  """
  if not 0 < far < 1:
    raise ValueError(f"--far={far:g}: expected a number above 0 and below 1")
  verifying.check_prior(prior)
  with progress:
    progress.stage("reading the checkpoint")
    weights = reading.read(path, selection=selection)
    file = calibration_file.place(path, weights) if out is None else pathlib.Path(out)
    if file.exists() and not force:
      raise ValueError(f"{file} exists: pass --force to replace it, or --out=FILE to write another file")
    name = scoring.configure(path, weights, config, overrides or {}, dataset).data.source
    if config_parts.joins(name):
      raise ValueError(f"{path}: its configuration has several data sets: choose one with --dataset=LABEL")
    found = scoring.score_weights(
      path, weights, config, overrides or {}, progress, dataset=dataset, has_searches=True
    )
    progress.stage("comparing all pairs")
    measured = verifying.measure(found.evaluation.searches(found.rows), prior=prior, fars=(far,))
    source = found.config.data.source
    content = CalibrationFile(
      weights=calibration_file.digest(weights),
      feature=FEATURE,
      data=source,
      date=datetime.date.today().isoformat(),
      version=hap_jax.__version__,
      queries={kind: _of_measured(kind, one, far, source) for kind, one in measured.items()},
    )
    calibration_file.write(file, content)
  for line in verifying.describe(measured):
    say(line)
  say(f"written: {file}")
  return file


def _of_measured(kind, measured, far, source):
  """Returns the `QueryCalibration` of a `verifying.Measured`."""
  found = measured.verification
  at = found.points[far]
  if at is None:
    raise ValueError(
      f"--far={far:g} needs {roc.num_needed(far):,} pairs of two persons, but {source} has "
      f"{found.pairs.num_impostor:,} for {kind} queries: use a larger data set, or a FAR of at least "
      f"{roc.LEAST_ALARMS / found.pairs.num_impostor:.2g}"
    )
  if measured.calibration is None:
    raise ValueError(f"{kind} queries of {source}: {measured.problem}")
  whole = measured.to_json()
  names = ("camera_rule", "persons", "queries", "gallery", "genuine_pairs", "impostor_pairs", "calibration")
  at_far, *_ = whole["tar_at_far"]
  facts = {name: whole[name] for name in names} | {"at_threshold": at_far}
  made = measured.calibration
  return QueryCalibration(at.threshold, far, at.tar.value, made.prior, made.curve, facts)

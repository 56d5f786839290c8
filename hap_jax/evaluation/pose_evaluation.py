"""Scores and pictures of the predictions of 2D pose on one data set."""

import os

import numpy as np

from hap_jax.evaluation.evaluate import Evaluation
from hap_jax.viz import pose_report

_WORST = 24  # people in the picture of the worst predictions
_CURVE_POINTS = 121


def make(evals, scorer, source, notes):
  """Makes the Evaluation of a data set.

  Args:
    evals: {"val": EvalSplit}, or {} if only files of results can be scored.
    scorer: from `pose_scorers.of`.
    source: the records of the split.
    notes: see `Evaluation`.
  """
  return Evaluation(
    evals=evals,
    score=make_score(scorer, len(source)),
    row_figures=make_row_figures(scorer, source),
    select=(scorer.select, "max"),
    notes=notes,
    write_results=lambda splits, folder: scorer.write(splits["val"], folder),
    read_results=scorer.read,
  )


def make_score(scorer, num_records):
  """Returns the score function: {"val": rows} -> {metric: float}.

  A person whose picture cannot be read counts as missed. If there are such people, "unread" is their number.

  Args:
    scorer: from `pose_scorers.of`.
    num_records: number of records of the split.
  """

  def score(splits):
    rows = splits["val"]
    num_unread = num_records - len(rows["index"])
    return scorer.score(rows) | ({"unread": float(num_unread)} if num_unread else {})

  return score


def make_row_figures(scorer, source):
  """Returns a function rows -> {name: picture}, which draws the predictions on the split "val".

  The picture "joints" shows the score of each joint, and the curve of the score over the threshold. The
  picture "worst" shows the people with the worst predictions, with predicted and true joints. Joints that are
  never labelled in the split are not drawn.

  Args:
    scorer: from `pose_scorers.of`.
    source: the records of the split.
  """

  def row_figures(splits):
    errors = scorer.errors(splits["val"])
    scale = errors.scale
    thresholds = np.linspace(0, scale.limit, _CURVE_POINTS)
    people = f"{len(errors.record):,} people of val"
    pictures = {
      "joints": pose_report.accuracy_chart(
        scorer.skeleton.joints,
        errors.joint_shares(),
        thresholds,
        errors.curve(thresholds),
        score=scale.score,
        marks=((scale.threshold, scale.score),),
        unit=scale.unit,
        full=scale.full,
        title=f"{people}; {scorer.note}" if scorer.note else people,
      )
    }
    # A joint that is never labelled was not trained, either, so its prediction has no meaning.
    is_known = errors.is_labelled.any(axis=0)[:, None]
    shown = [
      pose_report.ShownPerson(
        image=source[int(errors.record[i])]["image"],
        region=errors.region[i],
        truth_xy=errors.truth_xy[i],
        is_labelled=errors.is_labelled[i],
        xy=np.where(is_known, errors.xy[i], np.nan),
        title=errors.remarks[i],
        name=os.path.basename(source.name(int(errors.record[i]))),
      )
      for i in errors.worst(_WORST)
    ]
    if shown:
      title = f"The worst {len(shown)} of {people}"
      pictures["worst"] = pose_report.people_sheet(shown, scorer.skeleton, title=title, note=errors.note)
    return pictures

  return row_figures

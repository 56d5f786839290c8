"""Joins the evaluations of several data sets to one."""

import dataclasses
import pathlib

from hap_jax.evaluation.evaluate import Evaluation


@dataclasses.dataclass(frozen=True)
class _Part:
  """One of the joined evaluations.

  Attributes:
    label: its label, or "".
    evaluation: the `Evaluation`.
  """

  label: str
  evaluation: Evaluation

  def named(self, values):
    """Returns {name: value} with the label and an underscore before each name."""
    return {f"{self.label}_{name}" if self.label else name: value for name, value in values.items()}

  def rows(self, splits):
    """Returns the rows of the splits of this evaluation under their own names."""
    names = self.named({name: name for name in self.evaluation.evals})
    return {name: splits[joined] for joined, name in names.items()}


def join(evaluations, mean_of=""):
  """Joins evaluations. A label and an underscore is put before the names of splits, scores and pictures.

  Args:
    evaluations: {label: Evaluation}. An evaluation with the label "" keeps its names.
    mean_of: name of a score of all evaluations. Its mean over the evaluations is added as "mean_<name>", and
      the highest mean selects the best checkpoint. "": the score that selects the best checkpoint is that of
      the first evaluation.
  Returns:
    Evaluation. Each data set has its own folder of results files. They cannot be read together.
  """
  parts = [_Part(label, evaluation) for label, evaluation in evaluations.items()]

  def score(splits):
    scores, compared = {}, []
    for part in parts:
      found = part.evaluation.score(part.rows(splits)) if part.evaluation.evals else {}
      scores |= part.named(found)
      compared += [found[mean_of]] if mean_of else []
    return scores | ({f"mean_{mean_of}": sum(compared) / len(compared)} if mean_of else {})

  def of_all(field, input_of=lambda part, splits: part.rows(splits)):
    """Returns a function that joins the results of this field in all parts that have it, or None."""
    found = [part for part in parts if getattr(part.evaluation, field)]

    def join_results(given):
      results = {}
      for part in found:
        results |= part.named(getattr(part.evaluation, field)(input_of(part, given)))
      return results

    return join_results if found else None

  def write_results(splits, folder):
    for part in parts:
      if part.evaluation.write_results:
        place = pathlib.Path(folder) / part.label
        place.mkdir(exist_ok=True)
        part.evaluation.write_results(part.rows(splits), place)

  first = parts[0].evaluation.select
  return Evaluation(
    evals=_merged(part.named(part.evaluation.evals) for part in parts),
    score=score,
    figures=of_all("figures", lambda part, variables: variables),
    row_figures=of_all("row_figures"),
    select=(f"mean_{mean_of}", "max") if mean_of else first and (*parts[0].named({first[0]: 0}), first[1]),
    guides=_merged(part.named(part.evaluation.guides) for part in parts),
    constants=_merged(part.evaluation.constants for part in parts),
    notes=tuple(
      f"{part.label}: {note}" if part.label else note for part in parts for note in part.evaluation.notes
    ),
    searches=of_all("searches"),
    write_results=write_results if any(part.evaluation.write_results for part in parts) else None,
  )


def _merged(mappings):
  return {name: value for mapping in mappings for name, value in mapping.items()}

"""Compares a picture, or a sentence, with another picture: do they show the same person?"""

import jax
import numpy as np

from hap_jax.convert import read as reading
from hap_jax.convert.selection import WHOLE
from hap_jax.data.sources import folder
from hap_jax.inference import calibration_file, embed

SAME, NOT_SAME = "same person", "not the same person"  # verdicts


def compare(
  checkpoint,
  query,
  picture,
  *,
  feature="",
  exif="apply",
  calibration="",
  selection=WHOLE,
  embed_text=None,
):
  """Compares two pictures, or a sentence and a picture.

  Args:
    checkpoint: a checkpoint that `convert.read.read` can read.
    query: the path of a picture, or a sentence.
    picture: the path of a picture.
    feature: the kind of the vectors, see `embed.make_extractor`.
    exif: "apply" or "ignore", see `data/sources/folder.py`.
    calibration: the value of --calibration, see `calibration_file.find`.
    selection: a `Selection`, the part of the checkpoint to read.
    embed_text: function (weights, query) -> [1, F] embedding of a sentence, or None if the query names a
      file. None: queries are pictures.
  Returns:
    plain JSON values. "score" is the cosine similarity. With a calibration, there are also "probability",
    "passes" and "verdict", and "calibration" has the threshold, its FAR and the prior.
  Raises:
    ValueError: if a picture is missing or cannot be read, or the calibration does not fit the checkpoint.
  """
  folder.open_paths([picture], exif=exif)  # a missing picture is noticed before the checkpoint is read
  weights = reading.read(checkpoint, selection=selection)
  text = embed_text(weights, query) if embed_text else None
  if text is not None and feature not in ("", "embedding"):
    raise ValueError(f"--feature={feature}: a sentence has only an embedding; remove --feature")
  source = folder.open_paths([picture] if text is not None else [query, picture], exif=exif)
  extractor = embed.make_extractor(checkpoint, weights, feature)
  kind = "picture" if text is None else "text"
  found = calibration_file.find_for_query(calibration, checkpoint, weights, feature=extractor.kind, kind=kind)
  vectors, _ = embed.extract(extractor, source, batch_size=2 * jax.device_count())
  score = float(_cosine(vectors[0] if text is None else text[0], vectors[-1]))
  result = {
    "checkpoint": str(checkpoint),
    "query": query,
    "picture": picture,
    "query_kind": kind,
    "feature": extractor.kind,
    "score": round(score, 6),
    "calibration": None,
  }
  if found is None:
    return result
  judged = found.judge(score)
  return {
    **result,
    "calibration": found.to_json(),
    **judged,
    "verdict": SAME if judged["passes"] else NOT_SAME,
  }


def _cosine(a, b):
  """Returns the cosine similarity of two vectors in float64."""
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  return a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)

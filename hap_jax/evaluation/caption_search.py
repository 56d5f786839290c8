"""Scores and rank lists of text ReID: captions search pictures, and pictures search captions."""

import numpy as np

from hap_jax.evaluation.evaluate import Search
from hap_jax.metrics import retrieval, text_retrieval
from hap_jax.viz import ranks

RANK_LIST_LENGTH = 10  # pictures per caption in a rank list


def make_score(sources):
  """Returns the score function: {split: {"feature", "index"}} -> {metric: float}.

  Metrics of the test set have no prefix. Metrics of the validation set begin with "val_". Without a
  validation set, "rank1_on_test" is added, which equals rank1 and selects the best checkpoint. Its name warns
  that the test set was used for this selection.

  Args:
    sources: {split: (source of the pictures, source of the captions)}.
  """

  def score(splits):
    scores = {}
    for name, (pictures, captions) in sources.items():
      images, texts = splits[f"{name}_pictures"], splits[f"{name}_captions"]
      found = text_retrieval.evaluate(
        images["feature"],
        texts["feature"],
        pictures.columns["pid"][images["index"]],
        captions.columns["pid"][texts["index"]],
      )
      prefix = "" if name == "test" else f"{name}_"
      scores |= {f"{prefix}{metric}": value for metric, value in found.items()}
    return scores if "val" in sources else {**scores, "rank1_on_test": scores["rank1"]}

  return score


def make_searches(pictures, captions):
  """Returns a function rows -> {"text": Search, "picture": Search} of the test set.

  Captions search the pictures, and pictures search the other pictures. The data sets have no cameras.
  """

  def searches(splits):
    images, texts = splits["test_pictures"], splits["test_captions"]
    image_pid, text_pid = pictures.columns["pid"][images["index"]], captions.columns["pid"][texts["index"]]
    own = np.arange(len(image_pid))
    return {
      "text": Search(texts["feature"], images["feature"], text_pid, image_pid),
      "picture": Search(images["feature"], images["feature"], image_pid, image_pid, own_index=own),
    }

  return searches


def make_rank_lists(pictures, captions, num_queries):
  """Returns a function {split: {"feature", "index"}} -> {"ranks": [h, w, 3] uint8 picture}.

  The picture shows evenly spaced captions of the test set, each with the closest pictures.

  Args:
    pictures: source of the pictures of the test set.
    captions: source of the captions of the test set.
    num_queries: largest number of captions in the picture.
  """

  def rank_lists(splits):
    images, texts = splits["test_pictures"], splits["test_captions"]
    chosen = np.unique(np.linspace(0, len(texts["index"]) - 1, num_queries).astype(int))
    index = texts["index"][chosen]
    found = retrieval.rank_list(
      texts["feature"][chosen],
      images["feature"],
      k=RANK_LIST_LENGTH,
      query_pid=captions.columns["pid"][index],
      gallery_pid=pictures.columns["pid"][images["index"]],
    )
    entries = images["index"][found.index]
    sheet = ranks.rank_sheet(
      [str(captions.columns["caption"][int(i)]) for i in index],
      [[pictures[int(i)]["image"] for i in line] for line in entries],
      found.distance,
      found.verdict,
    )
    return {"ranks": sheet}

  return rank_lists

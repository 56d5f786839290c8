"""Scores of text-to-image person retrieval: captions search pictures, and pictures search captions."""

from hap_jax.metrics import retrieval


def evaluate(image_feature, text_feature, image_pid, text_pid):
  """Scores both directions. A match has the identity of the query.

  Text ReID has no camera rule, and the picture that a caption was written for counts as a match.

  Args:
    image_feature: [N, D] features of the pictures.
    text_feature: [Q, D] features of the captions. A picture can have several captions.
    image_pid: [N] whole numbers, the identities of the pictures.
    text_pid: [Q] whole numbers, the identities of the captions.
  Returns:
    {name: float}. Captions as queries: "rank1", "rank5", "rank10", "mAP", "mAP_trapezoid" (the number of the
    official code) and "mINP". Pictures as queries, captions as gallery: "rank1_image_to_text".
  Raises:
    ValueError: in the same cases as `retrieval.evaluate`.
  """
  to_image = retrieval.evaluate(text_feature, image_feature, text_pid, image_pid)
  to_text = retrieval.evaluate(image_feature, text_feature, image_pid, text_pid, ranks=(1,))
  return {
    **to_image.metrics(),
    "mAP_trapezoid": to_image.mean_ap_trapezoid,
    "rank1_image_to_text": to_text.cmc[1],
  }

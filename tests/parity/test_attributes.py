"""Loss, metrics and network of attributes against the official implementation, with a tolerance of 1e-5."""

import jax
import numpy as np
import pytest

from hap_jax.losses.attributes import attribute_loss, attribute_weights
from hap_jax.metrics import attributes
from hap_jax.models import vit
from tests import networks

# Official name -> name in this project, for the scores of each attribute and for the means over pictures.
BY_LABEL = {
  "label_ma": "label_mean_accuracy",
  "label_pos_recall": "positive_recall",
  "label_neg_recall": "negative_recall",
  "label_prec": "label_precision",
  "label_acc": "label_accuracy",
  "label_f1": "label_f1",
  "fn_num": "false_negatives",
  "fp_num": "false_positives",
}
BY_PICTURE = {
  "ma": "mA",
  "instance_acc": "accuracy",
  "instance_prec": "precision",
  "instance_recall": "recall",
  "instance_f1": "F1",
}


@pytest.fixture(scope="module")
def file(golden):
  return golden("attributes")


@pytest.mark.parametrize("kind", ["weighted", "unweighted"])
def test_attribute_loss_and_gradient_agree_with_the_official_code(file, kind):
  labels = file["labels"]
  weights = attribute_weights(labels, file["positive_ratio"]) if kind == "weighted" else 1.0

  def mean_loss(logits):
    return attribute_loss(logits, labels, weights).mean()

  loss, grad = jax.value_and_grad(mean_loss)(file["logits"])
  np.testing.assert_allclose(loss, file[f"loss/{kind}"], rtol=1e-5)
  np.testing.assert_allclose(grad, file[f"loss/{kind}_grad_logits"], atol=1e-5, rtol=0)
  # The file has one value per label, and our loss is their sum over the attributes.
  example = attribute_loss(file["logits"], labels, weights)
  np.testing.assert_allclose(example, file[f"loss/{kind}_elementwise"].sum(1), rtol=1e-5)


def check_scores(file, prefix, scores):
  for theirs, ours in BY_LABEL.items():
    np.testing.assert_allclose(getattr(scores, ours), file[f"{prefix}/{theirs}"], rtol=1e-5, err_msg=theirs)
  for theirs, ours in BY_PICTURE.items():
    np.testing.assert_allclose(scores.metrics()[ours], file[f"{prefix}/{theirs}"], rtol=1e-5, err_msg=theirs)


def test_attribute_metrics_with_edge_cases_agree_with_the_official_code(file):
  check_scores(file, "metric", attributes.score(file["metric/probs"], file["metric/labels"]))


def test_metrics_of_three_attributes_at_another_threshold_agree_with_the_official_code(file):
  chosen = [0, 2, 3]  # the name of the section in the golden file gives the columns and the threshold
  probability = 1 / (1 + np.exp(-file["logits"][:, chosen]))
  found = attributes.score(probability, file["labels"][:, chosen], threshold=0.45)
  check_scores(file, "metric_idx023_thr0.45", found)


def test_logits_of_the_attribute_network_agree_with_the_official_code(file, ours, pick):
  state = pick(file, "model/param/")
  # The head has its own name here, so it is taken out before the name table converts the encoder.
  head = {"kernel": state.pop("classifier.logits.0.weight").T, "bias": state.pop("classifier.logits.0.bias")}
  encoder = ours({name.removeprefix("backbone."): value for name, value in state.items()})["encoder"]
  cfg = {key: value.tolist() for key, value in pick(file, "model/cfg/").items()}
  model = networks.attributes(
    vit.Variant(cfg["embed_dim"], cfg["depth"], cfg["num_heads"]),
    image_size=tuple(cfg["img_size"]),
    patch=cfg["patch_size"],
    num_attributes=len(head["bias"]),
  )
  image = file["model/images"].transpose(0, 2, 3, 1)
  found = jax.jit(model.apply)({"params": {"encoder": encoder, "classifier": head}}, image)
  np.testing.assert_allclose(found, file["model/logits"], atol=1e-5, rtol=0)

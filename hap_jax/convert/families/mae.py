"""Files of the official MAE code (arXiv 2111.06377): encoders, with or without decoder, and classifiers."""

from hap_jax.convert import numpy_vit, official, reconstruction, rows
from hap_jax.convert.family import NO, POSSIBLE, Family


def _recognise(source):
  return POSSIBLE if official.has_names(source) and not official.is_of_hap(source) else NO


FAMILY = Family(
  "mae",
  rows.ENCODER + rows.DECODER,
  _recognise,
  numpy_vit.official,
  task="pretrain",
  licence=official.OF_MAE,
  # Fine-tuned classifiers have tensors with these names.
  unused=("head.", "fc_norm."),
  stand_ins=rows.NORMS_OF_CLASSIFIERS,
  pixels_from="published mae code",
  outputs=reconstruction.OUTPUTS,
)

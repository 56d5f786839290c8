"""Files of the official MAE code (arXiv 2111.06377), with or without decoder.

An encoder without a decoder is known by its fixed position table. Fine-tuning changes this table. A
fine-tuned classifier then has no trait of MAE, and it is read as a file of the family `timm`.
"""

from hap_jax.convert import numpy_vit, official, reconstruction, rows
from hap_jax.convert.family import NO, Family


def _recognise(source):
  return official.pretrained(source) if official.has_names(source) and not official.is_of_hap(source) else NO


FAMILY = Family(
  "mae",
  rows.ENCODER + rows.DECODER,
  _recognise,
  numpy_vit.official,
  task="pretrain",
  licence=official.OF_MAE,
  # Classifiers that keep the fixed position table have tensors with these names.
  unused=("head.", "fc_norm."),
  stand_ins=rows.NORMS_OF_CLASSIFIERS,
  pixels_from="published mae code",
  outputs=reconstruction.OUTPUTS,
)

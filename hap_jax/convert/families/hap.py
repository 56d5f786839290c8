"""Pre-training files of the official HAP code (arXiv 2310.20695). Names as in MAE, images not square."""

from hap_jax.convert import numpy_vit, official, reconstruction, rows
from hap_jax.convert.family import NO, Family


def _recognise(source):
  return official.pretrained(source) if official.has_names(source) and official.is_of_hap(source) else NO


FAMILY = Family(
  "hap",
  rows.ENCODER + rows.DECODER,
  _recognise,
  numpy_vit.official,
  task="pretrain",
  licence=official.OF_HAP,
  made_from=official.MADE_FROM_HAP,
  # Classifiers that keep the fixed position table of the pre-training have tensors with these names.
  unused=("head.", "fc_norm."),
  stand_ins=rows.NORMS_OF_CLASSIFIERS,
  grids={128: ((16, 8), "the published HAP grid, images of 256 x 128")},
  pixels_from="published hap code",
  content=official.content("pose_mae_vit"),
  outputs=reconstruction.OUTPUTS,
)

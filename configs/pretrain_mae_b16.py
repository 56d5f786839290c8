"""The MAE baseline (arXiv 2111.06377) on the data set of HAP: one view, random masks, no alignment."""

from configs import common


def get_config():
  config = common.pretrain("B")
  config.views = 1
  config.align_weight = 0.0
  config.mask.ratio = 0.75  # (MAE)
  config.mask.blocks = False
  config.mask.parts = False
  return config

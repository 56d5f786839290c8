"""Pedestrian attributes on RAP version 1 with ViT-B/16: the official recipe."""

from configs import common


def get_config():
  config = common.attributes("rapv1")
  config.total_epochs = 8.0  # (official)
  config.warmup_epochs = 0.8  # (official)
  config.base_lr = 2.4e-4  # (official)
  return config

"""Pedestrian attributes on PA-100K with ViT-B/16: the official recipe."""

from configs import common


def get_config():
  config = common.attributes("pa100k")
  config.total_epochs = 55.0  # (official)
  config.warmup_epochs = 5.5  # (official)
  config.base_lr = 1.7e-4  # (official)
  config.ema_decay = 0.9998  # (official)
  return config

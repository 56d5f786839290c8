"""2D pose on AI Challenger (AIC) with ViT-B/16: the official recipe."""

from configs import common


def get_config():
  config = common.pose2d("aic_pose")
  config.base_lr = 5e-4  # (official)
  # The official optimizer is Adam, which is AdamW without weight decay.
  config.weight_decay = 0.0
  config.layer_decay = 1.0  # all parameters have the same learning rate (official)
  config.optimizer.clip_norm = None  # no clipping (official)
  config.model.drop_path = 0.3  # (official)
  config.data.codec = "msra"  # (official)
  return config

"""2D pose on MPII with ViT-B/16: the official recipe."""

from configs import common


def get_config():
  config = common.pose2d("mpii_pose")
  config.base_lr = 1e-4  # (official)
  # The official optimizer is Adam, which is AdamW without weight decay.
  config.weight_decay = 0.0
  config.layer_decay = 1.0  # all parameters have the same learning rate (official)
  config.optimizer.clip_norm = None  # no clipping (official)
  config.model.drop_path = 0.3  # (official)
  config.data.fit_aspect = False  # the boxes of MPII are square, and are squeezed into the image (official)
  config.data.box_jitter_prob = 0.0  # (official)
  config.data.half_body_prob = 0.0  # (official)
  return config

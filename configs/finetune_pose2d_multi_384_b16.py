"""2D pose on COCO, AIC and MPII together with ViT-B/16: the official joint recipe with 384 x 288 pixels.

Set the same keys as for configs/finetune_pose2d_multi_b16.py.
"""

from configs import common


def get_config():
  config = common.pose2d_multi()
  config.model.image_size = (384, 288)
  config.batch_size = 512  # global (official: 64 people on each of 8 GPUs)
  config.base_lr = 5e-4  # (official)
  config.layer_decay = 0.75  # (official)
  return config

"""2D pose on COCO, AIC and MPII together with ViT-B/16: the official joint recipe with 256 x 192 pixels.

Each data set has its own expert and head. Set config.data.mixed.coco.root, config.data.mixed.aic.root and
config.data.mixed.mpii.root, and config.data.coco_pose.detections to the official file of detected boxes.
"""

from configs import common


def get_config():
  return common.pose2d_multi()

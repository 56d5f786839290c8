"""2D pose on COCO with ViT-B/16: the official recipe.

config.data.coco_pose.detections names the official file of detected boxes. Without it, the boxes of the
annotations are used for the scores.
"""

from configs import common


def get_config():
  return common.pose2d("coco_pose")

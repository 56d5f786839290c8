"""2D pose on COCO with ViT-B/16: the official recipe.

Set config.data.coco_pose.detections to the official file of detected boxes. Without this file, the annotated
boxes are used for the scores, which are then higher than published scores.
"""

from configs import common


def get_config():
  return common.pose2d("coco_pose")

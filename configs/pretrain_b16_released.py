"""The same as configs/pretrain_b16.py, but the number of masked parts is drawn as in the official code.

The official code overwrites the upper limit with the number drawn for each image. So only the first few of
every 256 images lose a part. The published numbers come from that code.
"""

from configs import common


def get_config():
  config = common.pretrain("B")
  config.mask.part_policy = "released"
  config.mask.released_group = 256  # images per GPU in the official run
  return config

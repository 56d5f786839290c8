"""As configs/pretrain_b16.py, with the number of masked parts drawn as the official code draws it.

Its upper limit is overwritten with each image's own draw, so that only the first few images of every 256 lose
any part. The published numbers come from that code.
"""

from configs import common


def get_config():
  config = common.pretrain("B")
  config.mask.part_policy = "released"
  config.mask.released_group = 256  # images a GPU in the official run
  return config

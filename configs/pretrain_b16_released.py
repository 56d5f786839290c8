"""The same as configs/pretrain_b16.py, but the number of masked parts is drawn as in the official code.

In the official code, the number of parts drawn for one image becomes the maximum for the next image. This
maximum soon reaches 0. So body parts are masked only in the first few of every 256 images. The published
results come from this code.
"""

from configs import common


def get_config():
  config = common.pretrain("B")
  config.mask.part_policy = "released"
  config.mask.released_group = 256  # images per GPU in the official run
  return config

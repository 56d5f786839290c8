"""Text-to-image person ReID on RSTPReid with ViT-B/16: the official recipe."""

from configs import common


def get_config():
  config = common.text_reid("rstpreid")
  config.data.train_split = "trainval"  # (official)
  return config

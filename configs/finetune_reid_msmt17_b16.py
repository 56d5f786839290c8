"""Person ReID on MSMT17 with ViT-B/16, as published; start from config.init_from."""

from configs import common


def get_config():
  return common.reid("msmt17")

"""Person ReID on MSMT17 with ViT-B/16: the official recipe. Set config.init_from to a HAP checkpoint."""

from configs import common


def get_config():
  return common.reid("msmt17")

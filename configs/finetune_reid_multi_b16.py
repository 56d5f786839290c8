"""Person ReID on Market-1501 and MSMT17 together with ViT-B/16: the official recipe of the single data sets.

Set config.data.mixed.market1501.root and config.data.mixed.msmt17.root, and config.init_from to a HAP
checkpoint. HAP publishes no result for both data sets together.
"""

from configs import common


def get_config():
  config = common.reid("mixed")
  common.mix(config, market1501={"source": "market1501"}, msmt17={"source": "msmt17"})
  return config

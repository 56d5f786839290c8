"""Text-to-image person ReID on ICFG-PEDES with ViT-B/16: the official recipe."""

from configs import common


def get_config():
  return common.text_reid("icfg_pedes")

"""Text-to-image person ReID on CUHK-PEDES with ViT-B/16: the official recipe."""

from configs import common


def get_config():
  return common.text_reid("cuhk_pedes")

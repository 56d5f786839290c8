"""Pedestrian attributes on PETA with ViT-B/16: the official recipe."""

from configs import common


def get_config():
  return common.attributes("peta")

"""HAP pre-training of a ViT-B/16 on LUPerson with the official hyper-parameters (arXiv 2310.20695)."""

from configs import common


def get_config():
  return common.pretrain("B")

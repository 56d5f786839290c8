"""HAP pre-training of a ViT-H/16 on LUPerson. All other values equal configs/pretrain_b16.py."""

from configs import common


def get_config():
  return common.pretrain("H")

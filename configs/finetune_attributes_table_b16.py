"""Attributes of your own pictures with ViT-B/16: a table (CSV) names pictures and their attributes.

The numbers are the official recipe for PETA, a data set of 19,000 pictures. Split val selects the best
checkpoint, and split test is only scored.
"""

from configs import common


def get_config():
  config = common.attributes("attribute_table")
  config.data.train_split = "train"
  return config

"""Attributes of your own pictures with ViT-B/16. A CSV table lists the pictures and their attributes.

The hyperparameters come from the official recipe for PETA, a data set of 19,000 pictures. Scores on split val
select the best checkpoint. Split test is only scored.
"""

from configs import common


def get_config():
  config = common.attributes("attribute_table")
  config.data.train_split = "train"
  return config

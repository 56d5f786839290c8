"""Demo of person ReID on two data sets of synthetic people. It takes minutes on two CPU cores.

The data sets show different people at different places, because they have different seeds.
"""

from configs import common, finetune_reid_demo


def get_config():
  config = finetune_reid_demo.get_config()
  config.data.source = "mixed"
  config.data.synthetic.num_train = 2_000  # pictures of each data set
  config.data.synthetic.num_test = 800
  common.mix(config, north={"source": "synthetic", "seed": 1}, south={"source": "synthetic", "seed": 2})
  return config

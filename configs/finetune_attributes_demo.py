"""Demo of attribute recognition on synthetic people. It takes minutes on two CPU cores.

It starts from scratch. To use the encoder of the pre-training demo, set config.init_from to the workdir of
that demo.
"""

from configs import common


def get_config():
  config = common.attributes("synthetic")
  common.make_demo(config, "synthetic", image_size=(64, 32), drawn_size=(80, 40))
  config.total_epochs = 10.0
  config.warmup_epochs = 1.0
  config.batch_size = 32
  config.base_lr = 1e-3
  config.log_every = 50
  config.save_every = 500
  config.eval_every_epochs = 2

  config.data.train_split = "train"
  config.data.num_val = 800
  config.data.pad = 3
  config.data.synthetic.num_train = 4_000
  config.data.synthetic.num_test = 1_600
  return config

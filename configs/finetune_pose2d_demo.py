"""Demo of 2D pose on synthetic people. It takes minutes on two CPU cores.

It starts from scratch. To use the encoder of the pre-training demo, set config.init_from to its workdir.
"""

from configs import common


def get_config():
  config = common.pose2d("synthetic")
  config.total_epochs = 8.0
  config.warmup_steps = 250
  config.lr_drops = (6.5, 7.6)
  config.batch_size = 32
  config.base_lr = 1e-3
  config.layer_decay = 1.0
  config.weight_decay = 0.05
  config.log_every = 100
  config.save_every = 500
  config.eval_every_epochs = 1

  config.model.variant = "Mu"
  config.model.image_size = (64, 48)
  config.model.patch = 8
  # A small model compiles fast even without a scan, and on two cores a step without a scan is faster.
  config.model.scan = False
  config.model.head = "simple"
  config.model.drop_path = 0.0

  config.data.workers = 0
  config.data.num_val = 1_024
  config.data.clip_boxes = True  # the boxes of drawn people may reach outside the picture
  config.data.synthetic.num_train = 20_000
  config.data.synthetic.image_size = (96, 48)
  config.data.synthetic.hold_in_memory = True
  return config

"""Demo of 2D pose on synthetic people. It takes minutes on two CPU cores.

It learns faster with the encoder of the pre-training demo: set config.init_from to the workdir of that demo.
"""

from configs import common


def get_config():
  config = common.pose2d("synthetic")
  common.make_demo(config, "synthetic", image_size=(64, 48), drawn_size=(96, 48))
  config.total_epochs = 12.0
  config.warmup_steps = 100
  config.lr_drops = (9.5, 11.3)
  config.batch_size = 16
  config.base_lr = 1e-3
  config.layer_decay = 1.0
  config.weight_decay = 0.05
  config.optimizer.beta2 = 0.99
  config.heatmap_sigma = 1.5  # a cell of this heat map has two pixels, and the image is small
  config.log_every = 100
  config.save_every = 500
  config.eval_every_epochs = 1

  config.model.head = "simple"
  config.model.drop_path = 0.0

  config.data.num_val = 1_024
  config.data.clip_boxes = True  # the boxes of drawn people may reach outside the picture
  # Drawn people stand upright, so the run is too short to gain from strong augmentation.
  config.data.half_body_prob = 0.0
  config.data.scale_jitter = 0.15
  config.data.rotation = 10.0
  config.data.synthetic.num_train = 12_000
  return config

"""Demo of 3D pose and shape on drawn people. It takes minutes on two CPU cores and needs no body model.

It learns faster from the encoder of the pre-training demo, or from a checkpoint of the demo of 2D pose: set
config.init_from to its workdir.
"""

from configs import common


def get_config():
  config = common.pose3d("synthetic")
  common.make_demo(config, "synthetic", image_size=(48, 48), drawn_size=(96, 48))
  config.total_epochs = 8.0
  config.warmup_epochs = 0.4
  config.batch_size = 32
  # The head starts at zero and has to learn faster than the encoder.
  config.base_lr = 2e-3
  config.layer_decay = 0.5
  config.optimizer.beta2 = 0.99
  config.log_every = 100
  config.save_every = 500
  config.eval_every_epochs = 2

  config.model.drop_path = 0.0
  config.model.hidden = 256

  config.data.num_val = 800
  # Drawn people stand upright, so the run is too short to gain from strong augmentation.
  config.data.scale_jitter = 0.15
  config.data.rotation = 10.0
  config.data.synthetic.num_train = 12_000
  return config

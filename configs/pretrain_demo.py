"""Demo: a tiny HAP on synthetic people. It takes minutes on two CPU cores and needs no data.

`make demo` runs it.
"""

from configs import common


def get_config():
  config = common.pretrain("Mu")
  common.make_demo(config, "synthetic", image_size=(64, 32), drawn_size=(80, 40))
  config.total_steps = 2000
  # total_steps sets the length of the run. The next two values only set the share of the warm-up, 6 of 100.
  config.total_epochs = 100.0
  config.warmup_epochs = 6.0
  config.batch_size = 32
  config.base_lr = 1.6e-2  # with batch size 32, the learning rate is 2e-3
  config.log_every = 100
  config.save_every = 500
  config.panel_every = 500
  config.eval_every = 500
  # The goal for val_ratio. With all tested seeds, the final val_ratio is below this goal. With shuffled
  # pixels, the final val_ratio is above 0.94.
  config.learned_ratio = 0.85

  config.model.decoder_width = 64
  config.model.decoder_depth = 2
  config.model.decoder_heads = 2

  config.data.source = "synthetic"
  config.data.num_val = 512
  config.data.synthetic.num_train = 6_000
  return config

"""Demo: a tiny HAP on synthetic people. It takes minutes on two CPU cores and needs no data.

`make demo` runs it.
"""

from configs import common


def get_config():
  config = common.pretrain("Mu")
  config.total_steps = 2000
  config.total_epochs = 100.0  # total_steps sets the length; this only gives the warm-up its share, 6 of 100
  config.warmup_epochs = 6.0
  config.batch_size = 32
  config.base_lr = 1.6e-2  # learning rate 2e-3
  config.log_every = 100
  config.save_every = 500
  config.panel_every = 500
  config.eval_every = 500
  # All seeds end below this ratio. The same run on shuffled pixels stays above 0.94.
  config.learned_ratio = 0.85

  config.model.image_size = (64, 32)
  config.model.patch = 8
  config.model.scan = False  # a small model compiles fast anyway, and a step is a sixth faster on two cores
  config.model.decoder_width = 64
  config.model.decoder_depth = 2
  config.model.decoder_heads = 2

  config.data.source = "synthetic"
  config.data.workers = 0
  config.data.num_val = 512
  config.data.synthetic.num_train = 6_000
  config.data.synthetic.image_size = (80, 40)
  config.data.synthetic.hold_in_memory = True
  return config

"""Demo of text-to-image ReID on synthetic people. It takes minutes on two CPU cores and needs no BERT.

It starts from scratch. To use the encoder of the pre-training demo, set config.init_from to its workdir.
"""

from configs import common


def get_config():
  config = common.text_reid("synthetic_captions")
  common.make_demo(config, "synthetic_captions", image_size=(64, 32), drawn_size=(80, 40))
  config.total_epochs = 3.0
  config.warmup_steps = 100
  config.lr_drops = (2.5, 2.8)
  config.batch_size = 32
  config.base_lr = 1e-3
  config.optimizer.clip_norm = 1.0
  config.optimizer.beta2 = 0.99
  config.image_lr_scale = 1.0
  config.log_every = 50
  config.save_every = 500

  config.model.drop_path = 0.0
  config.model.embedding_dim = 64

  config.text.lr_scale = 0.3  # the small text encoder is trained from scratch
  config.text.max_tokens = 56
  config.text.width = 64
  config.text.depth = 1

  config.data.pad = 3
  config.data.num_val = 400
  config.data.synthetic_captions.num_train = 4_400
  config.data.synthetic_captions.num_test = 1_600
  return config

"""Values that several configurations share.

A key that is added here is added to the table `_ADDED_KEYS` of hap_jax/config.py, too, so that runs of older
versions can be resumed and evaluated.
"""

import ml_collections

from hap_jax.data import source_options


def run(task):
  """Returns what every run has; the official values are those of the task that sets them."""
  config = ml_collections.ConfigDict()
  config.task = task  # a file of hap_jax/tasks
  config.seed = 0  # of everything random: parameters, data order, crops, masks
  config.total_steps = (
    0  # above 0: length of the run in steps, in place of total_epochs; warm-up keeps its share
  )
  config.init_from = ""  # a checkpoint to start from, of any kind that `convert` reads; empty: from scratch

  # Each of these also happens at the last step; 0 switches it off. Pictures of scores, as rank lists, are
  # drawn when those are.
  config.log_every = 50  # steps between progress lines and rows of metrics.jsonl
  config.save_every = 1000  # steps between checkpoints; 0: the run leaves none
  config.panel_every = 5000  # steps between pictures
  config.eval_every = 5000  # steps between held-out scores
  config.eval_every_epochs = 0  # epochs between held-out scores
  config.keep_last = 3  # newest checkpoints that stay
  config.keep_every = 0  # checkpoints of steps divisible by it stay for good; 0: none

  config.mesh = ml_collections.ConfigDict()
  config.mesh.data = -1  # devices that share a batch, each with all parameters; -1: all that are left
  config.mesh.fsdp = 1  # devices that share a batch and the parameters with their moments
  config.mesh.tensor = 1  # devices that share parameters alone, working on the same pictures
  config.accumulate = 1  # parts in which a batch goes through the model, one after the other
  return config


def adamw(beta2):
  """Returns AdamW as the official code sets it, with its second beta."""
  config = ml_collections.ConfigDict()
  config.kind = "adamw"  # adamw | sgd
  config.beta1 = 0.9  # (official)
  config.beta2 = beta2  # (official)
  config.eps = 1e-8  # (official)
  return config


def pretrain(variant):
  """Returns the official pre-training configuration of HAP for an encoder of this size.

  Sources: HAP (arXiv 2310.20695), its official repository (junkunyuan/HAP), MAE (arXiv 2111.06377).
  """
  config = run("pretrain")
  config.total_epochs = 400.0  # passes over the training records (official)
  config.warmup_epochs = 40.0  # linear from 0, then half a cosine to 0 (official)
  config.batch_size = 4096  # global, over all devices (official)
  config.base_lr = 1.5e-4  # per 256 images; learning rate = base_lr * batch_size / 256 (official)
  config.weight_decay = 0.05  # not on biases and norms (official)
  config.optimizer = adamw(beta2=0.95)
  config.panel_rows = 6  # people in a picture

  config.model = model(variant)
  config.model.decoder_width = 512  # (official)
  config.model.decoder_depth = 8  # blocks (official)
  config.model.decoder_heads = 16  # (official)
  config.mask = mask()
  config.views = 2  # masked views of each image; 1: no alignment
  config.align_weight = 0.05  # gamma, weight of the alignment loss (official)
  config.align_temperature = 0.2  # T of its softmax (official)
  config.align_block = 0  # its keys at a time, never all logits at once; 0: all (the same numbers)
  config.norm_pix_loss = True  # predict patches standardised over their own pixels (official)

  config.data = data()
  config.data.crop_area = (0.8, 1.0)  # of the picture (official)
  config.data.crop_aspect = (0.375, 2 / 3)  # width / height: 0.5 * 3/4 to 0.5 * 4/3 (official)
  config.data.augment = "host"  # where pictures are cropped and mirrored: host | device (in the step)
  config.data.canvas = (400, 200)  # pixels (H, W) of a whole picture on its way to the device, at most
  config.data.shuffle_pixels = False  # control experiment: pictures without structure, nothing to learn
  config.eval_batch_size = 256  # held-out records at a time
  config.baseline_records = 4096  # training records that the position mean is taken over
  # At every held-out score also: how well the frozen encoder finds persons of a ReID data set again.
  config.probe = ml_collections.ConfigDict()
  config.probe.source = ""  # a file of hap_jax/data/sources with query and gallery; empty: no probe
  config.probe.root = ""  # its folder
  return config


def reid(source):
  """Returns the official fine-tuning configuration for person ReID, one for all data sets and both models.

  Source: the official repository's downstream_tasks/person_reid.
  """
  config = run("reid")
  config.total_epochs = 100.0  # (official)
  config.warmup_epochs = 5.0  # linear from 0, then half a cosine to 0 (official)
  config.batch_size = 64  # global (official)
  config.num_instances = 8  # pictures of each person in a batch (official)
  config.base_lr = 8e-3  # of the head, whatever the batch size (official)
  config.layer_decay = 0.4  # each block's learning rate is this share of the next one's (official)
  config.weight_decay = 0.05  # not on biases, norms, class token and position table (official)
  config.optimizer = adamw(beta2=0.999)
  config.ema_decay = 0.0  # above 0: score and use a moving average of the weights with this decay
  config.id_weight = 0.5  # of the cross-entropy over persons (official)
  config.triplet_weight = 0.5  # of the batch-hard soft-margin triplet loss (official)
  config.eval_every = 0
  config.eval_every_epochs = 10  # (official)
  config.panel_rows = 8  # queries in a rank list
  config.rerank = False  # also score after k-reciprocal re-ranking (not used for published numbers)

  config.model = model("B")
  config.model.locality = False  # True: with the locality enhanced module, "ViT-lem"
  config.model.drop_path = 0.1  # of the last block, linear from 0 at the first (official)

  config.data = data()
  config.data.source = source
  config.data.pad = 10  # black pixels on each side before the random crop (official)
  config.data.erase_prob = 0.5  # of a box of noise in a training picture (official)
  config.eval_batch_size = 256  # (official)
  return config


def model(variant):
  """Returns the encoder's size, what it looks at and how it computes."""
  config = ml_collections.ConfigDict()
  config.variant = variant  # Mu | Ti | S | B | L | H, see hap_jax/models/vit.py
  config.image_size = (256, 128)  # pixels (H, W) (official)
  config.patch = 16  # pixels; must divide both (official)
  config.dtype = "auto"  # compute type: float32 | bfloat16 | auto (float32 on CPU, else bfloat16)
  config.scan = True  # one compiled block scanned over the depth: compiles faster, same numbers
  config.remat = "dots"  # what a block computes again for its gradient, to save memory: none |
  # elementwise (norms, GELU, softmax) | dots (attention's products, too) | full (all); same numbers
  config.attention = "xla"  # xla | cudnn (fused, of a GPU in bfloat16)
  return config


def mask():
  """Returns the official mask recipe; blocks = parts = False is MAE's random mask."""
  config = ml_collections.ConfigDict()
  config.ratio = 0.5  # fraction of the L patches hidden from the encoder (official)
  config.blocks = True  # block-wise masking below the parts
  config.parts = True  # body parts first
  config.max_parts = 6  # at most so many parts of an image and view, drawn uniformly from 0 (official)
  config.part_fraction = 0.3  # at most this fraction of a part's patches goes first, drawn from 0 (official)
  config.part_policy = "uniform"  # uniform: a fresh number of parts for every image (the paper) |
  # released: the official code, whose limit shrinks from image to image inside a group
  config.released_group = 256  # consecutive rows of the global batch that share a shrinking limit (released)
  return config


def data():
  """Returns where pictures come from.

  `config.<source>` has the options of each source with the defaults of its `open_source`, whose docstring
  states their units.
  """
  config = ml_collections.ConfigDict()
  config.source = "luperson"  # a file of hap_jax/data/sources
  config.root = ""  # folder of the data set
  config.workers = 8  # processes that read and decode; 0: a thread of this one
  config.num_val = 0  # records held out, never trained on; 0: none, no held-out score
  config.max_bad_share = 0.001  # share of unreadable records at which the run stops
  config.flip_prob = 0.5  # of mirroring a training picture (official)
  for name, options in source_options.defaults().items():
    if options:
      config[name] = ml_collections.ConfigDict(options)
  # A run draws more and larger people than a call of the source by itself, whose defaults `hap probe` has.
  config.synthetic.num_train = 10_000  # pictures
  config.synthetic.num_test = 2_000  # pictures
  config.synthetic.image_size = (320, 160)  # pixels (H, W)
  return config


def attributes(source):
  """Returns the official fine-tuning configuration for attributes; data sets differ in length and rate.

  Source: the official repository's downstream_tasks/pedestrian_attribute_recognition.
  """
  config = run("attributes")
  config.total_epochs = 50.0  # (official for PETA)
  config.warmup_epochs = 5.0  # a tenth of total_epochs (official)
  config.batch_size = 64  # global (official: 8 on each of 8)
  config.base_lr = 1.9e-4  # of all parameters, whatever the batch size (official for PETA)
  config.warmup_lr = 1e-4  # of the first epoch (official)
  config.final_lr = 1e-5  # towards which the cosine falls (official)
  config.weight_decay = 5e-4  # of every parameter (official)
  config.optimizer = adamw(beta2=0.999)
  config.optimizer.clip_norm = 10.0  # of the gradient of all parameters (official)
  config.ema_decay = 0.0  # above 0: score and use a moving average of the weights with this decay
  config.eval_every = 0
  config.eval_every_epochs = 1  # (official)

  config.model = model("B")
  config.model.image_size = (256, 192)  # pixels (H, W) (official)
  config.model.dtype = "float32"  # (official)

  config.data = data()
  config.data.source = source
  # trainval (official): no validation set is left, the last epoch counts | train: the best one on it counts
  config.data.train_split = "trainval"
  config.data.pad = 10  # black pixels on each side before the random crop (official)
  config.eval_batch_size = 256
  return config

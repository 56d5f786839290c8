"""Values that several configurations share."""

import ml_collections


def pretrain(variant):
  """Returns the official pre-training configuration of HAP for an encoder of this size.

  Sources: HAP (arXiv 2310.20695), its official repository (junkunyuan/HAP), MAE (arXiv 2111.06377).
  """
  config = ml_collections.ConfigDict()
  config.task = "pretrain"  # a file of hap_jax/tasks
  config.seed = 0  # of everything random: parameters, data order, crops, masks
  config.total_epochs = 400.0  # passes over the training records (official)
  config.total_steps = (
    0  # above 0: length of the run in steps, in place of total_epochs; warm-up keeps its share
  )
  config.warmup_epochs = 40.0  # linear from 0, then half a cosine to 0 (official)
  config.batch_size = 4096  # global, over all devices (official)
  config.base_lr = 1.5e-4  # per 256 images; learning rate = base_lr * batch_size / 256 (official)
  config.weight_decay = 0.05  # not on biases and norms (official)
  config.optimizer = ml_collections.ConfigDict()
  config.optimizer.kind = "adamw"  # adamw | sgd
  config.optimizer.beta1 = 0.9  # (official)
  config.optimizer.beta2 = 0.95  # (official)
  config.optimizer.eps = 1e-8  # (official)
  config.init_from = ""  # MAE or HAP .pth file, or a workdir of this project; empty: from scratch

  # Each of these also happens at the last step; 0 switches it off.
  config.log_every = 50  # steps between progress lines and rows of metrics.jsonl
  config.save_every = 1000  # steps between checkpoints; 0: the run leaves none
  config.panel_every = 5000  # steps between pictures
  config.eval_every = 5000  # steps between held-out scores; needs data.num_val
  config.keep_last = 3  # newest checkpoints that stay
  config.keep_every = 0  # checkpoints of steps divisible by it stay for good; 0: none
  config.panel_rows = 6  # people in a picture

  config.model = model(variant)
  config.mask = mask()
  config.views = 2  # masked views of each image; 1: no alignment
  config.align_weight = 0.05  # gamma, weight of the alignment loss (official)
  config.align_temperature = 0.2  # T of its softmax (official)
  config.norm_pix_loss = True  # predict patches standardised over their own pixels (official)

  config.data = data()
  config.eval_batch_size = 256  # held-out records at a time
  config.baseline_records = 4096  # training records that the position mean is taken over

  config.mesh = ml_collections.ConfigDict()
  config.mesh.data = -1  # devices that share a batch; -1: all
  config.mesh.fsdp = 1  # only 1 so far: parameters are whole on every device
  config.mesh.tensor = 1  # only 1 so far
  return config


def model(variant):
  """Returns the sizes of the encoder and the decoder."""
  config = ml_collections.ConfigDict()
  config.variant = variant  # Mu | Ti | S | B | L | H, see hap_jax/models/vit.py
  config.image_size = (256, 128)  # pixels (H, W) (official)
  config.patch = 16  # pixels; must divide both (official)
  config.decoder_width = 512  # (official)
  config.decoder_depth = 8  # blocks (official)
  config.decoder_heads = 16  # (official)
  config.dtype = "auto"  # compute type: float32 | bfloat16 | auto (float32 on CPU, else bfloat16)
  config.scan = True  # one compiled block scanned over the depth: compiles faster, same numbers
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
  """Returns where pictures come from and how they are cut."""
  config = ml_collections.ConfigDict()
  config.source = "luperson"  # a file of hap_jax/data/sources
  config.root = ""  # folder of the data set
  config.workers = 8  # processes that read and decode; 0: a thread of this one
  config.num_val = 0  # records held out, never trained on; 0: none, no held-out score
  config.max_bad_share = 0.001  # share of unreadable records at which the run stops
  config.crop_area = (0.8, 1.0)  # of the picture (official)
  config.crop_aspect = (0.375, 2 / 3)  # width / height: 0.5 * 3/4 to 0.5 * 4/3 (official)
  config.flip_prob = 0.5  # (official)
  config.shuffle_pixels = False  # control experiment: pictures without structure, nothing to learn
  config.luperson = ml_collections.ConfigDict()
  config.luperson.subset = "first_half"  # first_half (official) | random_half | all
  config.coco_persons = ml_collections.ConfigDict()
  config.coco_persons.annotations = ""  # json file; empty: <root>/annotations/person_keypoints_train2017.json
  config.coco_persons.images = ""  # folder of its pictures; empty: <root>/train2017, or beside the json
  config.coco_persons.margin = 0.1  # added to each side of a person's box, as a share of it
  config.coco_persons.min_keypoints = 1  # labelled joints that a person needs
  config.synthetic = ml_collections.ConfigDict()
  config.synthetic.num_train = 10_000  # pictures
  config.synthetic.image_size = (320, 160)  # pixels (H, W) at which people are drawn
  config.synthetic.hold_in_memory = False  # draw every picture once, at the start
  return config

"""Values that several configurations share. "(official)" marks the values of the official code of HAP.

If you add a key here, add it also to the table `_ADDED_KEYS` of hap_jax/config.py. Otherwise runs of older
versions cannot be resumed or evaluated.
"""

import ml_collections

from hap_jax.data import source_options


def run(task):
  """Returns the keys that every task has. The functions of the tasks, such as `pretrain`, add other keys."""
  config = ml_collections.ConfigDict()
  config.task = task  # a file of hap_jax/tasks
  config.seed = 0  # seed of all random numbers: parameters, data order, crops, masks
  # Above 0: length of the run in steps, in place of total_epochs. The warm-up keeps its share of the run.
  config.total_steps = 0
  # Another run whose whole training state this run takes over, WORKDIR or WORKDIR/STEP; see
  # docs/reliability.md. It replaces init_from. total_steps and total_epochs then count from the beginning of
  # that run. Empty: a new run.
  config.continue_from = ""
  config.init_from = ""  # starting checkpoint, in any format that `hap convert` reads; empty: from scratch
  config.init_key = ""  # entry of that file with the weights, such as teacher; empty: found from the file
  config.init_prefix = ""  # read only tensors whose names begin with this text; empty: found from the file
  config.init_encoder_only = False  # True: read only the encoder of that file, whatever else it holds

  # Each of these actions is also done at the last step. 0 turns an action off. Pictures of scores, such as
  # rank lists, are drawn at every evaluation.
  config.log_every = 50  # steps between progress lines and rows of metrics.jsonl
  config.save_every = 1000  # steps between checkpoints; 0: a checkpoint only if a signal stops the run
  config.panel_every = 5000  # steps between pictures
  config.eval_every = 5000  # steps between evaluations
  config.eval_every_epochs = 0  # epochs between evaluations
  config.keep_last = 3  # number of newest checkpoints that are kept
  config.keep_every = 0  # checkpoints at multiples of this number of steps are never deleted; 0: off

  config.mesh = ml_collections.ConfigDict()
  # Each key is a number of devices.
  config.mesh.data = -1  # devices that split a batch, and each has all parameters; -1: all remaining devices
  config.mesh.fsdp = 1  # devices that split a batch, the parameters and the moments of the optimizer
  config.mesh.tensor = 1  # devices that split only the parameters and work on the same pictures
  config.accumulate = 1  # number of parts of a batch that go through the model one after the other
  return config


def adamw(beta2):
  """Returns the official settings of AdamW. `beta2` is the decay of the second moment."""
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
  config.warmup_epochs = 40.0  # learning rate: linear from 0, after the warm-up half a cosine to 0 (official)
  config.batch_size = 4096  # global, over all devices (official)
  config.base_lr = 1.5e-4  # per 256 images; learning rate = base_lr * batch_size / 256 (official)
  config.weight_decay = 0.05  # for all parameters except biases and norms (official)
  config.optimizer = adamw(beta2=0.95)
  config.panel_rows = 6  # people per picture panel

  config.model = model(variant)
  config.model.decoder_width = 512  # (official)
  config.model.decoder_depth = 8  # blocks (official)
  config.model.decoder_heads = 16  # (official)
  config.mask = mask()
  config.views = 2  # masked views of each image; 1: no alignment
  config.align_weight = 0.05  # gamma, weight of the alignment loss (official)
  config.align_temperature = 0.2  # T, temperature of the softmax in the alignment loss (official)
  # Number of keys that the alignment loss handles at a time, to save memory. 0: all; the result is the same.
  config.align_block = 0
  config.norm_pix_loss = True  # predict patches standardised over their own pixels (official)

  config.data = data()
  config.data.crop_area = (0.8, 1.0)  # share of the picture's area (official)
  config.data.crop_aspect = (0.375, 2 / 3)  # width / height: 0.5 * 3/4 to 0.5 * 4/3 (official)
  config.data.augment = "host"  # place where pictures are cropped and flipped: host | device (in the step)
  config.data.canvas = (400, 200)  # largest (H, W) in pixels of a whole picture that goes to the device
  config.data.shuffle_pixels = False  # True: control experiment with pictures that have no structure to learn
  config.eval_batch_size = 256  # held-out records per batch
  config.baseline_records = 4096  # number of training records whose mean is the position mean
  # At its end, the run reports whether val_ratio reached this goal. 0: no such report.
  config.learned_ratio = 0.0
  # With a probe, every evaluation also measures person retrieval with the frozen encoder on a ReID data set.
  config.probe = ml_collections.ConfigDict()
  config.probe.source = ""  # a file of hap_jax/data/sources with query and gallery; empty: no probe
  config.probe.root = ""  # folder of that data set
  return config


def reid(source):
  """Returns the official fine-tuning configuration for person ReID, the same for all data sets and models.

  Source: downstream_tasks/person_reid of the official repository.
  """
  config = run("reid")
  config.total_epochs = 100.0  # (official)
  config.warmup_epochs = 5.0  # learning rate: linear from 0, after the warm-up half a cosine to 0 (official)
  config.batch_size = 64  # global (official)
  config.num_instances = 8  # pictures of each person in a batch (official)
  config.base_lr = 8e-3  # learning rate of the head; it does not depend on the batch size (official)
  config.layer_decay = 0.4  # learning rate of a block divided by the rate of the next block (official)
  # For all parameters except biases, norms, class token and position table (official).
  config.weight_decay = 0.05
  config.optimizer = adamw(beta2=0.999)
  # Above 0: decay of a moving average of the weights. The average is evaluated in place of the weights.
  config.ema_decay = 0.0
  config.id_weight = 0.5  # weight of the cross-entropy over persons (official)
  config.triplet_weight = 0.5  # weight of the batch-hard soft-margin triplet loss (official)
  config.eval_every = 0
  config.eval_every_epochs = 10  # (official)
  config.panel_rows = 8  # queries in the picture of rank lists
  config.rerank = False  # True: also score after k-reciprocal re-ranking; the published numbers do not use it

  config.model = model("B")
  config.model.locality = False  # True: add the locality enhanced module ("ViT-lem")
  config.model.drop_path = 0.1  # rate at the last block; it grows linearly from 0 at the first (official)

  config.data = data()
  config.data.source = source
  config.data.pad = 10  # black pixels on each side before the random crop (official)
  config.data.erase_prob = 0.5  # probability of a noise box in a training picture (official)
  config.eval_batch_size = 256  # (official)
  return config


def model(variant):
  """Returns the keys of the encoder: its size, the size of its input, and how it is computed."""
  config = ml_collections.ConfigDict()
  config.variant = variant  # Mu | Ti | S | B | L | H, see hap_jax/models/vit.py
  config.image_size = (256, 128)  # pixels (H, W) (official)
  config.patch = 16  # side of a patch in pixels; H and W must be multiples of it (official)
  config.norm_eps = 0.0  # epsilon of the layer norms; 0: as in the starting weights, and 1e-6 without them
  config.dtype = "auto"  # compute type: float32 | bfloat16 | auto (float32 on CPU, else bfloat16)
  config.scan = True  # compile one block and run it in a loop: compiles faster, same numbers
  # Parts of a block that are computed again for the gradient, to save memory; the numbers stay the same:
  # none | elementwise (norms, GELU, softmax) | dots (also the attention's matrix products) | full (all parts)
  config.remat = "dots"
  config.attention = "xla"  # xla | cudnn (fused; needs a GPU and bfloat16)
  return config


def mask():
  """Returns the official mask recipe. With blocks = parts = False, it is the random mask of MAE."""
  config = ml_collections.ConfigDict()
  config.ratio = 0.5  # fraction of the L patches hidden from the encoder (official)
  config.blocks = True  # True: after the parts, mask blocks of patches
  config.parts = True  # True: mask body parts first
  config.max_parts = 6  # the number of parts of an image and view is uniform in 0, ..., max_parts (official)
  config.part_fraction = 0.3  # the masked share of a part is uniform in 0 to part_fraction (official)
  # uniform: the number of parts is drawn for every image with the limit max_parts (the paper) |
  # released: as in the official code, the limit shrinks from image to image within a group
  config.part_policy = "uniform"
  config.released_group = 256  # consecutive rows of the global batch that share a shrinking limit (released)
  return config


def data():
  """Returns the keys of the data: the source of the pictures and how they are read.

  The group `config.data.<source>` has the options of a source, with the defaults of its `open_source`. The
  docstring of `open_source` explains these options.
  """
  config = ml_collections.ConfigDict()
  config.source = "luperson"  # a file of hap_jax/data/sources
  config.root = ""  # folder of the data set
  config.workers = 8  # processes that read and decode pictures; 0: a thread of the training process does it
  config.num_val = 0  # number of records held out from training; 0: none, so there are no held-out scores
  config.max_bad_share = 0.001  # share of unreadable records at which the run stops
  config.flip_prob = 0.5  # probability of a horizontal flip of a training picture (official)
  for name, options in source_options.defaults().items():
    if options:
      config[name] = ml_collections.ConfigDict(options)
  # A run needs more and larger pictures than the defaults of the source, which `hap probe` uses.
  config.synthetic.num_train = 10_000  # pictures
  config.synthetic.num_test = 2_000  # pictures
  config.synthetic.image_size = (320, 160)  # pixels (H, W)
  return config


def attributes(source):
  """Returns the official fine-tuning configuration for attributes, with the hyperparameters for PETA.

  The configuration files of the other data sets change hyperparameters that depend on the data set, such as
  the number of epochs. Source: downstream_tasks/pedestrian_attribute_recognition of the official repository.
  """
  config = run("attributes")
  config.total_epochs = 50.0  # (official for PETA)
  config.warmup_epochs = 5.0  # a tenth of total_epochs (official)
  config.batch_size = 64  # global (official: 8 pictures on each of 8 GPUs)
  config.base_lr = 1.9e-4  # for all parameters; it does not depend on the batch size (official for PETA)
  config.warmup_lr = 1e-4  # learning rate of the first epoch (official)
  config.final_lr = 1e-5  # learning rate at the end of the cosine (official)
  config.weight_decay = 5e-4  # for all parameters (official)
  config.optimizer = adamw(beta2=0.999)
  config.optimizer.clip_norm = 10.0  # largest norm of the gradient of all parameters together (official)
  # Above 0: decay of a moving average of the weights. The average is evaluated in place of the weights.
  config.ema_decay = 0.0
  config.eval_every = 0
  config.eval_every_epochs = 1  # (official)

  config.model = model("B")
  config.model.image_size = (256, 192)  # pixels (H, W) (official)
  config.model.dtype = "float32"  # (official)

  config.data = data()
  config.data.source = source
  # trainval: train also on the validation set (official) |
  # train: do not train on the validation set, and use it to select the best checkpoint
  config.data.train_split = "trainval"
  config.data.pad = 10  # black pixels on each side before the random crop (official)
  config.eval_batch_size = 256
  return config


def pose2d(source):
  """Returns the official fine-tuning configuration for 2D pose, with the hyperparameters for COCO.

  The configuration files of the other data sets change hyperparameters that depend on the data set. Source:
  downstream_tasks/2d_pose_estimation of the official repository, which is ViTPose (arXiv 2204.12484).
  """
  config = run("pose2d")
  config.total_epochs = 210.0  # (official)
  config.warmup_steps = 500  # learning rate: linear, at most a tenth of the run (official)
  config.lr_drops = (170.0, 200.0)  # epochs at which the learning rate is divided by 10 (official)
  config.batch_size = 512  # global (official: 64 people on each of 8 GPUs)
  config.base_lr = 2e-4  # learning rate of the head; it does not depend on the batch size (official for COCO)
  # Learning rate of a block divided by the rate of the next block (official for COCO).
  config.layer_decay = 0.8
  # For all parameters except biases, norms and position table (official for COCO).
  config.weight_decay = 0.1
  config.optimizer = adamw(beta2=0.999)
  # Largest norm of the gradient of all parameters together (official for COCO).
  config.optimizer.clip_norm = 1.0
  # Standard deviation of the Gaussian around a joint, in heat map cells (official).
  config.heatmap_sigma = 2.0
  config.flip_test = True  # average the heat maps of an image and of its mirror image (official)
  config.eval_every = 0
  config.eval_every_epochs = 10  # (official)

  config.model = model("B")
  config.model.image_size = (256, 192)  # pixels (H, W); (384, 288) is the other official size
  # Black pixels on each side of the image, before it is cut into patches (official).
  config.model.patch_padding = 2
  config.model.head = "classic"  # classic (two transposed convolutions) (official) | simple (one convolution)
  config.model.head_channels = 256  # channels of the transposed convolutions (official)
  # Rate at the last block; it grows linearly from 0 at the first (official for COCO).
  config.model.drop_path = 0.29
  # False: the final norm of a pre-trained encoder is not used. The norm starts with scale 1 and shift 0
  # (official).
  config.model.map_norm = False
  # Number of experts in each MLP of the encoder: one for each data set, or 1 for no experts. It has no effect
  # with a single data set.
  config.model.num_experts = 1
  config.model.part_features = 0  # outputs of an expert; 0: a quarter of the width

  config.data = data()
  config.data.source = source
  # udp | msra: the rule of warp, heat maps and decoding (official for COCO and MPII: udp).
  config.data.codec = "udp"
  # True: boxes grow to the aspect ratio of the image (official for COCO and AIC).
  config.data.fit_aspect = True
  config.data.clip_boxes = False  # True: boxes are first cut at the border of the picture
  config.data.box_jitter_prob = 0.3  # probability that the box of a training person is shifted (official)
  # Probability that only the upper or lower half of a person is used (official).
  config.data.half_body_prob = 0.3
  config.data.scale_jitter = 0.5  # standard deviation of the random scale factor of the box (official)
  config.data.rotation = 40.0  # degrees, standard deviation of the random rotation (official)
  config.data.rotation_prob = 0.6  # probability of a rotation (official)
  config.eval_batch_size = 256
  return config


def pose2d_multi():
  """Returns the official configuration for 2D pose on COCO, AIC and MPII together, with 256 x 192 pixels.

  Source: the two `coco+aic+mpii` configurations of the official repository.
  """
  config = pose2d("mixed")
  mix(
    config,
    coco={"source": "coco_pose"},
    aic={"source": "aic_pose", "codec": "msra"},
    # The boxes of MPII are square, and are squeezed into the image (official).
    mpii={"source": "mpii_pose", "fit_aspect": False, "box_jitter_prob": 0.0, "half_body_prob": 0.0},
  )
  config.batch_size = 1024  # global (official: 128 people on each of 8 GPUs)
  config.base_lr = 1.1e-3  # (official)
  config.layer_decay = 0.77  # (official)
  config.model.drop_path = 0.3  # (official)
  config.model.num_experts = 3  # (official)
  return config


def text_reid(source):
  """Returns the official fine-tuning configuration for text-to-image person ReID.

  Source: downstream_tasks/text_to_image_person_reid of the official repository.
  """
  config = run("text_reid")
  config.total_epochs = 60.0  # (official)
  config.warmup_steps = 0  # no warm-up (official)
  # Epochs at which the learning rate is divided by 10. The official scheduler is stepped before each
  # epoch, so its drops at 20, 40 and 50 happen one epoch earlier (official).
  config.lr_drops = (19.0, 39.0, 49.0)
  config.batch_size = 64  # pairs of a picture and a caption (official)
  config.base_lr = 1e-3  # learning rate of LSTM, projection and classifier (official)
  config.image_lr_scale = 0.1  # learning rate of the picture encoder divided by base_lr (official)
  config.weight_decay = 0.0  # the official optimizer is Adam, which is AdamW without weight decay (official)
  config.optimizer = adamw(beta2=0.999)
  config.id_weight = 1.0  # weight of the cross-entropies over persons (official)
  config.ranking_weight = 1.0  # weight of the ranking loss, a sum over the batch (official)
  config.margin = 0.2  # margin of the ranking loss (official)
  config.eval_every = 0
  config.eval_every_epochs = 1  # (official)
  config.panel_rows = 6  # captions in the picture of rank lists

  config.model = model("B")
  config.model.image_size = (384, 128)  # pixels (H, W) (official)
  config.model.drop_path = 0.1  # rate at the last block; it grows linearly from 0 at the first (official)
  config.model.embedding_dim = 384  # width of the shared space of pictures and captions (official)

  config.text = ml_collections.ConfigDict()
  config.text.init_from = ""  # BERT folder of Hugging Face, such as bert-base-uncased
  # 0: the text encoder is frozen (official) | above 0: its learning rate divided by base_lr
  config.text.lr_scale = 0.0
  config.text.max_tokens = 100  # longer captions are cut (official)
  # floor: the largest value of each channel, but at least 0 | masked: the largest value. The official code
  # computes "floor" for all captions except the longest ones of a batch.
  config.text.pooling = "floor"
  # Sizes of a new text encoder, if text.init_from is empty and the text encoder is trained.
  config.text.width = 128
  config.text.depth = 2  # blocks
  config.text.num_heads = 2
  config.text.max_words = 1000  # largest number of words with two or more letters in the vocabulary

  config.data = data()
  config.data.source = source
  # train: the validation set selects the best checkpoint | trainval: train also on the validation set
  config.data.train_split = "train"
  config.data.pad = 10  # black pixels on each side before the random crop (official)
  config.eval_batch_size = 64  # (official)
  return config


def pose3d(source):
  """Returns the configuration for 3D pose and shape with a direct regression of the body parameters.

  This is a recipe of this project, not the official one. Size, crop and colours of the images are the same as
  in HAP's downstream_tasks/3d_pose_estimation. The losses follow HMR (arXiv 1712.06584).
  """
  config = run("pose3d")
  config.total_epochs = 20.0
  config.warmup_epochs = 1.0  # learning rate: linear from 0, after the warm-up half a cosine to 0
  config.batch_size = 256  # global
  config.base_lr = 2e-4  # learning rate of the head; it does not depend on the batch size
  config.layer_decay = 0.8  # learning rate of a block divided by the rate of the next block
  config.weight_decay = 0.05  # for all parameters except biases, norms and position table
  config.optimizer = adamw(beta2=0.999)
  config.optimizer.clip_norm = 1.0  # largest norm of the gradient of all parameters together
  config.eval_every = 0
  config.eval_every_epochs = 1

  # Folder of the body model, from `hap body`. Empty: the body of the source, which only drawn people have.
  config.body = ""
  config.loss = ml_collections.ConfigDict()  # weights
  config.loss.joints_2d = 5.0  # of the projected joints, absolute, in halves of the image
  config.loss.joints_3d = 50.0  # of the joints relative to the pelvis, squared, in metres
  config.loss.rotations = 10.0  # of the rotation matrices, squared
  config.loss.betas = 0.05  # of the shape, absolute

  config.model = model("B")
  config.model.image_size = (256, 256)  # pixels, a square (official)
  config.model.patch_padding = 2  # black pixels on each side of the image, before it is cut (official)
  config.model.hidden = 1024  # width of the hidden layer of the head
  config.model.drop_path = 0.1  # rate at the last block; it grows linearly from 0 at the first

  config.data = data()
  config.data.source = source
  # Data set of the scores. "": the held-out records of config.data.source.
  config.data.eval_source = ""
  config.data.eval_root = ""  # folder of this data set
  config.data.eval_body = ""  # folder of the body model of this data set; empty: the same as config.body
  config.data.scale_jitter = 0.25  # standard deviation and largest change of the scale factor (official)
  config.data.rotation = 30.0  # degrees, standard deviation of the random rotation (official)
  config.data.rotation_prob = 0.6  # probability of a rotation (official)
  config.data.color_gain = 0.2  # largest change of the factor of each colour channel (official)
  config.eval_batch_size = 256
  return config


def mix(config, **parts):
  """Sets the data sets of a configuration whose source is "mixed".

  Args:
    config: the result of one of the functions above.
    parts: {label: {key: value}}, in the order of the data sets. hap_jax/config_parts.py explains the keys.
  """
  mixed = config.data.mixed
  mixed.parts = tuple(parts)  # labels of the data sets
  for label, keys in parts.items():
    mixed[label] = ml_collections.ConfigDict({"root": "", **keys})


def make_demo(config, source, *, image_size, drawn_size):
  """Changes a configuration to a small model on drawn people. It then trains in minutes on two CPU cores.

  Args:
    config: the result of one of the functions above.
    source: the group of config.data that draws the people, such as "synthetic".
    image_size: (H, W) of the network's input in pixels.
    drawn_size: (H, W) of the drawn pictures in pixels.
  """
  config.model.variant = "Mu"
  config.model.image_size = image_size
  config.model.patch = 8
  # A small model compiles fast even without a scan, and on two cores a step without a scan is faster.
  config.model.scan = False
  config.data.workers = 0
  config.data[source].image_size = drawn_size
  config.data[source].hold_in_memory = True

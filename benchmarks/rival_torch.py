"""Times the pre-training step in plain PyTorch and in this project: python -m benchmarks.rival_torch.

    python -m benchmarks.rival_torch --size=B --batch=256 --torch_compile

The rival is a vision transformer in timm's layout with MAE's decoder, two masked views, both losses and
AdamW, as in the papers (arXiv 2310.20695, 2111.06377). The rival gets our masks as arrays. So our time
includes the drawing of the masks, and the rival's time does not. Both run in turn in one process on one
device, with the same weights and pictures. Only this benchmark needs PyTorch.
"""

import itertools
import os

import jax
import numpy as np
import torch
import torch.nn.functional as F
from flax import traverse_util
from torch import nn

from benchmarks import compiled, measure, pretrain_step, workload
from hap_jax import sharding
from hap_jax.convert import families, names
from hap_jax.models import layers, vit
from hap_jax.models.layers import LAYER_NORM_EPSILON
from hap_jax.pixels.normalize import IMAGENET_MEAN, IMAGENET_STD

_PATCH_VARIANCE_EPSILON = 1e-6  # added to the variance of a patch, as in MAE


class Block(nn.Module):
  """Pre-norm transformer block; [B, T, D] -> [B, T, D]."""

  def __init__(self, width, num_heads, ratio=4):
    super().__init__()
    self.num_heads = num_heads
    self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
    self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
    self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
    self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, ratio * width), "fc2": nn.Linear(ratio * width, width)})

  def forward(self, x):
    B, T, D = x.shape
    qkv = self.attn["qkv"](self.norm1(x)).reshape(B, T, 3, self.num_heads, D // self.num_heads)
    mixed = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
    x = x + self.attn["proj"](mixed.transpose(1, 2).reshape(B, T, D))
    return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class MaskedAutoencoder(nn.Module):
  """Encoder and decoder for N masked views of each picture. Parameters are named as in HAP's checkpoints."""

  def __init__(
    self, width, depth, num_heads, num_patches, patch, decoder_width, decoder_depth, decoder_heads
  ):
    super().__init__()
    self.patch = patch
    self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
    self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
    self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_patches, width), requires_grad=False)
    self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(depth))
    self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
    self.decoder_embed = nn.Linear(width, decoder_width)
    self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
    table = torch.zeros(1, 1 + num_patches, decoder_width)
    self.decoder_pos_embed = nn.Parameter(table, requires_grad=False)
    self.decoder_blocks = nn.ModuleList(Block(decoder_width, decoder_heads) for _ in range(decoder_depth))
    self.decoder_norm = nn.LayerNorm(decoder_width, eps=LAYER_NORM_EPSILON)
    self.decoder_pred = nn.Linear(decoder_width, 3 * patch * patch)

  def forward(self, image, ids_keep, ids_restore):
    """Runs the encoder and the decoder.

    Args:
      image: [B, 3, H, W] float32.
      ids_keep: [B, N, V] int64.
      ids_restore: [B, N, L] int64.
    Returns:
      (pred [B, N, L, P*P*3], cls [B, N, D]), float32.
    """
    B, N, L = ids_restore.shape
    x = self.patch_embed["proj"](image).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
    x = x[:, None].expand(-1, N, -1, -1).flatten(0, 1)
    x = torch.take_along_dim(x, ids_keep.flatten(0, 1)[..., None], 1)  # only visible patches are encoded
    x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(B * N, -1, -1), x], 1)
    for block in self.blocks:
      x = block(x)
    latent = self.norm(x)

    x = self.decoder_embed(latent)
    # Mask tokens stand for the hidden patches; ids_restore puts all patches back in the order of the grid.
    hidden = self.mask_token.to(x.dtype).expand(B * N, L + 1 - x.shape[1], -1)
    patches = torch.cat([x[:, 1:], hidden], 1)
    patches = torch.take_along_dim(patches, ids_restore.flatten(0, 1)[..., None], 1)
    x = torch.cat([x[:, :1], patches], 1) + self.decoder_pos_embed
    for block in self.decoder_blocks:
      x = block(x)
    pred = self.decoder_pred(self.decoder_norm(x)[:, 1:])
    return pred.float().reshape(B, N, L, -1), latent[:, 0].float().reshape(B, N, -1)


def normalise(image):
  """Normalises pictures: [B, H, W, 3] uint8 -> [B, 3, H, W] float32."""
  mean, std = (torch.tensor(v, device=image.device) for v in (IMAGENET_MEAN, IMAGENET_STD))
  return ((image.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def reconstruction_loss(pred, image, is_masked, patch):
  """Returns the mean squared error over hidden patches. A target is standardised with its own statistics."""
  B, _, H, W = image.shape
  target = image.reshape(B, 3, H // patch, patch, W // patch, patch).permute(0, 2, 4, 3, 5, 1).flatten(3)
  target = target.flatten(1, 2)[:, None]
  variance = target.var(-1, keepdim=True)
  target = (target - target.mean(-1, keepdim=True)) / (variance + _PATCH_VARIANCE_EPSILON).sqrt()
  error = (pred - target).square().mean(-1)
  return (error * is_masked).sum() / is_masked.sum()


def alignment_loss(first, second, temperature):
  """Returns the contrastive loss between the class tokens of two views, in both directions.

  In each direction the gradient stops at the tokens of the other view.
  """

  def one_way(query, keys):
    logits = F.normalize(query, dim=-1) @ F.normalize(keys, dim=-1).detach().T / temperature
    return 2 * temperature * F.cross_entropy(logits, torch.arange(len(query), device=query.device))

  return one_way(first, second) + one_way(second, first)


def make_loss(model, config):
  """Returns a function batch -> loss.

  A batch has image [B, H, W, 3] uint8, ids_keep and ids_restore int64, and is_masked bool.
  """
  in_bfloat16 = config.model.dtype == "bfloat16"

  def loss(batch):
    image = normalise(batch["image"])
    with torch.autocast(image.device.type, torch.bfloat16, enabled=in_bfloat16):
      pred, cls = model(image, batch["ids_keep"], batch["ids_restore"])
    total = reconstruction_loss(pred, image, batch["is_masked"], config.model.patch)
    if config.align_weight:
      total = total + config.align_weight * alignment_loss(cls[:, 0], cls[:, 1], config.align_temperature)
    return total

  return loss


def make_optimizer(model, config):
  """Returns a fused AdamW without weight decay on biases and norms."""
  trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
  is_plain = [p.ndim <= 1 for _, p in trained]  # biases and norm scales have one dimension
  groups = [
    {"params": [p for (_, p), plain in zip(trained, is_plain, strict=True) if not plain]},
    {"params": [p for (_, p), plain in zip(trained, is_plain, strict=True) if plain], "weight_decay": 0.0},
  ]
  spec = config.optimizer
  return torch.optim.AdamW(
    groups,
    lr=1e-6,
    betas=(spec.beta1, spec.beta2),
    eps=spec.eps,
    weight_decay=config.weight_decay,
    fused=True,
  )


def make_step(loss, optimizer):
  """Returns a function batch -> loss. Each call runs one training step."""

  def step(batch):
    optimizer.zero_grad(set_to_none=True)
    value = loss(batch)
    value.backward()
    optimizer.step()
    return value.detach()

  return step


def make_model(config, params):
  """Returns the network of a finalized configuration with our parameters, a nested dict of NumPy arrays."""
  size, model = vit.variant(config.model.variant), config.model
  rows, columns = layers.grid_of(model.image_size, model.patch)
  network = MaskedAutoencoder(
    size.width,
    size.depth,
    size.num_heads,
    rows * columns,
    model.patch,
    model.decoder_width,
    model.decoder_depth,
    model.decoder_heads,
  )
  state = {}
  flat = traverse_util.flatten_dict(params, sep="/")
  for row in names.table(families.load("hap"), depth=size.depth, decoder_depth=model.decoder_depth):
    array = row.layout.to_reference(row.of(np.asarray(flat[row.ours])))
    state[row.reference] = torch.from_numpy(np.array(array, order="C"))
  network.load_state_dict(state)
  return network


def make_batch(batch, device):
  """Converts our batch with masks to the network's batch."""
  mask = batch["mask"]
  arrays = {
    "image": np.asarray(batch["image"]),
    "ids_keep": np.asarray(mask.ids_keep, np.int64),
    "ids_restore": np.asarray(mask.ids_restore, np.int64),
    "is_masked": np.asarray(mask.is_masked),
  }
  return {name: torch.from_numpy(np.array(array)).to(device) for name, array in arrays.items()}


def parse_args(argv=None):
  """Reads the command line."""
  parser = measure.make_parser(__doc__)
  pretrain_step.add_options(parser)
  parser.add_argument(
    "--forward_only", action="store_true", help="time only the forward pass, without gradients and update"
  )
  parser.add_argument("--torch_compile", action="store_true", help="compile the rival's model and losses")
  args = parser.parse_args(argv)
  args.what = "forward" if args.forward_only else "step"
  return args


def make_rival(config, params, batch, *, what, torch_compile):
  """Returns a function without arguments that runs the rival's step or forward pass and returns the loss.

  The rival uses the same device as our step.
  """
  device = "cuda" if jax.default_backend() == "gpu" else "cpu"
  torch.set_num_threads(measure.machine()["cores"])
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
  model, batch = make_model(config, params).to(device), make_batch(batch, device)
  loss = make_loss(model, config)
  loss = torch.compile(loss) if torch_compile else loss
  if what == "step":
    step = make_step(loss, make_optimizer(model, config))
    return lambda: step(batch)

  def forward():
    with torch.no_grad():
      return loss(batch)

  return forward


def time_both(config, *, what="step", torch_compile=False, warmup, repeats, steps):
  """Builds and times our step and the rival's step. Returns the line to print."""
  mesh, task = workload.one_device(), workload.make_task(config)
  training, program = workload.Training(task, mesh), pretrain_step.make_program(task, mesh, what)
  batch = jax.device_put(pretrain_step.make_batch(config), sharding.batch_split(mesh))
  with_masks = jax.jit(lambda batch: pretrain_step.draw_masks(task, batch, 0))(batch)
  params = jax.device_get(training.state.params)
  rival = make_rival(config, params, with_masks, what=what, torch_compile=torch_compile)

  def theirs(_):
    values = [rival() for _ in range(steps)]
    float(values[-1])  # the copy to the host waits for all earlier work on the device

  times = measure.time_in_turn(
    {"ours": lambda _: training.run(program, itertools.repeat(batch), steps), "theirs": theirs},
    warmup=warmup,
    repeats=repeats,
    per=steps,
  )
  training.check()
  which = 0 if jax.default_backend() == "cpu" else 1
  found = {
    "what": what,
    # A ratio above 1 means that our step takes longer.
    "ratio": measure.median_ratio(times["ours"], times["theirs"], which),
    "ratio_of": ("cpu_seconds", "wall_seconds")[which],
    **measure.summary(times["ours"], "ours_"),
    **measure.summary(times["theirs"], "theirs_"),
    **workload.settings(config),
    "torch_compile": torch_compile,
    "torch_threads": torch.get_num_threads(),
    "rounds": repeats,
    "steps_a_round": steps,
  }
  return compiled.line("rival_torch", found, "torch")


def main(argv=None):
  # jax and PyTorch need memory on the same device, so jax must not reserve most of it. jax reads this
  # variable when it uses the device for the first time.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  args = parse_args(argv)
  config = pretrain_step.make_config(args)
  how = {"what": args.what, "torch_compile": args.torch_compile, **workload.repeats(args)}
  measure.show(time_both(config, **how))


if __name__ == "__main__":
  main()

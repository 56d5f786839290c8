"""Builds the networks of the tasks from plain sizes."""

from hap_jax.description import Description, Encoder
from hap_jax.models import layers, vit
from hap_jax.tasks import attributes as attribute_task
from hap_jax.tasks import pretrain as pretrain_task
from hap_jax.tasks import reid as reid_task


def _describe(task, variant, image_size, patch, network, mlp_ratio=4.0):
  grid = layers.grid_of(image_size, patch)
  encoder = Encoder(variant.width, variant.depth, variant.num_heads, grid, patch, mlp_ratio)
  return Description(task, encoder, network=network)


def pretraining(
  variant, *, image_size, patch, decoder_width, decoder_depth, decoder_heads, mlp_ratio=4.0, **compute
):
  """Builds the network of pre-training. `compute` are fields of `vit.Compute`."""
  decoder = {
    "width": decoder_width,
    "depth": decoder_depth,
    "num_heads": decoder_heads,
    "mlp_ratio": mlp_ratio,
  }
  description = _describe("pretrain", variant, image_size, patch, {"decoder": decoder}, mlp_ratio)
  return pretrain_task.network(description, vit.Compute(**compute))


def reid(variant, *, image_size, patch, num_classes, locality, drop_path=0.0, **compute):
  """Builds the network of person ReID. `compute` are fields of `vit.Compute`."""
  sizes = {"num_classes": num_classes, "locality": locality}
  description = _describe("reid", variant, image_size, patch, sizes)
  return reid_task.network(description, vit.Compute(**compute), drop_path=drop_path)


def attributes(variant, *, image_size, patch, num_attributes, **compute):
  """Builds the network of attribute recognition. `compute` are fields of `vit.Compute`."""
  description = _describe("attributes", variant, image_size, patch, {"num_attributes": num_attributes})
  return attribute_task.network(description, vit.Compute(**compute))

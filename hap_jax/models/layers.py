"""Patches, and the transformer block that the encoder and the decoder share."""

import flax.linen as nn
import jax
import jax.numpy as jnp

# Parity: the official ViT's; flax's default of 1e-6 is the same number today, stated so that it stays.
LAYER_NORM_EPSILON = 1e-6


def grid_of(image_size, patch):
  """Returns the grid (Gh, Gw) of patches of side `patch` in an image of (H, W) pixels.

  Raises:
    ValueError: if the patch does not divide both sides.
  """
  height, width = image_size
  if min(height, width, patch) <= 0 or height % patch or width % patch:
    raise ValueError(
      f"image {height}x{width} is not a multiple of patch={patch}: change model.image_size or model.patch"
    )
  return height // patch, width // patch


def patchify(image, patch):
  """Cuts images into flat patches, row-major over the grid.

  Args:
    image: [B, H, W, C]. patch: side P in pixels; must divide H and W.
  Returns:
    [B, L, P*P*C] with L = (H/P) * (W/P); inside a patch rows, then columns, then channels.
  Raises:
    ValueError: if P does not divide H and W.
  """
  B, H, W, C = image.shape
  Gh, Gw = grid_of((H, W), patch)
  x = image.reshape(B, Gh, patch, Gw, patch, C)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(B, Gh * Gw, patch * patch * C)


def unpatchify(patches, grid, patch):
  """Puts flat patches [B, L, P*P*C] back into images [B, H, W, C]; the inverse of `patchify`."""
  B = patches.shape[0]
  Gh, Gw = grid
  x = patches.reshape(B, Gh, Gw, patch, patch, -1)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(B, Gh * patch, Gw * patch, -1)


def dense(features, dtype, name):
  """A linear layer with the initialisation of MAE and HAP: Xavier-uniform kernel, zero bias."""
  return nn.Dense(features, dtype=dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)


def layer_norm(dtype, name):
  """LayerNorm whose statistics are float32 whatever the compute type, from centred squares."""
  return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=dtype, use_fast_variance=False, name=name)


class Attention(nn.Module):
  """Multi-head self-attention with a joint projection to queries, keys and values.

  Takes and returns [B*T, D]; `length` is T. Tokens stay flat outside the attention product itself because
  matrix products over two dimensions are up to twice as fast on a CPU as the batched ones.
  """

  num_heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, tokens, length):
    D = tokens.shape[-1]
    qkv = dense(3 * D, self.dtype, "qkv")(tokens)
    qkv = qkv.reshape(-1, length, 3, self.num_heads, D // self.num_heads)  # [B, T, 3, heads, D/heads]
    mixed = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
    return dense(D, self.dtype, "proj")(mixed.reshape(-1, D))


class Mlp(nn.Module):
  """Two linear layers around an exact (erf) GELU."""

  ratio: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, tokens):
    D = tokens.shape[-1]
    hidden = dense(int(D * self.ratio), self.dtype, "fc1")(tokens)
    return dense(D, self.dtype, "fc2")(nn.gelu(hidden, approximate=False))


class Block(nn.Module):
  """Pre-norm transformer block; [B*T, D] -> [B*T, D]."""

  num_heads: int
  mlp_ratio: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, tokens, length):
    attended = Attention(self.num_heads, self.dtype, name="attn")(
      layer_norm(self.dtype, "norm1")(tokens), length
    )
    tokens = tokens + attended
    return tokens + Mlp(self.mlp_ratio, self.dtype, name="mlp")(layer_norm(self.dtype, "norm2")(tokens))


def run_blocks(module, tokens, *, depth, num_heads, mlp_ratio, dtype, scan):
  """Runs `depth` blocks, named `blocks_0`, `blocks_1`, ... in `module`, over [B, T, D] tokens.

  To be called inside the module's compact method. Parameters always live in one subtree a block. With `scan`
  the subtrees are stacked here, inside the compiled function, and one compiled block is scanned over them:
  it compiles about three times faster and needs no second parameter layout anywhere else.

  Returns:
    [B, T, D].
  """
  length, width = tokens.shape[1:]
  flat = tokens.reshape(-1, width)
  if scan and not module.is_initializing():
    subtrees = [module.variables["params"][f"blocks_{i}"] for i in range(depth)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *subtrees)
    block = Block(num_heads, mlp_ratio, dtype, parent=None)
    flat, _ = jax.lax.scan(lambda x, p: (block.apply({"params": p}, x, length), None), flat, stacked)
  else:
    for i in range(depth):
      flat = Block(num_heads, mlp_ratio, dtype, name=f"blocks_{i}")(flat, length)
  return flat.reshape(-1, length, width)

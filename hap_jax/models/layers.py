"""Patches, and the transformer block that the encoder and the decoder share."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hap_jax import sharding

# Parity: the official ViT's; flax's default of 1e-6 is the same number today, stated so that it stays.
LAYER_NORM_EPSILON = 1e-6

# What of a block is computed again for its gradient, and what is therefore not kept. From least to most:
# nothing; norms, GELU and softmax; what is no product with parameters, so attention, too; all but its input.
REMAT_POLICIES = {
  "none": None,
  "elementwise": jax.checkpoint_policies.dots_saveable,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  "full": jax.checkpoint_policies.nothing_saveable,
}
ATTENTIONS = ("xla", "cudnn")


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


def l2_normalize(feature):
  """Scales each [..., D] feature to length 1: x / max(|x|, 1e-12), float32."""
  feature = feature.astype(jnp.float32)
  return feature / jnp.maximum(jnp.linalg.norm(feature, axis=-1, keepdims=True), 1e-12)


@jax.custom_vjp
def gather_tokens(tokens, index, inverse):
  """Picks tokens, [B, S, D] -> [B, R, D], each at most once; where that is so, its gradient is a gather, too.

  The transpose of a plain gather is a scatter-add, which is slow on accelerators and on a GPU adds in no
  fixed order, so that a run could not be repeated bit for bit.

  Args:
    tokens: [B, S, D]. index: [B, R] int32, the token of each place; places of `inverse` -1 may repeat one.
    inverse: [B, S] int32, the place to which each token's gradient belongs; -1: to none.
  """
  del inverse
  return jnp.take_along_axis(tokens, index[..., None], axis=1)


def _gather_tokens_forward(tokens, index, inverse):
  return gather_tokens(tokens, index, inverse), inverse


def _gather_tokens_backward(inverse, gradient):
  picked = jnp.take_along_axis(gradient, jnp.maximum(inverse, 0)[..., None], axis=1)
  return jnp.where(inverse[..., None] >= 0, picked, 0), None, None


gather_tokens.defvjp(_gather_tokens_forward, _gather_tokens_backward)


@jax.custom_vjp
def matmul(rows, kernel):
  """Multiplies [R, K] by [K, N]; as `@`, but for how a CPU finds the kernel's gradient."""
  return rows @ kernel


def _matmul_forward(rows, kernel):
  return rows @ kernel, (rows, kernel)


def _matmul_backward(saved, gradient):
  rows, kernel = saved
  kernel_gradient = jax.lax.platform_dependent(
    rows, gradient, cpu=_transpose_first, default=lambda rows, gradient: rows.T @ gradient
  )
  return gradient @ kernel.T, kernel_gradient


def _transpose_first(rows, gradient):
  """Returns rows.T @ gradient in half the time that XLA's product over both's first dimension takes on a CPU.

  The narrower of the two is transposed; barriers keep XLA from folding transposes into the product.
  """
  barrier = jax.lax.optimization_barrier
  if rows.shape[1] <= gradient.shape[1]:
    return barrier(rows.T) @ gradient
  return barrier(barrier(gradient.T) @ rows).T


matmul.defvjp(_matmul_forward, _matmul_backward)


def _dot_general(inputs, kernel, dimension_numbers, **_):
  """What `nn.Dense` asks of `jax.lax.dot_general`, by `matmul`."""
  assert dimension_numbers == (((inputs.ndim - 1,), (0,)), ((), ()))
  return matmul(inputs.reshape(-1, len(kernel)), kernel).reshape(*inputs.shape[:-1], -1)


def dense(features, dtype, name):
  """A linear layer with the initialisation of MAE and HAP: Xavier-uniform kernel, zero bias."""
  return nn.Dense(
    features,
    dtype=dtype,
    kernel_init=nn.initializers.xavier_uniform(),
    dot_general=_dot_general,
    name=name,
  )


def layer_norm(dtype, name):
  """LayerNorm whose statistics are float32 whatever the compute type, from centred squares."""
  return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=dtype, use_fast_variance=False, name=name)


def attend(qkv, implementation="xla"):
  """Softmax attention of joint queries, keys and values.

  Args:
    qkv: [B, T, 3, heads, D/heads].
    implementation: "xla": plain products, each head's rows put together first, which on a CPU halves the time
      of `jax.nn.dot_product_attention`; "cudnn": that function's, fused.
  Returns:
    [B, T, heads, D/heads]; logits and softmax are float32.
  """
  # By a split, whose gradient is one concatenation: that of a stack takes a CPU twice as long.
  query, key, value = (part.squeeze(2) for part in jnp.split(qkv, 3, axis=2))
  if implementation != "xla":
    return jax.nn.dot_product_attention(query, key, value, implementation=implementation)
  query, key, value = (x.transpose(0, 2, 1, 3) for x in (query, key, value))  # [B, heads, T, D/heads]
  query = query * query.shape[-1] ** -0.5  # fewer numbers than there are logits
  logits = jnp.einsum("bhtd,bhsd->bhts", query, key, preferred_element_type=jnp.float32)
  weights = jax.nn.softmax(logits).astype(value.dtype)
  return jnp.einsum("bhts,bhsd->bhtd", weights, value).transpose(0, 2, 1, 3)


class Attention(nn.Module):
  """Multi-head self-attention with a joint projection to queries, keys and values.

  Takes and returns [B*T, D]; `length` is T. Tokens stay flat outside the attention product itself because
  matrix products over two dimensions are up to twice as fast on a CPU as the batched ones. `implementation`
  is that of `attend`.
  """

  num_heads: int
  dtype: jnp.dtype
  implementation: str = "xla"

  @nn.compact
  def __call__(self, tokens, length):
    D = tokens.shape[-1]
    qkv = dense(3 * D, self.dtype, "qkv")(tokens)
    qkv = qkv.reshape(-1, length, 3, self.num_heads, D // self.num_heads)  # [B, T, 3, heads, D/heads]
    mixed = attend(qkv, self.implementation)
    return dense(D, self.dtype, "proj")(mixed.reshape(-1, D))


def gelu(x):
  """Exact GELU, x * Phi(x), computed in float32 and returned in the type of `x`.

  By erf, as PyTorch does it: on a CPU 2.5 times as fast as `jax.nn.gelu`, which takes erfc for the relative
  error of tiny results; the absolute error stays below 1e-6 for |x| <= 8.
  """
  half = 0.5 * x.astype(jnp.float32)
  return (half + half * jax.lax.erf(half * np.float32(np.sqrt(2)))).astype(x.dtype)


class Mlp(nn.Module):
  """Two linear layers around an exact (erf) GELU."""

  ratio: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, tokens):
    D = tokens.shape[-1]
    hidden = dense(int(D * self.ratio), self.dtype, "fc1")(tokens)
    return dense(D, self.dtype, "fc2")(gelu(hidden))


class Block(nn.Module):
  """Pre-norm transformer block; [B*T, D] -> [B*T, D].

  `branch_scale` [2, B] float32, from `drop_path_scales`, scales what attention and MLP add to each example;
  None adds it as it is.
  """

  num_heads: int
  mlp_ratio: float
  dtype: jnp.dtype
  attention: str = "xla"

  @nn.compact
  def __call__(self, tokens, length, branch_scale=None):
    attended = Attention(self.num_heads, self.dtype, self.attention, name="attn")(
      layer_norm(self.dtype, "norm1")(tokens), length
    )
    tokens = tokens + _scale_branch(attended, length, branch_scale, 0)
    mixed = Mlp(self.mlp_ratio, self.dtype, name="mlp")(layer_norm(self.dtype, "norm2")(tokens))
    return tokens + _scale_branch(mixed, length, branch_scale, 1)


def _scale_branch(branch, length, branch_scale, which):
  if branch_scale is None:
    return branch
  return (branch * jnp.repeat(branch_scale[which], length)[:, None]).astype(branch.dtype)


def drop_path_scales(key, batch, *, depth, drop_path):
  """Draws which branches of which blocks are left out for which examples.

  Stochastic depth (arXiv 1603.09382): block i leaves each of its two branches out of an example with
  probability r_i = drop_path * i / (depth - 1), and otherwise divides it by 1 - r_i, so that its expectation
  stays. Its draws depend on fold_in(key, i) alone.

  Args:
    key: PRNG key. batch: examples B. depth: blocks. drop_path: rate of the last block, below 1.
  Returns:
    [depth, 2, B] float32: 0 or 1 / (1 - r_i); attention, then MLP.
  """
  keep = 1 - drop_path * jnp.arange(depth) / max(depth - 1, 1)

  def draw(i, keep):
    return jax.random.bernoulli(jax.random.fold_in(key, i), keep, (2, batch)) / keep

  return jax.vmap(draw)(jnp.arange(depth), keep)


def run_blocks(
  module,
  tokens,
  *,
  depth,
  num_heads,
  mlp_ratio,
  dtype,
  scan,
  remat="none",
  attention="xla",
  branch_scales=None,
):
  """Runs `depth` blocks over [B, T, D] tokens; to be called inside the compact method of `module`.

  Their parameters are one subtree of the module, `blocks`, with the block's number as the first axis of every
  leaf. With `scan` one compiled block runs over that axis, which compiles faster the deeper the model; what
  is stored is the same either way.

  Args:
    remat: what of a block's inside is computed again for the gradient, a key of `REMAT_POLICIES`.
    attention: see `Attention`.
    branch_scales: [depth, 2, B] from `drop_path_scales`; None: every branch counts in full.
  Returns:
    [B, T, D].
  """
  length, width = tokens.shape[1:]
  flat = tokens.reshape(-1, width)
  block = Block(num_heads, mlp_ratio, dtype, attention, parent=None)
  if module.is_initializing():
    # A loop over the blocks, because the generator of random numbers takes twice as long to compile for many.
    init = lambda key: block.init(key, flat, length)["params"]  # noqa: E731
    module.param("blocks", lambda key: jax.lax.map(init, jax.random.split(key, depth)))
  stacked = module.variables["params"]["blocks"]

  def run_block(x, params_and_scale):
    params, branch_scale = params_and_scale
    return block.apply({"params": params}, sharding.split_rows(x), length, branch_scale), None

  if remat != "none":
    # A scan keeps the recomputation apart by itself; without one the compiler would merge it away.
    run_block = jax.checkpoint(run_block, policy=REMAT_POLICIES[remat], prevent_cse=not scan)
  if scan:
    flat, _ = jax.lax.scan(run_block, flat, (stacked, branch_scales))
  else:
    for i, params in enumerate(_unstack(stacked, depth)):
      flat, _ = run_block(flat, (params, None if branch_scales is None else branch_scales[i]))
  return flat.reshape(-1, length, width)


def _unstack(stacked, depth):
  """Returns each block's parameters; by a split, whose gradient writes each block's part once."""
  leaves, tree = jax.tree.flatten(stacked)
  parts = [jax.lax.split(leaf, [1] * depth) for leaf in leaves]
  return [tree.unflatten([part[i][0] for part in parts]) for i in range(depth)]

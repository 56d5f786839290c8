"""Conversion of images to patches, and the transformer block that the encoder and the decoder share."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hap_jax import sharding
from hap_jax.models import cpu_matmul

# Parity: the epsilon of the official ViT. It is also the default of flax. This default may change, so the
# number is set here.
LAYER_NORM_EPSILON = 1e-6

# To save memory, some values of a block are not kept but computed again for the gradient. Each name stands
# for a set of such values. The sets grow from the first name to the last:
# "none": no value is computed again.
# "elementwise": the results of norms, GELU and softmax are computed again. All matrix products are kept.
# "dots": also the matrix products of the attention. Only the products with parameters are kept.
# "full": every value of the block is computed again. Only the input of the block is kept.
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


def check_padding(padding, patch):
  """Raises ValueError if patches of side `patch` cannot have this padding, see `patchify`."""
  if not 0 <= 2 * padding < patch:
    raise ValueError(
      f"patch_padding={padding} does not fit patch={patch}: expected 0 or more, and less than half a patch"
    )


def patchify(image, patch, padding=0):
  """Cuts images into flat patches, row-major over the grid.

  Args:
    image: [B, H, W, C].
    patch: side P in pixels; must divide H and W.
    padding: zero pixels that a convolution with stride P would add on all four sides; less than P / 2. They
      shift the patches: patch (i, j) begins at row P*i - padding and column P*j - padding. The last `padding`
      rows and columns of the image are in no patch.
  Returns:
    [B, L, P*P*C] with L = (H/P) * (W/P). The values of a patch are row-major, and the channel varies fastest.
  Raises:
    ValueError: if P does not divide H and W, or if the padding is negative or not less than P / 2.
  """
  B, H, W, C = image.shape
  Gh, Gw = grid_of((H, W), patch)
  if padding:
    check_padding(padding, patch)
    # With 2 * padding < P, the convolution has no further row or column of patches. So its zeros at the
    # bottom and at the right are not in any patch.
    border = (padding, -padding, 0)
    image = jax.lax.pad(image, np.zeros((), image.dtype), ((0, 0, 0), border, border, (0, 0, 0)))
  x = image.reshape(B, Gh, patch, Gw, patch, C)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(B, Gh * Gw, patch * patch * C)


def l2_normalize(feature):
  """Scales each [..., D] feature to length 1: x / max(|x|, 1e-12), float32."""
  feature = feature.astype(jnp.float32)
  return feature / jnp.maximum(jnp.linalg.norm(feature, axis=-1, keepdims=True), 1e-12)


@jax.custom_vjp
def gather_tokens(tokens, index, inverse):
  """Picks tokens: [B, S, D] -> [B, R, D]. The gradient of this function is also a gather.

  The gradient of a plain gather is a scatter-add, which is slow on accelerators. A GPU also adds in no fixed
  order, so two runs would not agree bit for bit. Here each token gets the gradient of at most one output row,
  so no sum is needed. `inverse` contains these rows.

  Args:
    tokens: [B, S, D].
    index: [B, R] int32, the token of each output row. Several rows may have the same token.
    inverse: [B, S] int32, the output row whose gradient goes to each token. -1: the token gets no gradient.
      The gradient of an output row that is not in `inverse` is dropped.
  """
  del inverse
  return jnp.take_along_axis(tokens, index[..., None], axis=1)


def _gather_tokens_forward(tokens, index, inverse):
  return gather_tokens(tokens, index, inverse), inverse


def _gather_tokens_backward(inverse, gradient):
  # -1 is no valid index, so it is clipped to 0 for the gather. The row gathered for it is then set to zero.
  picked = jnp.take_along_axis(gradient, jnp.maximum(inverse, 0)[..., None], axis=1)
  return jnp.where(inverse[..., None] >= 0, picked, 0), None, None


gather_tokens.defvjp(_gather_tokens_forward, _gather_tokens_backward)


def dense(features, dtype, name):
  """Returns a linear layer with the initialisation of MAE and HAP: Xavier-uniform kernel, zero bias."""
  return nn.Dense(
    features,
    dtype=dtype,
    kernel_init=nn.initializers.xavier_uniform(),
    dot_general=cpu_matmul.dot_general,
    name=name,
  )


def layer_norm(dtype, name, epsilon=LAYER_NORM_EPSILON):
  """Returns a LayerNorm whose statistics are float32, whatever the compute type."""
  # The fast variance, mean(x^2) - mean(x)^2, loses digits if the mean is large. The mean of (x - mean)^2 does
  # not lose them.
  return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


def attend(qkv, implementation="xla", is_real=None):
  """Computes softmax attention from queries, keys and values in one array.

  Args:
    qkv: [B, T, 3, heads, D/heads].
    implementation: "xla": plain matrix products, after a transpose that puts the tokens of each head next to
      each other. On a CPU this takes half the time of `jax.nn.dot_product_attention`. "cudnn": the fused
      kernel of `jax.nn.dot_product_attention`.
    is_real: [B, T] bool, False for the padding of a row: such a token gets no attention. None: no padding.
  Returns:
    [B, T, heads, D/heads]. Logits and softmax are computed in float32.
  """
  # The gradient of a split is one concatenation. A stack of the three gradients would take twice as long on a
  # CPU.
  query, key, value = (part.squeeze(2) for part in jnp.split(qkv, 3, axis=2))
  if implementation != "xla":
    mask = None if is_real is None else is_real[:, None, None]
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=implementation)
  query, key, value = (x.transpose(0, 2, 1, 3) for x in (query, key, value))  # [B, heads, T, D/heads]
  # Scaling the query is cheaper than scaling the logits, because there are more logits.
  query = query * query.shape[-1] ** -0.5
  logits = jnp.einsum("bhtd,bhsd->bhts", query, key, preferred_element_type=jnp.float32)
  if is_real is not None:
    # The lowest number instead of -inf: a row without any real token then gives finite values, not NaN.
    logits = jnp.where(is_real[:, None, None], logits, jnp.finfo(logits.dtype).min)
  weights = jax.nn.softmax(logits).astype(value.dtype)
  return jnp.einsum("bhts,bhsd->bhtd", weights, value).transpose(0, 2, 1, 3)


class Attention(nn.Module):
  """Multi-head self-attention with a joint projection to queries, keys and values.

  It takes and returns flat tokens, [B*T, D]. `length` is T. Only the attention product uses [B, T, ...]
  arrays, because on a CPU a product of two matrices is up to twice as fast as a batched product.

  Attributes:
    implementation: see `attend`, also for the argument `is_real`.
  """

  num_heads: int
  dtype: jnp.dtype
  implementation: str = "xla"

  @nn.compact
  def __call__(self, tokens, length, is_real=None):
    D = tokens.shape[-1]
    qkv = dense(3 * D, self.dtype, "qkv")(tokens)
    qkv = qkv.reshape(-1, length, 3, self.num_heads, D // self.num_heads)  # [B, T, 3, heads, D/heads]
    mixed = attend(qkv, self.implementation, is_real)
    return dense(D, self.dtype, "proj")(mixed.reshape(-1, D))


def gelu(x):
  """Returns the exact GELU, x * Phi(x), computed in float32 and returned in the type of `x`.

  It uses erf, as PyTorch does. `jax.nn.gelu` uses erfc to keep the relative error of tiny results small. On a
  CPU, erf is 2.5 times as fast. The absolute error of this function is below 1e-6 for |x| <= 8.
  """
  half = 0.5 * x.astype(jnp.float32)
  return (half + half * jax.lax.erf(half * np.float32(np.sqrt(2)))).astype(x.dtype)


class Mlp(nn.Module):
  """Two linear layers with an exact (erf) GELU between them."""

  ratio: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, tokens):
    D = tokens.shape[-1]
    hidden = dense(int(D * self.ratio), self.dtype, "fc1")(tokens)
    return dense(D, self.dtype, "fc2")(gelu(hidden))


class Block(nn.Module):
  """Pre-norm transformer block; [B*T, D] -> [B*T, D].

  `branch_scale` is [2, B] float32 from `drop_path_scales`. For each example, it scales the outputs of
  attention and MLP before they are added to the tokens. None: no scaling.
  """

  num_heads: int
  mlp_ratio: float
  dtype: jnp.dtype
  attention: str = "xla"
  norm_eps: float = LAYER_NORM_EPSILON

  @nn.compact
  def __call__(self, tokens, length, branch_scale=None):
    attended = Attention(self.num_heads, self.dtype, self.attention, name="attn")(
      layer_norm(self.dtype, "norm1", self.norm_eps)(tokens), length
    )
    tokens = tokens + _scale_branch(attended, length, branch_scale, 0)
    mixed = Mlp(self.mlp_ratio, self.dtype, name="mlp")(
      layer_norm(self.dtype, "norm2", self.norm_eps)(tokens)
    )
    return tokens + _scale_branch(mixed, length, branch_scale, 1)


def _scale_branch(branch, length, branch_scale, which):
  if branch_scale is None:
    return branch
  return (branch * jnp.repeat(branch_scale[which], length)[:, None]).astype(branch.dtype)


def drop_path_scales(key, batch, *, depth, drop_path):
  """Draws the scale of every branch of every block for every example; 0 drops the branch.

  Stochastic depth (arXiv 1603.09382): in block i, each of the two branches is dropped for an example with
  probability r_i = drop_path * i / (depth - 1). A branch that is kept is divided by 1 - r_i, so its expected
  value does not change. The draws of block i depend only on fold_in(key, i).

  Args:
    key: PRNG key.
    batch: number of examples B.
    depth: number of blocks.
    drop_path: rate of the last block, below 1.
  Returns:
    [depth, 2, B] float32 with the values 0 and 1 / (1 - r_i). On the second axis, 0 is attention and 1 is
    MLP.
  """
  # A single block has rate 0. max() only avoids the division 0 / 0.
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
  norm_eps=LAYER_NORM_EPSILON,
):
  """Runs `depth` blocks on [B, T, D] tokens. Call it inside the compact method of `module`.

  The parameters of all blocks are one subtree of the module, `blocks`. The first axis of every leaf is the
  number of the block. With `scan`, only one block is compiled, and a loop runs it over that axis. This
  shortens the compile time of deep models. The stored parameters are the same with and without `scan`.

  Args:
    module: the module that owns the parameters.
    tokens: [B, T, D].
    depth, num_heads, mlp_ratio, dtype: sizes and compute type of the blocks, see `vit.ViT`.
    scan: True: one compiled block in a loop. False: every block is compiled.
    remat: a key of `REMAT_POLICIES`.
    attention: see `attend`.
    branch_scales: [depth, 2, B] from `drop_path_scales`; None: no branch is scaled.
    norm_eps: the epsilon of the norms.
  Returns:
    [B, T, D].
  """
  length, width = tokens.shape[1:]
  # The blocks work on flat tokens, see `Attention`.
  flat = tokens.reshape(-1, width)
  # With parent=None, flax does not register the parameters of this block. They are stored below, stacked.
  block = Block(num_heads, mlp_ratio, dtype, attention, norm_eps, parent=None)
  stacked = stacked_parameters(module, block, depth, flat, length)

  def run_block(x, params_and_scale):
    params, branch_scale = params_and_scale
    # Each device keeps its own rows in every block.
    return block.apply({"params": params}, sharding.split_rows(x), length, branch_scale), None

  if remat != "none":
    # The values are computed once for the output and once more for the gradient. Without a scan, the compiler
    # would merge the two computations and keep the values in memory. prevent_cse forbids this. With a scan,
    # the two are already separate, and prevent_cse would only slow down the step.
    run_block = jax.checkpoint(run_block, policy=REMAT_POLICIES[remat], prevent_cse=not scan)
  if scan:
    # None is an empty pytree, so scan accepts branch_scales=None and gives None to every block.
    flat, _ = jax.lax.scan(run_block, flat, (stacked, branch_scales))
  else:
    for i, params in enumerate(_unstack(stacked, depth)):
      flat, _ = run_block(flat, (params, None if branch_scales is None else branch_scales[i]))
  return flat.reshape(-1, length, width)


def stacked_parameters(module, block, depth, *inputs):
  """Returns the parameters of `depth` blocks, the subtree `blocks` of a module.

  The first axis of every leaf is the number of the block.

  Args:
    module: the module that owns the parameters. Call this function inside its compact method.
    block: a module that is made with parent=None.
    depth: number of blocks.
    *inputs: arguments of a call of the block.
  """
  if module.is_initializing():
    # lax.map instead of vmap, because with vmap the random number generator takes twice as long to compile.
    init = lambda key: block.init(key, *inputs)["params"]  # noqa: E731
    module.param("blocks", lambda key: jax.lax.map(init, jax.random.split(key, depth)))
  return module.variables["params"]["blocks"]


def _unstack(stacked, depth):
  """Returns a list of the parameters of each block."""
  # The gradient of a split writes the part of each block once. The gradient of indexing would be a sum of
  # `depth` full arrays, each of them zero outside one block.
  leaves, tree = jax.tree.flatten(stacked)
  parts = [jax.lax.split(leaf, [1] * depth) for leaf in leaves]
  return [tree.unflatten([part[i][0] for part in parts]) for i in range(depth)]

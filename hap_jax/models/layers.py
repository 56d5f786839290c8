"""Conversion of images to patches, and the transformer block that the encoder and the decoder share."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hap_jax import sharding
from hap_jax.models import cpu_matmul
from hap_jax.models.attention import KEPT, attend

# Parity: the epsilon of the official ViT. It is also the default of flax. This default may change, so the
# number is set here.
LAYER_NORM_EPSILON = 1e-6

# To save memory, some values of a block are not kept but computed again for the gradient. Each name stands
# for a set of such values. The sets grow from the first name to the last. The logits and the weights of the
# attention are in all sets, see `attention.attend`; its outputs are only in the last set.
# "none": only logits and weights of the attention.
# "elementwise": also the results of norms and GELU. All matrix products are kept.
# "dots": also matrix products without parameters. With `attend`, these are the logits and the mixed values,
#   so this set equals the set of "elementwise".
# "full": every value of the block. Only the input of the block is kept.
_policies = jax.checkpoint_policies


def _and_attention(policy):
  return _policies.save_from_both_policies(policy, _policies.save_only_these_names(*KEPT))


REMAT_POLICIES = {
  "none": None,
  "elementwise": _and_attention(_policies.dots_saveable),
  "dots": _and_attention(_policies.dots_with_no_batch_dims_saveable),
  "full": _policies.nothing_saveable,
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


class _Linear(nn.Module):
  """The parameters of `dense`, for products that split the outputs or the inputs into heads."""

  features: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, width):
    kernel = self.param("kernel", nn.initializers.xavier_uniform(), (width, self.features))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return kernel.astype(self.dtype), bias.astype(self.dtype)


class Attention(nn.Module):
  """Multi-head self-attention of groups of tokens: a tuple of [B, T_i, D] -> a tuple of [B, T_i, D].

  Queries, keys and values are three products with parts of one kernel. The result of one product would have
  to be cut, and on a TPU this copies it.

  Attributes:
    implementation: see `attention.attend`, also for the argument `is_real`.
  """

  num_heads: int
  dtype: jnp.dtype
  implementation: str = "xla"

  @nn.compact
  def __call__(self, groups, is_real=None):
    D = groups[0].shape[-1]
    heads = (self.num_heads, D // self.num_heads)
    kernel, bias = _Linear(3 * D, self.dtype, name="qkv")(D)
    # The gradient of a split is one concatenation. The gradient of indexing would be a sum of three arrays.
    kernels = jax.lax.split(kernel.reshape(D, 3, *heads), [1] * 3, axis=1)
    biases = jax.lax.split(bias.reshape(3, *heads), [1] * 3)
    queries, keys, values = (
      tuple(cpu_matmul.matmul(tokens, kernel.squeeze(1)) + bias for tokens in groups)
      for kernel, bias in zip(kernels, biases, strict=True)
    )
    attended = attend(queries, keys, values, self.implementation, is_real)
    kernel, bias = _Linear(D, self.dtype, name="proj")(D)
    return tuple(cpu_matmul.matmul(mixed, kernel.reshape(*heads, D), 2) + bias for mixed in attended)


def gelu(x):
  """Returns the exact GELU, x * Phi(x), computed in float32 and returned in the type of `x`.

  It uses erf, as PyTorch does. `jax.nn.gelu` uses erfc to keep the relative error of tiny results small. On a
  CPU, erf is 2.5 times as fast. The absolute error of this function is below 1e-6 for |x| <= 8.
  """
  half = 0.5 * x.astype(jnp.float32)
  return (half + half * jax.lax.erf(half * np.float32(np.sqrt(2)))).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Experts:
  """Sizes of the experts in the MLPs of an encoder (ViTPose+, arXiv 2212.04246).

  The last `part_features` outputs of an MLP come from the expert of the picture, the others are shared. The
  second layer of the MLP, fc2, has the shared outputs, then the outputs of each expert. So one matrix product
  computes all experts. Compared with a kernel of its own for each picture, it needs more operations and less
  memory, because no kernel is copied.

  Attributes:
    number: number of experts E. 1: there are no experts.
    part_features: outputs P of each expert.
  """

  number: int = 1
  part_features: int = 0

  def num_outputs(self, width):
    """Returns the number of outputs of fc2 in an encoder of this width."""
    return width + (self.number - 1) * self.part_features

  def pick(self, outputs, expert):
    """Returns the outputs of an MLP, given all outputs of fc2: [..., D - P + E * P] -> [..., D].

    The outputs of the other experts get a gradient of exactly zero.

    Args:
      outputs: the outputs of fc2.
      expert: int, the expert of each token, in a shape that broadcasts to [...].
    """
    if self.number == 1:
      return outputs
    num_own = self.number * self.part_features
    shared, own = jnp.split(outputs, [outputs.shape[-1] - num_own], axis=-1)
    own = own.reshape(*own.shape[:-1], self.number, self.part_features)
    is_chosen = expert[..., None, None] == jnp.arange(self.number)[:, None]
    # A sum instead of a gather: the gradient of a gather is a scatter-add, see `gather_tokens`.
    return jnp.concatenate([shared, jnp.where(is_chosen, own, 0).sum(axis=-2)], axis=-1)


NO_EXPERTS = Experts()


class Mlp(nn.Module):
  """Two linear layers with an exact (erf) GELU between them, and optionally `Experts`.

  It takes and returns a tuple of [B, T_i, D]. `expert` is [B] int, see `Experts`.
  """

  ratio: float
  dtype: jnp.dtype
  experts: Experts = NO_EXPERTS

  @nn.compact
  def __call__(self, groups, expert=None):
    D = groups[0].shape[-1]
    fc1 = dense(int(D * self.ratio), self.dtype, "fc1")
    fc2 = dense(self.experts.num_outputs(D), self.dtype, "fc2")
    of_token = None if expert is None else expert[:, None]
    return tuple(self.experts.pick(fc2(gelu(fc1(tokens))), of_token) for tokens in groups)


class Block(nn.Module):
  """Pre-norm transformer block of groups of tokens: a tuple of [B, T_i, D] -> a tuple of [B, T_i, D].

  `branch_scale` is [2, B] float32 from `drop_path_scales`. For each example, it scales the outputs of
  attention and MLP before they are added to the tokens. None: no scaling. `expert` is [B] int, see `Experts`.
  """

  num_heads: int
  mlp_ratio: float
  dtype: jnp.dtype
  attention: str = "xla"
  experts: Experts = NO_EXPERTS
  norm_eps: float = LAYER_NORM_EPSILON

  @nn.compact
  def __call__(self, groups, branch_scale=None, expert=None):
    attention = Attention(self.num_heads, self.dtype, self.attention, name="attn")
    mlp = Mlp(self.mlp_ratio, self.dtype, self.experts, name="mlp")
    norm1, norm2 = (layer_norm(self.dtype, name, self.norm_eps) for name in ("norm1", "norm2"))
    groups = _add_branch(groups, attention(_norm_groups(norm1, groups)), branch_scale, 0)
    return _add_branch(groups, mlp(_norm_groups(norm2, groups), expert), branch_scale, 1)


def _norm_groups(norm, groups):
  return tuple(norm(tokens) for tokens in groups)


def _add_branch(groups, branches, branch_scale, which):
  """Returns the sums of the tokens and the outputs of a branch, for each group."""
  if branch_scale is not None:
    scale = branch_scale[which][:, None, None]
    branches = tuple((branch * scale).astype(branch.dtype) for branch in branches)
  return tuple(tokens + branch for tokens, branch in zip(groups, branches, strict=True))


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
  groups,
  *,
  depth,
  num_heads,
  mlp_ratio,
  dtype,
  scan,
  remat="none",
  attention="xla",
  branch_scales=None,
  experts=NO_EXPERTS,
  expert=None,
  norm_eps=LAYER_NORM_EPSILON,
):
  """Runs `depth` blocks on groups of tokens. Call it inside the compact method of `module`.

  The parameters of all blocks are one subtree of the module, `blocks`. The first axis of every leaf is the
  number of the block. With `scan`, only one block is compiled, and a loop runs it over that axis. This
  shortens the compile time of deep models. The stored parameters are the same with and without `scan`.

  Args:
    module: the module that owns the parameters.
    groups: tuple of [B, T_i, D]. Each token attends to the tokens of all groups. The order and the division
      of the tokens do not change the results, up to rounding.
    depth, num_heads, mlp_ratio, dtype: sizes and compute type of the blocks, see `vit.ViT`.
    scan: True: one compiled block in a loop. False: every block is compiled.
    remat: a key of `REMAT_POLICIES`.
    attention: see `attention.attend`.
    branch_scales: [depth, 2, B] from `drop_path_scales`; None: no branch is scaled.
    experts: see `Experts`.
    expert: [B] int, the expert of each example. None: there are no experts.
    norm_eps: the epsilon of the norms.
  Returns:
    tuple of [B, T_i, D].
  """
  # With parent=None, flax does not register the parameters of this block. They are stored below, stacked.
  block = Block(num_heads, mlp_ratio, dtype, attention, experts, norm_eps, parent=None)
  stacked = stacked_parameters(module, block, depth, groups, None, expert)

  def run_block(groups, params_and_scale):
    params, branch_scale = params_and_scale
    # Each device keeps its own rows in every block.
    groups = tuple(sharding.split_rows(tokens) for tokens in groups)
    return block.apply({"params": params}, groups, branch_scale, expert), None

  if remat != "none":
    # The values are computed once for the output and once more for the gradient. Without a scan, the compiler
    # would merge the two computations and keep the values in memory. prevent_cse forbids this. With a scan,
    # the two are already separate, and prevent_cse would only slow down the step.
    run_block = jax.checkpoint(run_block, policy=REMAT_POLICIES[remat], prevent_cse=not scan)
  if scan:
    # None is an empty pytree, so scan accepts branch_scales=None and gives None to every block.
    groups, _ = jax.lax.scan(run_block, groups, (stacked, branch_scales))
  else:
    for i, params in enumerate(_unstack(stacked, depth)):
      groups, _ = run_block(groups, (params, None if branch_scales is None else branch_scales[i]))
  return groups


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

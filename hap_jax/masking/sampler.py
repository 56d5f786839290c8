"""Masks of images. Body parts are hidden first, then blocks, then other patches until the number is exact."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from hap_jax.data.skeletons import COCO17
from hap_jax.masking import bits, blocks, parts

# Values of `Mask.cause`, the reason why a patch is hidden.
CAUSE_VISIBLE, CAUSE_PART, CAUSE_BLOCK, CAUSE_FILL = range(4)

MAX_PATCHES = 2**16  # with this number, a sort key of 32 bits has 13 random bits, see `_random_order`


@struct.dataclass
class Mask:
  """The patches of an image that are hidden from the encoder. After vmap, all arrays have a leading axis.

  Attributes:
    is_masked: [L] bool. True: hidden. The number of hidden patches is the same in every mask of a recipe.
    ids_keep: [V] int32, the visible patches in ascending order of priority.
    ids_restore: [L] int32, the rank of each patch in ascending order of priority.
    cause: [L] int8, one of the CAUSE_* constants for each patch.
  """

  is_masked: jax.Array
  ids_keep: jax.Array
  ids_restore: jax.Array
  cause: jax.Array


@dataclasses.dataclass(frozen=True)
class MaskRecipe:
  """Settings of the mask sampler. A recipe is hashable, so it can be a static argument of a jitted function.

  Attributes:
    grid: (Gh, Gw) patches.
    patch: side in pixels.
    ratio: share of the L patches that is hidden.
    use_blocks, use_parts: the two stages of HAP. If both are False, the mask is uniformly random, as in MAE.
    max_parts: the largest number of parts that is drawn for an image.
    part_fraction: at most this share of the patches of one drawn part is marked to be hidden.

  Raises:
    ValueError: if no mask is possible with these numbers. The message names the configuration key.
  """

  grid: tuple[int, int]
  patch: int
  ratio: float = 0.5
  use_blocks: bool = True
  use_parts: bool = True
  max_parts: int = 6
  part_fraction: float = 0.3

  def __post_init__(self):
    Gh, Gw = self.grid
    L, num_body_parts = Gh * Gw, len(COCO17.parts)
    if Gh < 1 or Gw < 1 or self.patch < 1 or L > MAX_PATCHES:
      raise ValueError(
        f"grid {Gh}x{Gw} with patch={self.patch}: expected 1 to {MAX_PATCHES} patches of at least one pixel; "
        "change config.model.image_size or config.model.patch"
      )
    if not 0 < self.ratio < 1 or not 0 < num_visible(self) < L:
      raise ValueError(
        f"ratio={self.ratio} hides all or none of the {L} patches of grid {Gh}x{Gw}; at least one must be "
        "hidden and one visible (config.mask.ratio)"
      )
    if not 0 <= self.max_parts <= num_body_parts:
      raise ValueError(f"max_parts={self.max_parts} is not in 0..{num_body_parts} (config.mask.max_parts)")
    if not 0 <= self.part_fraction <= 1:
      raise ValueError(f"part_fraction={self.part_fraction} is not in [0, 1] (config.mask.part_fraction)")


def num_visible(recipe):
  """Returns V, the number of patches that a recipe leaves to the encoder."""
  Gh, Gw = recipe.grid
  return int(Gh * Gw * (1 - recipe.ratio))


def _split_order(order, num_keep):
  """Returns is_masked, ids_keep and ids_restore from the patches in ascending order of priority.

  Args:
    order: [..., L] int32, indices of patches.
    num_keep: V, the number of visible patches.
  """
  # Rank i is written at place order[i]. This inverts the permutation without a second sort.
  rank = jnp.broadcast_to(jnp.arange(order.shape[-1], dtype=jnp.int32), order.shape)
  ids_restore = jnp.put_along_axis(jnp.zeros_like(order), order, rank, axis=-1, inplace=False)
  return ids_restore >= num_keep, order[..., :num_keep], ids_restore


def mask_from_priority(priority, num_keep):
  """Hides the patches with the highest priority.

  Args:
    priority: [..., L]. If patches have equal priority, the patches with the highest indices are hidden first.
      Add noise if such ties must be broken at random.
    num_keep: V, the number of visible patches, static.
  Returns:
    is_masked [..., L] bool, ids_keep [..., V] int32 and ids_restore [..., L] int32, as in `Mask`.
  """
  return _split_order(jnp.argsort(priority, axis=-1).astype(jnp.int32), num_keep)


def _random_order(random_words, level, num_levels):
  """Orders patches by ascending level. Patches of equal level are in random order.

  A 32-bit key contains the level in its highest bits, then noise, then the index of the patch. A sort of such
  keys is six times faster on a CPU than a sort of pairs. All keys are different, so the result does not
  depend on the sorting algorithm. With 128 patches the noise has 22 bits.

  Args:
    random_words: [L] uint32.
    level: [L] int32 in 0..num_levels-1.
    num_levels: number of levels.
  Returns:
    [L] int32 patch indices.
  """
  L = len(level)
  index_bits = (L - 1).bit_length()
  level_shift = 32 - (num_levels - 1).bit_length()
  noise = random_words >> np.uint32(32 - level_shift + index_bits) << np.uint32(index_bits)
  keys = level.astype(jnp.uint32) << np.uint32(level_shift) | noise | jnp.arange(L, dtype=jnp.uint32)
  return (lax.sort(keys, is_stable=False) & np.uint32((1 << index_bits) - 1)).astype(jnp.int32)


def priority_levels(in_block, order, marked):
  """Returns the level of each patch: 2 or more in a part, 1 in a block, 0 for all other patches.

  A part that was chosen earlier has a higher level. If two parts mark the same patch, the part that was
  chosen later sets the level of the patch.

  Args:
    in_block: [L] bool.
    order: [P] int32, the position of each part in the order of the choice, from 0. -1: not chosen.
    marked: [P, L] bool, the marked patches of each part.
  Returns:
    [L] int32 in 0..P+1.
  """
  # Parity: the official code writes the parts one after the other, so a later part overwrites earlier parts.
  latest = jnp.max(jnp.where(marked, order[:, None], -1), axis=0)
  return jnp.where(latest >= 0, 1 + len(order) - latest, in_block.astype(jnp.int32))


def sample_mask(key, keypoints_xy, keypoints_visible, num_parts, recipe):
  """Draws the mask of one image. It hides the patches with the highest `priority_levels`.

  The choice between patches of equal level is random.

  Source: HAP, arXiv 2310.20695, Sec. 3.2, with the rules and numbers of the official repository.

  Args:
    key: PRNG key of kind threefry. With keys of other kinds, the numbers under vmap differ from the numbers
      without vmap.
    keypoints_xy: [17, 2] float32, COCO joints in pixels of the network input.
    keypoints_visible: [17] bool.
    num_parts: [] int32, the number of parts to mark. The joints and this number may be None if the recipe
      uses no parts.
    recipe: `MaskRecipe`, static.
  Returns:
    `Mask` of one image.
  Raises:
    ValueError: if keypoints_xy does not have the shape [17, 2].
  """
  Gh, Gw = recipe.grid
  L, P, V = Gh * Gw, len(COCO17.parts), num_visible(recipe)
  block_key, (part_words, order_words) = bits.draw(key, parts.num_words(P, L), L)
  # If the recipe does not use a stage, these values stay: no patch is in a block, and no part is chosen.
  in_block = jnp.zeros(L, bool)
  part_order, marked = jnp.full(P, -1, jnp.int32), jnp.zeros((P, L), bool)
  if recipe.use_blocks:
    in_block = blocks.sample_blocks(block_key, recipe.grid, L - V)
  if recipe.use_parts:
    if keypoints_xy.shape != (len(COCO17.joints), 2):
      raise ValueError(
        f"keypoints_xy of an image has shape {keypoints_xy.shape}, expected ({len(COCO17.joints)}, 2): part "
        "masking needs COCO joints; without them set config.mask.parts=False"
      )
    patches = parts.part_patches(keypoints_xy, keypoints_visible, recipe.grid, recipe.patch, COCO17.parts)
    part_order, marked = parts.sample_parts(part_words, patches, num_parts, recipe.part_fraction)
  level = priority_levels(in_block, part_order, marked)
  is_masked, ids_keep, ids_restore = _split_order(_random_order(order_words, level, num_levels=P + 2), V)
  # A patch of a block or a part may stay visible, because the stages may mark more patches than are hidden.
  cause = jnp.where(level > 1, CAUSE_PART, jnp.where(level == 1, CAUSE_BLOCK, CAUSE_FILL))
  cause = jnp.where(is_masked, cause, CAUSE_VISIBLE).astype(jnp.int8)
  return Mask(is_masked, ids_keep, ids_restore, cause)


def sample_masks(keys, keypoints_xy, keypoints_visible, num_parts, recipe):
  """Draws N masks, one `sample_mask` per key. All arguments except the recipe have a leading axis N."""
  sample = functools.partial(sample_mask, recipe=recipe)
  return jax.vmap(sample)(keys, keypoints_xy, keypoints_visible, num_parts)


def draw_num_parts_uniform(key, batch, max_parts):
  """Draws the number of parts of each image, as in the paper: [batch] int32, n ~ U{0, ..., max_parts}."""
  # The remainder of 32 random bits is uniform up to an error of 2e-9. `randint` would draw twice as many
  # bits.
  return (jax.random.bits(key, (batch,)) % np.uint32(max_parts + 1)).astype(jnp.int32)


def draw_num_parts_released(key, batch, max_parts, group):
  """Draws the numbers of parts as the official code does: each number is the limit for the next image.

  n_i ~ U{0, ..., n_(i-1)}. The limit of the first image in every `group` of consecutive images is max_parts.
  After about eight images of a group, the number of parts is 0.

  Args:
    key: PRNG key.
    batch: number of images in the global batch.
    max_parts: the limit of the first image of a group.
    group: number of images in a group. The last group may be shorter.
  Returns:
    [batch] int32.
  Raises:
    ValueError: if group is not positive.
  """
  if group < 1:
    raise ValueError(f"group={group} must be at least one image (config.mask.released_group)")
  # Parity: the official loop over the images stores the drawn number in the variable that holds the limit.
  # This loop is sequential. To run it in parallel, each image gets a table: entry i is the number that is
  # drawn if the limit is i. The composition of tables is associative, so an associative scan gives all the
  # numbers. The table of the first image of a group is constant, because its limit does not depend on the
  # image before it.
  u = jax.random.uniform(key, (batch, 1))
  is_first = jnp.arange(batch)[:, None] % group == 0
  limit = jnp.where(is_first, max_parts, jnp.arange(max_parts + 1))
  tables = jnp.floor(u * (limit + 1)).astype(jnp.int32)
  composed = lax.associative_scan(lambda first, then: jnp.take_along_axis(then, first, axis=-1), tables)
  return composed[:, max_parts]


def num_parts_policy(name, *, max_parts, group):
  """Returns a function (key, batch) -> [batch] int32 that draws the number of masked parts of each image.

  Args:
    name: "uniform" or "released".
    max_parts: the largest number of parts.
    group: number of images that share a shrinking limit. Only "released" uses it.
  Raises:
    ValueError: if the name is neither "uniform" nor "released".
  """
  policies = {
    "uniform": functools.partial(draw_num_parts_uniform, max_parts=max_parts),
    "released": functools.partial(draw_num_parts_released, max_parts=max_parts, group=group),
  }
  if name not in policies:
    raise ValueError(f"config.mask.part_policy={name!r} is not one of {', '.join(policies)}")
  return policies[name]


def sample_view_masks(keys, num_parts, batch, recipe):
  """Draws the masks of all views of a batch in one call.

  Args:
    keys: [B, N] PRNG keys.
    num_parts: [B, N] int32.
    batch: dict with keypoints_xy [B, 17, 2] and keypoints_visible [B, 17], if the recipe uses parts.
    recipe: a `MaskRecipe`.
  Returns:
    `Mask` whose arrays have the leading axes [B, N].
  """
  B, N = keys.shape
  joints = (batch["keypoints_xy"], batch["keypoints_visible"]) if recipe.use_parts else (None, None)
  # The N views of an image share its joints and are neighbours on the flat axis, as in `vit.ViT`.
  mask = sample_masks(
    keys.reshape(B * N),
    *jax.tree.map(lambda x: jnp.repeat(x, N, axis=0), joints),
    num_parts.reshape(B * N),
    recipe,
  )
  return jax.tree.map(lambda x: x.reshape(B, N, *x.shape[1:]), mask)


def sample_masks_by_index(batch, seed, views, recipe):
  """Draws masks that depend only on batch["index"], for scores and pictures.

  Args:
    batch: dict with index [B], and joints as for `sample_view_masks`.
    seed: seed of the PRNG key.
    views: N.
    recipe: a `MaskRecipe`.
  Returns:
    `Mask` whose arrays have the leading axes [B, N].
  """
  root = jax.random.key(seed)

  def draw(index, view):
    # Each (record, view) pair has its own keys, so the mask does not depend on the batch or its order.
    count_key, mask_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(root, index), view))
    return mask_key, draw_num_parts_uniform(count_key, 1, recipe.max_parts)[0]

  keys, counts = jax.vmap(jax.vmap(draw, (None, 0)), (0, None))(batch["index"], jnp.arange(views))
  return sample_view_masks(keys, counts, batch, recipe)

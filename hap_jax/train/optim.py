"""Optimizers and schedules.

optax computes the direction of an update. `apply_update` then computes the new parameter,
p - lr * scale * (direction + decay * p). No other function changes parameters. So only the parameter rules
determine the scale of the learning rate and the weight decay.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax


@dataclasses.dataclass(frozen=True)
class Rule:
  """Learning-rate scale, weight decay and trainability of the parameters that a pattern matches.

  Attributes:
    pattern: regular expression of the whole parameter path, such as `encoder/blocks/mlp/fc1/kernel`.
    lr_scale: factor of the learning rate. For the stacked parameters of all blocks: one number per block.
    weight_decay: coefficient of the weight decay.
    trainable: False: the parameter keeps its starting value.
  """

  pattern: str
  lr_scale: float | tuple[float, ...] = 1.0
  weight_decay: float = 0.0
  trainable: bool = True


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
  """Kind and constants of the optimizer.

  Attributes:
    kind: "adamw" or "sgd".
    beta1: decay of the first moment (adamw).
    beta2: decay of the second moment (adamw).
    eps: constant in the denominator (adamw).
    clip_norm: largest allowed L2 norm of the gradient of all trained parameters together. None: no clipping.
  Raises:
    ValueError: if the kind is neither "adamw" nor "sgd".
  """

  kind: str = "adamw"
  beta1: float = 0.9
  beta2: float = 0.95
  eps: float = 1e-8
  clip_norm: float | None = None

  def __post_init__(self):
    if self.kind not in ("adamw", "sgd"):
      raise ValueError(f"config.optimizer.kind={self.kind!r} is not one of adamw, sgd")


def path_name(path):
  """Joins a pytree key path with slashes: `encoder/blocks/mlp/fc1/kernel`."""
  return "/".join(str(getattr(key, "key", key)) for key in path)


def match_rules(params, rules):
  """Finds the rule of every parameter.

  Args:
    params: pytree of nested dicts.
    rules: tuple of `Rule`. The first rule that matches a parameter applies.
  Returns:
    A tree with the structure of `params` and a `Rule` at each leaf.
  Raises:
    ValueError: if a parameter matches no rule.
  """

  def find(path, _):
    name = path_name(path)
    for rule in rules:
      if re.fullmatch(rule.pattern, name):
        return rule
    raise ValueError(f"parameter {name} matches no rule of the task's param_rules; add one")

  return jax.tree_util.tree_map_with_path(find, params)


def layer_decay_rules(depth, layer_decay, weight_decay):
  """Returns the parameter rules of fine-tuning: layers nearer to the pixels get a smaller learning rate.

  lr_scale = layer_decay^(depth + 1 - layer). The embeddings are layer 0, block i is layer i + 1, and all
  layers after the blocks are layer depth + 1. `apply_update` also multiplies the weight decay by lr_scale.

  Args:
    depth: number of blocks of the encoder.
    layer_decay: in (0, 1].
    weight_decay: weight decay of kernels. Biases, norm scales, class token and position table have none.
  """

  def scale_of(layer):
    return layer_decay ** (depth + 1 - layer)

  def rules(pattern, scale):
    return (
      Rule(rf"{pattern}/(bias|scale)", lr_scale=scale),
      Rule(rf"{pattern}/kernel", lr_scale=scale, weight_decay=weight_decay),
    )

  return (
    # Parity: the batch norms before the ReID classifiers keep their initial bias of zero.
    Rule(r"(bn|conv_bn)/bias", trainable=False),
    # Parity: the position table trains here, unlike in pre-training.
    Rule(r"encoder/(cls_token|pos_embed)", lr_scale=scale_of(0)),
    *rules("encoder/patch_embed", scale_of(0)),
    *rules("encoder/blocks/.*", tuple(scale_of(i + 1) for i in range(depth))),
    *rules(".*", scale_of(depth + 1)),
  )


def make_direction(spec, matched):
  """Returns the optax transformation from gradient to direction. Frozen parameters have no moments.

  Args:
    spec: OptimizerSpec.
    matched: tree of rules from `match_rules`.
  """
  if spec.kind == "adamw":
    # Parity: as in the official AdamW, eps is added to the square root of the bias-corrected moment.
    trained = optax.scale_by_adam(b1=spec.beta1, b2=spec.beta2, eps=spec.eps)
  else:
    trained = optax.identity()
  if spec.clip_norm is not None:
    # The partition below hides frozen parameters, so the norm includes only trained parameters.
    trained = optax.chain(optax.clip_by_global_norm(spec.clip_norm), trained)
  # optax.partition keeps no state for the parameters with set_to_zero.
  labels = jax.tree.map(lambda rule: "trained" if rule.trainable else "frozen", matched)
  return optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, labels)


def apply_update(params, direction, lr, matched):
  """Returns p - lr * lr_scale * (direction + weight_decay * p); frozen parameters stay as they are."""

  def update(rule, p, u):
    if not rule.trainable:
      return p
    scale = np.asarray(rule.lr_scale, np.float32)
    if scale.ndim and len(scale) != len(p):
      raise ValueError(
        f"{rule.pattern} has learning-rate scales for {len(scale)} blocks; expected {len(p)}, one per block"
      )
    # Stacked blocks have the block index as first axis, so each block gets its own scale.
    scale = scale.reshape(scale.shape + (1,) * (p.ndim - scale.ndim))
    return p - lr * scale * (u + rule.weight_decay * p)

  return jax.tree.map(update, matched, params, direction)


def warmup_then_steps(step, progress, *, peak, warmup_steps, boundaries, factor=0.1, start=0.001):
  """Returns the learning rate of a schedule with a few sudden drops.

  The rate rises linearly from start * peak in the first steps. Then it is `peak` times `factor` for each
  boundary that the run has passed. The warm-up is counted in steps, the boundaries in epochs.

  Args:
    step: number of the step, from 0.
    progress: epochs so far, as a real number.
    peak: the learning rate after the warm-up.
    warmup_steps: length of the warm-up in steps. 0: there is no warm-up.
    boundaries: the epochs at whose start the rate drops, in ascending order. They may be fractions.
    factor: share of the rate that remains after a boundary.
    start: share of the rate at step 0.
  Returns:
    float32 scalar.
  """
  progress, rate = jnp.asarray(progress, jnp.float32), peak
  for k, boundary in enumerate(boundaries, 1):
    # Each rate is a Python product, which is rounded to float32 only once.
    rate = jnp.where(progress >= boundary, peak * factor**k, rate)
  # Parity: the rate is not 0 at step 0.
  share = jnp.asarray(step, jnp.float32) / max(warmup_steps, 1)
  warmup = jnp.where(step < warmup_steps, start + (1 - start) * share, 1.0)
  return jnp.asarray(rate * warmup, jnp.float32)


def warmup_cosine(progress, *, peak, warmup, total):
  """Returns the learning rate of the official pre-training schedule.

  The rate rises linearly from exactly 0 in the warm-up. Then it falls to 0 as half a cosine.

  Args:
    progress: epochs so far, as a real number.
    peak: the learning rate at the end of the warm-up.
    warmup: length of the warm-up in epochs.
    total: length of the run in epochs.
  Returns:
    float32 scalar.
  """
  progress = jnp.asarray(progress, jnp.float32)
  ramp = progress / max(warmup, 1e-9)  # Parity: the rate is 0 at step 0, so the first update changes nothing
  share = jnp.clip((progress - warmup) / max(total - warmup, 1e-9), 0.0, 1.0)
  # cos^2(x/2) equals (1 + cos x)/2. But near the end of the run, (1 + cos x)/2 loses all digits in float32.
  return peak * jnp.where(progress < warmup, ramp, jnp.square(jnp.cos(0.5 * jnp.pi * share)))


def warmup_cosine_by_epoch(progress, *, start, peak, end, warmup, total):
  """Returns the learning rate of a schedule that changes only between epochs.

  The rate rises linearly from `start` in the warm-up. Then it falls as half a cosine towards `end`.

  Args:
    progress: epochs so far, as a real number below total.
    start: learning rate at step 0.
    peak: learning rate at the end of the warm-up line. The cosine has this value at epoch 0.
    end: learning rate of the cosine after `total` epochs.
    warmup: length of the warm-up in epochs. It may be less than 1.
    total: length of the run in epochs.
  Returns:
    float32 scalar.
  """
  epoch = jnp.floor(jnp.asarray(progress, jnp.float32))
  # Parity: the cosine has the value `peak` at epoch 0, not at the end of the warm-up. So the rate
  # is below `peak` after a warm-up.
  cosine = end + (peak - end) * jnp.square(jnp.cos(0.5 * jnp.pi * epoch / total))
  return jnp.where(epoch < warmup, start + epoch * (peak - start) / max(warmup, 1e-9), cosine)

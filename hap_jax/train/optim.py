"""Optimizers and schedules.

The direction comes from optax; the update p - lr * scale * (direction + decay * p) is made in one place,
`apply_update`, so that learning rate, its scale and decay follow the parameter rules and nothing else.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax


@dataclasses.dataclass(frozen=True)
class Rule:
  """What holds for the parameters whose whole path (`encoder/blocks/mlp/fc1/kernel`) a pattern matches.

  lr_scale: of the learning rate; of stacked blocks one number a block.
  """

  pattern: str
  lr_scale: float | tuple[float, ...] = 1.0
  weight_decay: float = 0.0
  trainable: bool = True


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
  """Kind ("adamw" or "sgd") and constants of the optimizer; raises ValueError for another kind.

  clip_norm: greatest L2 norm of the gradient of all trained parameters together; None leaves it as it is.
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
    params: pytree of nested dicts. rules: tuple of `Rule`; the first match wins.
  Returns:
    the same tree with a `Rule` at each leaf.
  Raises:
    ValueError: if a parameter matches none.
  """

  def find(path, _):
    name = path_name(path)
    for rule in rules:
      if re.fullmatch(rule.pattern, name):
        return rule
    raise ValueError(f"parameter {name} matches no rule of the task's param_rules; add one")

  return jax.tree_util.tree_map_with_path(find, params)


def layer_decay_rules(depth, layer_decay, weight_decay):
  """Returns the rules of fine-tuning: the nearer to the pixels, the smaller the learning rate.

  lr_scale = layer_decay^(depth + 1 - layer); the embeddings are layer 0, block i is layer i + 1, everything
  after the blocks is layer depth + 1. The update applies the scale to the decay, too.

  Args:
    depth: blocks of the encoder. layer_decay: in (0, 1].
    weight_decay: of kernels; biases, scales of norms, class token and position table have none.
  """

  def scale_of(layer):
    return layer_decay ** (depth + 1 - layer)

  def rules(pattern, scale):
    return (
      Rule(rf"{pattern}/(bias|scale)", lr_scale=scale),
      Rule(rf"{pattern}/kernel", lr_scale=scale, weight_decay=weight_decay),
    )

  return (
    # Parity: the batch norms before the classifiers of ReID keep the bias that they start with, zero.
    Rule(r"(bn|conv_bn)/bias", trainable=False),
    # Parity: the position table trains here, unlike in pre-training.
    Rule(r"encoder/(cls_token|pos_embed)", lr_scale=scale_of(0)),
    *rules("encoder/patch_embed", scale_of(0)),
    *rules("encoder/blocks/.*", tuple(scale_of(i + 1) for i in range(depth))),
    *rules(".*", scale_of(depth + 1)),
  )


def make_direction(spec, matched):
  """Makes the optax transformation gradient -> direction; frozen parameters hold no moments.

  Args:
    spec: OptimizerSpec. matched: tree of rules from `match_rules`.
  """
  if spec.kind == "adamw":
    # Parity: eps is added after the bias-corrected square root, as in the official AdamW.
    trained = optax.scale_by_adam(b1=spec.beta1, b2=spec.beta2, eps=spec.eps)
  else:
    trained = optax.identity()
  if spec.clip_norm is not None:
    trained = optax.chain(optax.clip_by_global_norm(spec.clip_norm), trained)
  labels = jax.tree.map(lambda rule: "trained" if rule.trainable else "frozen", matched)
  return optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, labels)


def apply_update(params, direction, lr, matched):
  """Returns p - lr * lr_scale * (direction + weight_decay * p); frozen parameters stay as they are."""

  def update(rule, p, u):
    if not rule.trainable:
      return p
    scale = np.asarray(rule.lr_scale, np.float32)
    if scale.ndim and len(scale) != len(p):
      raise ValueError(f"{rule.pattern} scales the learning rate of {len(scale)} blocks, not of {len(p)}")
    scale = scale.reshape(scale.shape + (1,) * (p.ndim - scale.ndim))  # of a stack along its first axis
    return p - lr * scale * (u + rule.weight_decay * p)

  return jax.tree.map(update, matched, params, direction)


def warmup_cosine(progress, *, peak, warmup, total):
  """Linear from exactly 0 over the warm-up, then half a cosine to 0 (the official pre-training schedule).

  Args:
    progress: epochs so far as a real number. peak: learning rate. warmup, total: epochs.
  Returns:
    float32 scalar.
  """
  progress = jnp.asarray(progress, jnp.float32)
  ramp = progress / max(warmup, 1e-9)  # Parity: 0 at step 0, whose update therefore changes nothing
  share = jnp.clip((progress - warmup) / max(total - warmup, 1e-9), 0.0, 1.0)
  # cos^2(x/2) rather than (1 + cos x)/2, which loses all digits near the end in float32.
  return peak * jnp.where(progress < warmup, ramp, jnp.square(jnp.cos(0.5 * jnp.pi * share)))


def warmup_cosine_by_epoch(progress, *, start, peak, end, warmup, total):
  """Linear from `start` over the warm-up, then a cosine towards `end`; constant within an epoch.

  Args:
    progress: epochs so far as a real number, below total. start, peak, end: learning rates.
    warmup, total: epochs; the warm-up may be a fraction of one.
  Returns:
    float32 scalar.
  """
  epoch = jnp.floor(jnp.asarray(progress, jnp.float32))
  # Parity: the cosine counts from epoch 0, not from the end of the warm-up, so that `peak` is never reached.
  cosine = end + (peak - end) * jnp.square(jnp.cos(0.5 * jnp.pi * epoch / total))
  return jnp.where(epoch < warmup, start + epoch * (peak - start) / max(warmup, 1e-9), cosine)

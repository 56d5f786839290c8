"""The text encoder BERT (arXiv 1810.04805): a transformer with post-norm blocks and learned positions."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from hap_jax import sharding
from hap_jax.models import layers

# Parity: the epsilon of BERT's layer norms. It is smaller than the epsilon of the vision transformer.
LAYER_NORM_EPSILON = 1e-12
_INIT = nn.initializers.normal(0.02)  # BERT draws its tables from this distribution


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The sizes of a BERT. `Bert(**sizes.to_json())` is its network.

  Attributes:
    width: D, the width of a token.
    depth: number of blocks.
    num_heads: number of attention heads.
    hidden: width of the hidden MLP layer.
    vocab_size: number of token ids.
    max_positions: the longest possible caption, in tokens.
    num_segments: number of rows of the segment table. Captions use only the first row.
  """

  width: int
  depth: int
  num_heads: int
  hidden: int
  vocab_size: int
  max_positions: int
  num_segments: int = 2

  def to_json(self):
    """Returns the sizes as a dict of plain values."""
    return dataclasses.asdict(self)


BASE_UNCASED = Sizes(  # bert-base-uncased, the text encoder of the official recipe
  width=768, depth=12, num_heads=12, hidden=3072, vocab_size=30_522, max_positions=512
)


class Bert(nn.Module):
  """The encoder of BERT, without its pooler and without dropout.

  The parameters of its blocks are stacked along the first axis, as in `ViT`.

  Attributes:
    width, depth, num_heads, hidden, vocab_size, max_positions, num_segments: see `Sizes`.
    epsilon: epsilon of all layer norms.
    dtype: compute type; parameters are float32.
  """

  width: int
  depth: int
  num_heads: int
  hidden: int
  vocab_size: int
  max_positions: int
  num_segments: int = 2
  epsilon: float = LAYER_NORM_EPSILON
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, ids, lengths):
    """Encodes captions.

    Args:
      ids: [B, T] int32 from `data.word_piece`, with T at most max_positions.
      lengths: [B] int32, the number of tokens of each caption, at least 1. The padding after them gets no
        attention.
    Returns:
      [B, T, D] token features. The values in the padding have no meaning.
    Raises:
      ValueError: if T is larger than max_positions.
    """
    T = ids.shape[1]
    if self.max_positions < T:
      raise ValueError(
        f"captions have {T} tokens, but the text encoder has {self.max_positions} positions: lower "
        "config.text.max_tokens"
      )
    words = self.param("word_embeddings", _INIT, (self.vocab_size, self.width))
    positions = self.param("position_embeddings", _INIT, (self.max_positions, self.width))
    segments = self.param("token_type_embeddings", _INIT, (self.num_segments, self.width))
    tokens = jnp.asarray(words)[ids] + positions[:T] + segments[0]
    tokens = layers.layer_norm(self.dtype, "embeddings_norm", self.epsilon)(tokens.astype(self.dtype))
    is_real = jnp.arange(T) < lengths[:, None]
    block = _Block(self.num_heads, self.hidden, self.epsilon, self.dtype, parent=None)
    stacked = layers.stacked_parameters(self, block, self.depth, tokens, is_real)

    def run_block(tokens, params):
      return block.apply({"params": params}, sharding.split_rows(tokens), is_real), None

    return jax.lax.scan(run_block, tokens, stacked)[0]


class _Block(nn.Module):
  """Post-norm transformer block; [B, T, D] -> [B, T, D]. `is_real` [B, T] bool is False in the padding."""

  num_heads: int
  hidden: int
  epsilon: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, tokens, is_real):
    (attended,) = layers.Attention(self.num_heads, self.dtype, name="attn")((tokens,), is_real)
    tokens = layers.layer_norm(self.dtype, "norm1", self.epsilon)(tokens + attended)
    hidden = layers.gelu(layers.dense(self.hidden, self.dtype, "fc1")(tokens))
    mixed = layers.dense(tokens.shape[-1], self.dtype, "fc2")(hidden)
    return layers.layer_norm(self.dtype, "norm2", self.epsilon)(tokens + mixed)

"""Rows of the name table of BERT, under the names of Hugging Face transformers.

Letters in the shapes: W is the width, I the hidden width of the MLPs, V the size of the vocabulary, Q the
number of positions, S the number of segments.
"""

import dataclasses

from hap_jax.convert import rows
from hap_jax.convert.layouts import IDENTITY, LINEAR, VECTOR
from hap_jax.convert.names import Entry

_EMBEDDINGS = (
  Entry("embeddings.word_embeddings.weight", "word_embeddings", IDENTITY, ("V", "W")),
  Entry("embeddings.position_embeddings.weight", "position_embeddings", IDENTITY, ("Q", "W")),
  Entry("embeddings.token_type_embeddings.weight", "token_type_embeddings", IDENTITY, ("S", "W")),
  *rows.norm("embeddings.LayerNorm", "embeddings_norm", "W"),
)


def _block():
  """Returns the rows of one block. The names have {i} in place of the index of the block."""
  reference, found = "encoder.layer.{i}", []
  # This project stores the weights of queries, keys and values in one array. Each tensor is a third of it.
  for k, name in enumerate(("query", "key", "value")):
    third, self_attention = {"parts": (1, 1, 1), "part": k}, f"{reference}.attention.self.{name}"
    found.append(Entry(f"{self_attention}.weight", "blocks/attn/qkv/kernel", LINEAR, ("W", "W"), **third))
    found.append(Entry(f"{self_attention}.bias", "blocks/attn/qkv/bias", VECTOR, ("W",), **third))
  return (
    *found,
    *rows.linear(f"{reference}.attention.output.dense", "blocks/attn/proj", "W", "W"),
    *rows.norm(f"{reference}.attention.output.LayerNorm", "blocks/norm1", "W"),
    *rows.linear(f"{reference}.intermediate.dense", "blocks/fc1", "I", "W"),
    *rows.linear(f"{reference}.output.dense", "blocks/fc2", "W", "I"),
    *rows.norm(f"{reference}.output.LayerNorm", "blocks/norm2", "W"),
  )


def entries(reference="", ours="", collection="params"):
  """Returns the rows of a BERT. The names of its blocks have {i} in place of the index of the block.

  Args:
    reference: text before every name in the foreign file, such as "TextExtract.text_embed.".
    ours: text before every path of this project, such as "text_encoder/".
    collection: the collection of this project's variables.
  """
  return tuple(
    dataclasses.replace(
      row, reference=f"{reference}{row.reference}", ours=f"{ours}{row.ours}", collection=collection
    )
    for row in (*_EMBEDDINGS, *_block())
  )


def table(depth, **options):
  """Returns the rows of a BERT with `depth` blocks. The options are the same as for `entries`."""
  found = entries(**options)
  blocks = [row for row in found if "{i}" in row.reference]
  return (
    *(row for row in found if "{i}" not in row.reference),
    *(row.numbered(i) for i in range(depth) for row in blocks),
  )

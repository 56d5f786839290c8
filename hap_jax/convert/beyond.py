"""Recognises encoders that are no plain ViT with a class token, and names the part that is missing here."""

import re

from hap_jax.convert import families

# (part, pattern for a name of a tensor). The names are those of the official code, timm, transformers and
# mmpretrain.
_PARTS = (
  ("register tokens", r"(^|\.)(register_tokens?|reg_token|storage_tokens)$"),
  ("a distillation token", r"(^|\.)(dist_token|distillation_token)$"),
  (
    "pooling by attention in place of a class token",
    r"(^|\.)attn_pool\.|(^|\.)head\.(probe$|attention\.)",
  ),
  ("relative positions", r"rel_pos|relative_position"),
  ("rotary positions", r"(^|\.)rope(_embed|_embeddings)?\.|freqs_(cos|sin)$"),
  ("MLPs with a gate (SwiGLU)", r"\.mlp\.(w1|w2|w3|w12|fc1_g|fc1_x|weights_in|gate_proj)\."),
  ("norms of queries and keys", r"\.(attn|attention)\.(q_norm|k_norm)\."),
  ("a norm inside of attention or MLP", r"\.(attn|mlp)\.norm\.|\.(inner_attn_ln|ffn_ln)\."),
  ("a norm before the first block", r"(^|\.)(norm_pre|ln_pre|pre_layrnorm|pre_norm)\."),
)
_NEEDED = {"encoder/cls_token": "a class token", "encoder/pos_embed": "an absolute position table"}


def find(source):
  """Returns a sentence about a part that the encoder of this project does not have, or "" if there is none.

  Args:
    source: a `source.Source`.
  """
  names = [name for name in source.names if name not in source.outside]
  for part, pattern in _PARTS:
    for name in names:
      if re.search(pattern, name):
        return f"tensor {source.names[name]}: the encoder of this project does not have {part}"
  return ""


def find_missing(source):
  """Returns a sentence about a needed part that the file does not have, or "" if there is none."""
  for family in families.load_all():
    renamed = {family.rename(name) for name in source.names}
    if family.patches not in renamed:
      continue
    rows = {entry.ours: entry.reference for entry in family.entries}
    for path, part in _NEEDED.items():
      if path in rows and rows[path] not in renamed:
        return f"the model has no tensor {rows[path]}: the encoder of this project needs {part}"
  return ""

"""Recognises encoders with parts that the plain ViT of this project does not have."""

import re

# (pattern for a name of a tensor, the part that this project's encoder does not have). The first pattern that
# fits a name counts. The names are those of the official code, timm, transformers and mmpretrain.
_PARTS = (
  (r"^(vit\.|embeddings\.)*(register_tokens|reg_token|storage_tokens)$", "register tokens"),
  (r"^(vit\.|embeddings\.)*(dist_token|distillation_token)$", "a distillation token"),
  (r"rel_pos|relative_position", "relative positions"),
  (r"(^|\.)(rope|rope_embed|rope_embeddings)\.|freqs_(cos|sin)|rope\.", "rotary positions"),
  (r"\.mlp\.(w1|w2|w3|w12|fc1_g|fc1_x|weights_in|gate_proj)\.", "MLPs with a gate (SwiGLU)"),
  (r"\.(attn|attention)\.(q_norm|k_norm)\.", "norms of queries and keys"),
  (r"\.(attn|mlp)\.norm\.|\.(inner_attn_ln|ffn_ln)\.", "a norm inside of attention or MLP"),
  (r"^(norm_pre|ln_pre|pre_layrnorm)\.", "a norm before the first block"),
)


def find(source):
  """Returns a sentence about a part that the encoder of this project does not have, or "" if there is none.

  Args:
    source: a `source.Source`.
  """
  for name in source.names.keys() - source.outside:
    for pattern, part in _PARTS:
      if re.search(pattern, name):
        return (
          f"tensor {source.names[name]} belongs to {part}, which the encoder of this project does not have"
        )
  return ""

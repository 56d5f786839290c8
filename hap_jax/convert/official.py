"""What families with the names of the official MAE and HAP code share: traits of files, licences, `arch`."""

from hap_jax.convert.weights import square_side
from hap_jax.models import vit

OF_HAP = "not stated; if these are official HAP weights, they started from MAE's, which are CC-BY-NC 4.0"
OF_MAE = "CC-BY-NC 4.0 if these are the published MAE weights"
_IF_HAP = "this is an official HAP file"
_RESEARCH = "academic research, on the terms of the authors"
# HAP, arXiv 2310.20695: pre-trained on LUPerson from MAE's encoder.
MADE_FROM_HAP = (
  ("data set", "luperson", "LUPerson: research use, on the terms of its authors", _IF_HAP),
  ("weights", "MAE, of ImageNet-1K", "CC-BY-NC 4.0", _IF_HAP),
)
_SIZES = {"S": "small", "B": "base", "L": "large", "H": "huge"}


def made_from_fine_tuned_hap(data_sets):
  """Returns `Family.made_from` of HAP's fine-tuned files, which do not say which data set they saw.

  Args:
    data_sets: names of the data sets, such as "msmt17 or market1501".
  """
  return (("data set", data_sets, _RESEARCH, _IF_HAP), *MADE_FROM_HAP)


def has_names(source):
  """Whether a `source.Source` names its encoder as MAE, HAP and timm do."""
  return "patch_embed.proj.weight" in source.state and "pos_embed" in source.state


def has_head(source):
  return "head.weight" in source.state


def has_decoder(source):
  return "mask_token" in source.state or "decoder_embed.weight" in source.state


def is_of_hap(source):
  """Whether a file is HAP's and not MAE's: it has the entry `arch`, or its patches make no square."""
  table = source.state["pos_embed"]
  is_square = table.ndim == 3 and square_side(table.shape[1] - 1) is not None
  return bool(str(source.beside.get("arch", ""))) or not is_square


def content(arch):
  """Makes `Family.content` of scripts that read the model's name from the entry `arch`, of the known sizes.

  The official ReID code takes a file with its own model's name for a run to resume, with optimizer and all,
  so the names that are written are others.

  Args:
    arch: beginning of the name.
  """

  def make(weights, state):
    size = _SIZES.get(vit.variant_of(weights.width, weights.depth))
    named = {"arch": f"{arch}_{size}_patch{weights.patch}"} if size else {}
    return {**named, "model": state}

  return make

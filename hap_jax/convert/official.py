"""Checks, licences and the entry `arch` for families with the names of the official MAE and HAP code."""

from hap_jax.convert.weights import square_side
from hap_jax.models import vit

OF_HAP = "not stated; if these are official HAP weights, they started from MAE's, which are CC-BY-NC 4.0"
OF_MAE = "CC-BY-NC 4.0 if these are the published MAE weights"
OF_VITPOSE = (
  "not stated; if these are official ViTPose weights, they started from MAE's, which are CC-BY-NC 4.0"
)
IF_HAP = "this is an official HAP file"
_RESEARCH = "academic research, on the terms of the authors"
# HAP, arXiv 2310.20695: pre-trained on LUPerson from MAE's encoder.
MADE_FROM_HAP = (
  ("data set", "luperson", "LUPerson: research use, on the terms of its authors", IF_HAP),
  ("weights", "MAE, of ImageNet-1K", "CC-BY-NC 4.0", IF_HAP),
)
IF_VITPOSE = "this is an official file of ViTPose or HAP"
# ViTPose, arXiv 2204.12484: fine-tuned from MAE's encoder. The files do not name their data set.
MADE_FROM_VITPOSE = (
  ("data set", "coco_pose, mpii_pose or aic_pose", _RESEARCH, IF_VITPOSE),
  ("weights", "MAE, of ImageNet-1K", "CC-BY-NC 4.0", IF_VITPOSE),
)
_SIZES = {"S": "small", "B": "base", "L": "large", "H": "huge"}


def made_from_fine_tuned_hap(data_sets):
  """Returns `Family.made_from` for HAP's fine-tuned files.

  Args:
    data_sets: the possible data sets as text, such as "msmt17 or market1501". The files do not name
      their data set.
  """
  return (("data set", data_sets, _RESEARCH, IF_HAP), *MADE_FROM_HAP)


def has_names(source):
  """Returns True if a `source.Source` has the encoder names of MAE, HAP and timm."""
  return "patch_embed.proj.weight" in source.state and "pos_embed" in source.state


def has_head(source):
  return "head.weight" in source.state


def has_decoder(source):
  return "mask_token" in source.state or "decoder_embed.weight" in source.state


def is_of_hap(source):
  """Returns True for a file of HAP, False for a file of MAE.

  A file of HAP has the entry `arch`, or its number of patches is not a square number.
  """
  table = source.state["pos_embed"]
  is_square = table.ndim == 3 and square_side(table.shape[1] - 1) is not None
  return bool(str(source.beside.get("arch", ""))) or not is_square


def content(arch):
  """Returns the function `Family.content` for scripts that read the name of the model from the entry `arch`.

  If `arch` is an official model name, the official ReID code resumes the run in the file and needs its
  optimizer. A converted file has no optimizer, so names that differ from the official names are written. Only
  files with a known model size have the entry `arch`.

  Args:
    arch: prefix of the written names.
  """

  def make(weights, state):
    size = _SIZES.get(vit.variant_of(weights.width, weights.depth))
    named = {"arch": f"{arch}_{size}_patch{weights.patch}"} if size else {}
    return {**named, "model": state}

  return make

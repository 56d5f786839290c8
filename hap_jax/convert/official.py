"""Traits, licences and the entry `arch` for families with the names of the official MAE and HAP code.

timm, DeiT, DINO and many others use the same names. So the traits below look at the position tables and at
the decoder. The entry `arch` of a file only decides if the tensors fit, because other projects write it, too.
"""

from hap_jax.convert.family import LIKELY, NO, POSSIBLE, Preference
from hap_jax.convert.weights import square_side
from hap_jax.models import posemb, vit

OF_HAP = "not stated; if these are official HAP weights, they started from MAE's, which are CC-BY-NC 4.0"
OF_MAE = "CC-BY-NC 4.0 if these are the published MAE weights"
OF_VITPOSE = (
  "not stated; if these are official ViTPose weights, they started from MAE's, which are CC-BY-NC 4.0"
)
IF_HAP = "this is an official HAP file"
SELF_DISTILLED = Preference("teacher", "student", "DINO and iBOT")
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
_HAP_ARCH = "pose_mae_vit"  # the names of the pre-training models in the official HAP code begin with it
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
  """Returns True if a `source.Source` has a decoder of masked image modelling, or a part of it.

  An encoder may have a mask token of its own, as in iBOT. It has the width of the encoder, and there are no
  other tensors of a decoder.
  """
  state = source.state
  if any(name.startswith("decoder_") for name in state):
    return True
  return "mask_token" in state and state["mask_token"].shape[-1:] != state["pos_embed"].shape[-1:]


def is_fixed(source):
  """Returns True if a position table of a `source.Source` is the fixed sin-cos table of MAE and HAP."""
  return _fixed_grid(source) is not None


def is_of_hap(source):
  """Returns True for a pre-training file of HAP, False for a file of MAE.

  The pictures of MAE are square, and the pictures of HAP are not. A fixed sin-cos table shows its grid. If
  the tables are not fixed, the number of patches of a file with a decoder decides.
  """
  grid = _fixed_grid(source)
  if has_decoder(source) and arch_of(source).startswith(_HAP_ARCH):
    return True
  return grid[0] != grid[1] if grid else has_decoder(source) and square_side(num_patches(source)) is None


def pretrained(source):
  """Returns how likely a `source.Source` with the names of MAE is a pre-training file, see `family.py`."""
  if has_decoder(source):
    return LIKELY
  return POSSIBLE if is_fixed(source) else NO


def num_patches(source):
  """Returns the number of patches in the position table, without the row of the class token."""
  table = source.state["pos_embed"]
  return table.shape[1] - 1 if table.ndim == 3 else 0


def arch_of(source):
  """Returns the name of the model in the entry `arch` of a file, or "" if there is none."""
  return str(source.beside.get("arch", ""))


def _fixed_grid(source):
  # The decoder's table is tried first, because the encoder's table may have been resized.
  tables = (source.state.get(name) for name in ("decoder_pos_embed", "pos_embed"))
  grids = (posemb.sincos_grid(table) for table in tables if table is not None and table.ndim == 3)
  return next(filter(None, grids), None)


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

"""Source: RAP, version 1 (Li et al., arXiv 1603.07054), 51 scored attributes of 41,585 pictures of one mall.

  <root>/RAP_annotation/RAP_annotation.mat    or RAP_annotation.mat, or dataset_all.pkl of HAP's official code
  <root>/RAP_dataset/*.png

The annotation file has five random divisions into training and test pictures, and no validation split. This
source uses the first division, like published results. The label 2 (uncertain) counts as absent. Only some
persons have an id in the file.
"""

from hap_jax.data import attribute_images
from hap_jax.data.attribute_images import Annotations, DataSet
from hap_jax.io import mat_file

ATTRIBUTES = (
  # head
  *["hs-BaldHead", "hs-LongHair", "hs-BlackHair", "hs-Hat", "hs-Glasses", "hs-Muffler"],
  # upper body
  *[
    "ub-Shirt",
    "ub-Sweater",
    "ub-Vest",
    "ub-TShirt",
    "ub-Cotton",
    "ub-Jacket",
    "ub-SuitUp",
    "ub-Tight",
    "ub-ShortSleeve",
  ],
  # lower body
  *["lb-LongTrousers", "lb-Skirt", "lb-ShortSkirt", "lb-Dress", "lb-Jeans", "lb-TightTrousers"],
  # feet
  *["shoes-Leather", "shoes-Sport", "shoes-Boots", "shoes-Cloth", "shoes-Casual"],
  # bags
  *[
    "attach-Backpack",
    "attach-SingleShoulderBag",
    "attach-HandBag",
    "attach-Box",
    "attach-PlasticBag",
    "attach-PaperBag",
    "attach-HandTrunk",
    "attach-Other",
  ],
  # the person and the action
  *[
    "AgeLess16",
    "Age17-30",
    "Age31-45",
    "Female",
    "BodyFat",
    "BodyNormal",
    "BodyThin",
    "Customer",
    "Clerk",
    "action-Calling",
    "action-Talking",
    "action-Gathering",
    "action-Holding",
    "action-Pusing",
    "action-Pulling",
    "action-CarrybyArm",
    "action-CarrybyHand",
  ],
)

PLACES = ("annotations", "images")
SPLITS = ("train", "test")
_FIELDS_OF_V2 = {"name", "attribute", "data", "selected_attribute", "partition_attribute"}


def open_source(*, root, split, seed, identity_disjoint=False, split_seed=0, annotations="", images=""):
  """Opens a split of RAP, version 1: "train" or "test". The split "trainval" is the same as "train".

  `attribute_images.open_split` explains the options identity_disjoint, split_seed, annotations and images.

  Returns:
    PictureFiles with the 51 ATTRIBUTES, in the order of the official classifier's outputs.
  """
  del seed  # not used, because the pictures are in the order of the annotation file
  return attribute_images.open_split(
    _DATA_SET, root, split, identity_disjoint, split_seed, annotations, images
  )


def published(split, options):
  """Returns the sizes of the published data set, see `base.py`."""
  del options
  return attribute_images.published(_DATA_SET, split)


def _read_mat(path):
  variable = mat_file.pick(mat_file.load(path), ("RAP_annotation",), path)["RAP_annotation"]
  where = f"{path}: RAP_annotation"
  fields = mat_file.fields(variable, where)
  if fields.keys() >= _FIELDS_OF_V2:
    raise ValueError(
      f"{where} has the fields of RAP, version 2 ({', '.join(fields)}); expected version 1, with partion, "
      "label, attribute_eng and imagesname"
    )
  found = mat_file.pick(fields, ("partion", "label", "attribute_eng", "imagesname"), where)
  images = mat_file.strings(found["imagesname"], f"{where}.imagesname")
  pids = mat_file.integers(fields["identity"], f"{where}.identity", 1) if "identity" in fields else None
  if pids is not None and len(pids) != len(images):
    raise ValueError(
      f"{where}.identity: {len(pids)} ids of persons, expected one for each of {len(images)} pictures"
    )
  # "partion" is the spelling in the file. The first of its five random divisions is used.
  draw = attribute_images.first_draw(found["partion"], ("train_index", "test_index"), f"{where}.partion")
  return Annotations(
    path,
    images,
    mat_file.integers(found["label"], f"{where}.label", 2),
    mat_file.strings(found["attribute_eng"], f"{where}.attribute_eng"),
    rows={name: draw[f"{name}_index"] for name in SPLITS},
    pids=pids,
  )


_DATA_SET = DataSet(
  name="rapv1",
  licence="RAP: academic research, under the agreement signed with its authors",
  read_mat=_read_mat,
  files=("RAP_annotation/RAP_annotation.mat", "RAP_annotation.mat"),
  folders=("RAP_dataset",),
  attributes=ATTRIBUTES,
  counts={"train": 33_268, "test": 8_317},
)

"""Source: PETA (Deng et al., ACM MM 2014), 35 scored attributes of 19,000 pictures and 8,699 persons.

  <root>/PETA.mat                 or dataset_all.pkl of HAP's official code
  <root>/images/00001.png ...     pictures of ten data sets with a common numbering from 1 to 19,000

The annotation file has five random divisions into training, validation and test pictures. This source uses
the first division, like published results.
"""

from hap_jax.data import attribute_images
from hap_jax.data.attribute_images import Annotations, DataSet
from hap_jax.io import mat_file

ATTRIBUTES = (
  # head
  *["accessoryHat", "accessoryMuffler", "accessoryNothing", "accessorySunglasses", "hairLong"],
  # upper body
  *[
    "upperBodyCasual",
    "upperBodyFormal",
    "upperBodyJacket",
    "upperBodyLogo",
    "upperBodyPlaid",
    "upperBodyShortSleeve",
    "upperBodyThinStripes",
    "upperBodyTshirt",
    "upperBodyOther",
    "upperBodyVNeck",
  ],
  # lower body
  *[
    "lowerBodyCasual",
    "lowerBodyFormal",
    "lowerBodyJeans",
    "lowerBodyShorts",
    "lowerBodyShortSkirt",
    "lowerBodyTrousers",
  ],
  # feet
  *["footwearLeatherShoes", "footwearSandals", "footwearShoes", "footwearSneaker"],
  # bags
  *["carryingBackpack", "carryingOther", "carryingMessengerBag", "carryingNothing", "carryingPlasticBags"],
  # the person
  *["personalLess30", "personalLess45", "personalLess60", "personalLarger60", "personalMale"],
)

PLACES = ("annotations", "images")
SPLITS = ("train", "val", "test")
# Number of columns of `data` before the attributes: picture, person, original data set, person in that set.
_META = 4


def open_source(*, root, split, seed, identity_disjoint=False, split_seed=0, annotations="", images=""):
  """Opens a split of PETA: "train", "val", "test" or "trainval".

  `attribute_images.open_split` explains the options identity_disjoint, split_seed, annotations and images.

  Returns:
    PictureFiles with the 35 ATTRIBUTES, in the order of the official classifier's outputs.
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
  variable = mat_file.pick(mat_file.load(path), ("peta",), path)["peta"]
  where = f"{path}: peta"
  found = mat_file.pick(mat_file.fields(variable, where), ("data", "attribute", "partion_attribute"), where)
  data = mat_file.integers(found["data"], f"{where}.data", 2)
  names = mat_file.strings(found["attribute"], f"{where}.attribute")
  if data.shape[1] != _META + len(names):
    raise ValueError(
      f"{where}.data has {data.shape[1]} columns; expected {_META}, and one for each of the {len(names)} "
      "names of attributes"
    )
  return Annotations(
    path,
    [f"{number:05d}.png" for number in data[:, 0].tolist()],
    data[:, _META:],
    names,
    rows=attribute_images.first_draw(found["partion_attribute"], SPLITS, f"{where}.partion_attribute"),
    pids=data[:, 1],
  )


_DATA_SET = DataSet(
  name="peta",
  licence="PETA: academic research, on the terms of its authors",
  read_mat=_read_mat,
  files=("PETA.mat",),
  folders=("images",),
  attributes=ATTRIBUTES,
  counts={"train": 9_500, "val": 1_900, "test": 7_600},
)

"""Source: PA-100K (Liu et al., ICCV 2017), 26 attributes of 100,000 pedestrians in surveillance pictures.

  <root>/annotation.mat          or PA100K_annotation.mat, or dataset_all.pkl of HAP's official code
  <root>/data/000001.jpg ...     or the same files in release_data/release_data/ or in release_data/

The annotation file does not state which person a picture shows. So splits without shared persons are
impossible.
"""

import numpy as np

from hap_jax.data import attribute_images
from hap_jax.data.attribute_images import Annotations, DataSet
from hap_jax.io import mat_file

ATTRIBUTES = (
  # head
  *["Hat", "Glasses"],
  # upper body
  *["ShortSleeve", "LongSleeve", "UpperStride", "UpperLogo", "UpperPlaid", "UpperSplice"],
  # lower body
  *["LowerStripe", "LowerPattern", "LongCoat", "Trousers", "Shorts", "Skirt&Dress"],
  # feet
  *["boots"],
  # bags
  *["HandBag", "ShoulderBag", "Backpack", "HoldObjectsInFront"],
  # the person and the view
  *["AgeOver60", "Age18-60", "AgeLess18", "Female", "Front", "Side", "Back"],
)

PLACES = ("annotations", "images")
SPLITS = ("train", "val", "test")


def open_source(*, root, split, seed, identity_disjoint=False, split_seed=0, annotations="", images=""):
  """Opens a split of PA-100K: "train", "val", "test" or "trainval".

  `attribute_images.open_split` explains the options identity_disjoint, split_seed, annotations and images.
  For PA-100K, identity_disjoint must be False, because the annotation file does not state which person a
  picture shows.

  Returns:
    PictureFiles with the 26 ATTRIBUTES, in the order of the official classifier's outputs.
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
  variables = mat_file.load(path)
  keys = ["attributes", *(f"{name}_{what}" for name in SPLITS for what in ("images_name", "label"))]
  found = mat_file.pick(variables, keys, path)
  names = mat_file.strings(found["attributes"], f"{path}: attributes")
  # The file has one list of pictures per split. `Annotations` has one list of all pictures, and row indices
  # for each split.
  images, labels, rows = [], [], {}
  for name in SPLITS:
    where = f"{path}: {name}"
    split_images = mat_file.strings(found[f"{name}_images_name"], f"{where}_images_name")
    split_labels = mat_file.integers(found[f"{name}_label"], f"{where}_label", 2)
    if split_labels.shape != (len(split_images), len(names)):
      raise ValueError(
        f"{where}_label has the shape {split_labels.shape}; expected ({len(split_images)}, {len(names)}), "
        "(pictures, attributes)"
      )
    rows[name] = np.arange(len(images), len(images) + len(split_images))
    images += split_images
    labels.append(split_labels)
  return Annotations(path, images, np.concatenate(labels), names, rows)


_DATA_SET = DataSet(
  name="pa100k",
  licence="PA-100K: academic research, on the terms of its authors",
  read_mat=_read_mat,
  files=("annotation.mat", "PA100K_annotation.mat"),
  folders=("data", "release_data/release_data", "release_data"),
  attributes=ATTRIBUTES,
  counts={"train": 80_000, "val": 10_000, "test": 10_000},
)

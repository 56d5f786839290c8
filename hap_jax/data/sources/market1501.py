"""Source: Market-1501 (Zheng et al., ICCV 2015) and data sets in its layout.

  <root>/bounding_box_train/   training pictures
  <root>/query/                query pictures
  <root>/bounding_box_test/    gallery pictures

The name of a picture begins with the person and the camera: 0002_c1s1_000451_03.jpg is person 2 by camera 1.
The names of DukeMTMC (0005_c2_f0046985.jpg) and of copies of MSMT17 (0012_c15_0303morning.jpg) follow the
same rule. The names of LTCC (001_1_c10_015833.png) are an error, because they have another field between
person and camera.

Pictures of person -1 (badly cut boxes) are left out. Pictures of person 0 (other people and background) stay
in the gallery and match no query. Files that are not pictures and other folders (gt_bbox/, gt_query/) are
ignored.

For a copy of MSMT17 in this layout, use the source `msmt17`. In MSMT17, the same id means different persons
in the training set and in the test set.
"""

import os
import re

from absl import logging

from hap_jax.data import person_images
from hap_jax.data.person_images import Picture
from hap_jax.data.sources.base import check_folder, check_root, describe_folder, list_pictures, printable

SPLITS = person_images.SPLITS
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
# Official numbers of pictures and persons. Person 0 counts as one of the 751 persons of the gallery.
_COUNTS = {"train": (12_936, 751), "query": (3_368, 750), "gallery": (15_913, 751)}

_NAME = re.compile(r"(-1|[0-9]{1,9})_c([0-9]{1,9})(?![0-9])")  # start of a name: person and camera
_JUNK = -1  # id of the person whose pictures are left out


def open_source(*, root, split, seed):
  """Opens a split of Market-1501.

  A note is logged if the number of pictures differs from the official number, or if query pictures cannot be
  scored.

  Args:
    root: folder that holds the three folders (config.data.root).
    split: "train", "query" or "gallery".
    seed: not used, because the pictures are in the order of their names.

  Returns:
    a source of re-identification records (see `base.py`).

  Raises:
    ValueError: if a folder is missing or has no pictures, if a name does not begin with person and camera, or
      if a person is in the training and in the test set.
  """
  del seed
  person_images.check_split("market1501", split)
  pictures, notes = read_split(root, split)
  person_images.check_apart(
    _persons(root, "train"),
    _persons(root, "query") | _persons(root, "gallery"),
    root,
    "for MSMT17 in Market-1501's layout, set config.data.source=msmt17",
  )
  notes += person_images.note_counts(f"{split} in {root}", pictures, _COUNTS[split])
  licence = "Market-1501: academic research, on the terms of its authors"
  return person_images.make(root, pictures, "market1501", licence=licence, notes=notes, people="market1501")


def published(split, options):
  """Returns the sizes of the published data set, see `base.py`."""
  del options
  return dict(zip(("records", "persons"), _COUNTS[split], strict=True))


def _persons(root, split):
  """Returns the set of persons of a split, without person 0. If the folder is missing, the set is empty."""
  if not os.path.isdir(os.path.join(root, FOLDERS[split])):
    return set()
  return {picture.pid for picture in read_folder(root, split)} - {0}


def read_split(root, split):
  """Lists a split in Market-1501's layout.

  Returns:
    (list of `Picture`, notes on unusual pictures).
  """
  check_root(root, ", ".join(f"{folder}/" for folder in FOLDERS.values()))
  pictures = read_folder(root, split)
  if split == "train":
    return pictures, person_images.note_single(pictures)
  if split == "query":
    return pictures, person_images.note_unmatched(pictures, read_folder(root, "gallery"))
  return pictures, []


def read_folder(root, split):
  """Returns the pictures of one folder in Market-1501's layout, sorted by name, without person -1."""
  folder = os.path.join(root, FOLDERS[split])
  if not os.path.isdir(folder):
    raise ValueError(
      f"{folder}: no such folder; expected {', '.join(f'{name}/' for name in FOLDERS.values())} in "
      f"config.data.root={root}, {describe_folder(root)}"
    )
  check_folder(folder, f"the {split} pictures, with names such as 0002_c1s1_000451_03.jpg")
  names = list_pictures(folder)
  matches = [_NAME.match(name) for name in names]
  wrong = [name for name, match in zip(names, matches, strict=True) if not match or not int(match[2])]
  if wrong:
    raise ValueError(
      f"{folder}: {len(wrong)} of {len(names)} names do not begin with person and camera, the first is "
      f"{printable(wrong[0])}; expected names that begin with PERSON_cCAMERA, the number of the person (or "
      "-1) and the number of the camera (1 or more), such as 0002_c1s1_000451_03.jpg"
    )
  pictures = [
    Picture(f"{FOLDERS[split]}/{name}", int(match[1]), int(match[2]) - 1)
    for name, match in zip(names, matches, strict=True)
    if int(match[1]) != _JUNK
  ]
  if not pictures:
    raise ValueError(
      f"{folder}: no {split} pictures, except {len(names)} of person -1; expected names such as "
      f"0002_c1s1_000451_03.jpg, {describe_folder(folder)}"
    )
  if len(pictures) < len(names):
    logging.info("%s: %d pictures of person -1 are left out", folder, len(names) - len(pictures))
  return pictures

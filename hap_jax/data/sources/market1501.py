"""Market-1501 (Zheng et al., ICCV 2015), and anything in its layout.

  <root>/bounding_box_train/   pictures to train on
  <root>/query/                pictures to search for
  <root>/bounding_box_test/    pictures to search in, the gallery

A picture's name begins with its person and its camera: 0002_c1s1_000451_03.jpg is person 2 by camera 1.
DukeMTMC's 0005_c2_f0046985.jpg and 0012_c15_0303morning.jpg of MSMT17's copies follow the same rule. LTCC's
001_1_c10_015833.png has another field between the two, and is refused. Person -1 (badly cut boxes) is left
out; person 0 (other people and background) stays in the gallery and is nobody's match. Files that are no
pictures, and all other folders (gt_bbox/, gt_query/), are ignored.

MSMT17 in this layout, whose test persons are numbered from 0 again, is for the source `msmt17`.
"""

import os
import re

from absl import logging

from hap_jax.data import person_images
from hap_jax.data.person_images import Picture
from hap_jax.data.sources.base import check_folder, check_root, describe_folder, list_pictures, printable

SPLITS = person_images.SPLITS
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
_COUNTS = {"train": (12_936, 751), "query": (3_368, 750), "gallery": (15_913, 751)}  # pid 0 is the 751st

_NAME = re.compile(r"(-1|[0-9]{1,9})_c([0-9]{1,9})(?![0-9])")  # person, camera; at the beginning of a name
_JUNK = -1


def open_source(*, root, split, seed, num_val=0):
  """Opens a split of Market-1501.

  A number of pictures other than the official one is noted and logged, as are queries that cannot be scored.

  Args:
    root: folder that holds the three folders (config.data.root).
    split: "train", "query" or "gallery".
    seed: not used; the order is that of the names.
    num_val: 0, the test set is the data set's own.

  Returns:
    a source of re-identification records (see `base.py`).

  Raises:
    ValueError: if a folder is missing or has no pictures, a name does not begin with person and camera, or a
      person is in the training and in the test set.
  """
  del seed
  person_images.check_split("market1501", split, num_val)
  pictures, notes = read_split(root, split)
  person_images.check_apart(
    _persons(root, "train"),
    _persons(root, "query") | _persons(root, "gallery"),
    root,
    "for MSMT17 in Market-1501's layout, say config.data.source=msmt17",
  )
  notes += person_images.note_counts(f"{split} in {root}", pictures, _COUNTS[split])
  licence = "Market-1501: academic research, on the terms of its authors"
  return person_images.make(root, pictures, "market1501", licence, notes=notes, people="market1501")


def _persons(root, split):
  """Returns the numbers of a split's persons, none if its folder is missing. Person 0 is nobody's number."""
  if not os.path.isdir(os.path.join(root, FOLDERS[split])):
    return set()
  return {picture.pid for picture in read_folder(root, split)} - {0}


def read_split(root, split):
  """Lists a split in Market-1501's layout.

  Returns:
    (its pictures, notes on what is odd about them).
  """
  check_root(root, ", ".join(f"{folder}/" for folder in FOLDERS.values()))
  pictures = read_folder(root, split)
  if split == "train":
    return pictures, person_images.note_single(pictures)
  if split == "query":
    return pictures, person_images.note_unmatched(pictures, read_folder(root, "gallery"))
  return pictures, []


def read_folder(root, split):
  """Lists the pictures of one folder in Market-1501's layout, sorted by name, person -1 left out."""
  folder = os.path.join(root, FOLDERS[split])
  if not os.path.isdir(folder):
    raise ValueError(
      f"{folder}: no such folder; expected {', '.join(f'{name}/' for name in FOLDERS.values())} in "
      f"config.data.root={root}, {describe_folder(root)}"
    )
  check_folder(folder, f"the {split} pictures, named as 0002_c1s1_000451_03.jpg")
  names = list_pictures(folder)
  matches = [_NAME.match(name) for name in names]
  wrong = [name for name, match in zip(names, matches, strict=True) if not match or not int(match[2])]
  if wrong:
    raise ValueError(
      f"{folder}: {len(wrong)} of {len(names)} names do not begin with person and camera, the first is "
      f"{printable(wrong[0])}; expected PERSON_cCAMERA first, with the person's number (or -1) and the "
      "camera's number from 1 on, as in 0002_c1s1_000451_03.jpg"
    )
  pictures = [
    Picture(f"{FOLDERS[split]}/{name}", int(match[1]), int(match[2]) - 1)
    for name, match in zip(names, matches, strict=True)
    if int(match[1]) != _JUNK
  ]
  if not pictures:
    raise ValueError(
      f"{folder}: no {split} pictures, {len(names)} of person -1; expected pictures named as "
      f"0002_c1s1_000451_03.jpg, {describe_folder(folder)}"
    )
  if len(pictures) < len(names):
    logging.info("%s: %d pictures of person -1 left out", folder, len(names) - len(pictures))
  return pictures

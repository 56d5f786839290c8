"""Source: pictures of known persons in one folder per person, such as a user's own collection.

  <root>/<person>/*.jpg                                     the splits are drawn at random, with `split_seed`
  <root>/train/<person>/*.jpg, query/<person>/, gallery/    the folders are the splits. Any of these three
                                                            folders may be missing.

The ids of the persons follow the order of their names. The part _cN of a file name is the camera:
anna_c2_001.jpg and ANNA_C2.JPG are by camera 2. The number only shows which pictures have the same camera.

Each picture without this part gets a separate camera number, because two pictures by the same camera do not
count as a match. If all these pictures had the same camera, there would be no matches. With separate cameras,
all pictures of a person match.
"""

import collections
import hashlib
import itertools
import os
import re

import numpy as np

from hap_jax.data import person_images
from hap_jax.data.person_images import SPLITS, Picture
from hap_jax.data.sources.base import (
  check_exif,
  check_root,
  describe_folder,
  list_folders,
  list_pictures,
  note_left_out,
)

_DIGEST_LENGTH = 12  # number of hexadecimal digits
_CAMERA = re.compile(r"_c(\d{1,9})(?!\d)", re.IGNORECASE)


def open_source(*, root, split, seed, test_share=0.5, split_seed=0, exif="apply"):
  """Opens a split of a folder that contains one folder per person.

  Args:
    root: folder that contains the persons' folders, or train/, query/ and gallery/ (config.data.root).
    split: "train", "query" or "gallery".
    seed: not used, because the test persons must not change with the seed of a run.
    test_share: share of the persons in the test set, if the folders are not splits. One random picture of
      each test person is a query, and the other pictures are in the gallery. A person with only one picture
      is only in the gallery.
    split_seed: seed for drawing the test persons and the query pictures, if the folders are not splits.
    exif: "apply": turn the pictures as their EXIF headers say. "ignore": keep the stored pixels.

  Returns:
    a source of re-identification records (see `base.py`).

  Raises:
    ValueError: if a folder is missing or has no pictures, if a person is in the training and in the test set,
      or if a split has no pictures.
  """
  del seed
  person_images.check_split("identity_folder", split)
  if not 0 <= test_share <= 1:
    raise ValueError(f"config.data.identity_folder.test_share={test_share}: expected 0 to 1")
  check_exif(exif, "config.data.identity_folder.exif")
  check_root(root, "one folder of pictures per person, or train/, query/ and gallery/ with such folders")
  folders = list_folders(root)
  divided = [name for name in SPLITS if name in folders]
  if divided:
    persons = {name: list_folders(os.path.join(root, name)) for name in divided}
    # The name of a folder is the name of the person. So the same name in two splits means the same person.
    test = {person for name in divided if name != "train" for person in persons[name]}
    person_images.check_apart(
      set(persons.get("train", ())), test, root, "give different persons different folder names"
    )
    splits, notes = _read_pictures(root, persons)
  else:
    persons = {"": folders}
    pictures, notes = _read_pictures(root, persons)
    splits = _divide(pictures[""], test_share, split_seed)
  remedy = (
    f"add pictures to {split}/" if divided else f"change config.data.identity_folder.test_share={test_share}"
  )
  pictures = _select_split(splits, split, root, remedy)
  if split == "train":
    notes += person_images.note_single(pictures)
  if split == "query":
    notes += person_images.note_unmatched(pictures, splits.get("gallery", []))
  facts = {"licence": "not known", "people": _people(persons), "exif": exif}
  return person_images.make(root, pictures, "identity_folder", notes=notes, **facts)


def _select_split(splits, split, root, remedy):
  """Returns splits[split], the list of pictures. Raises ValueError if there are none."""
  if split not in splits:
    raise ValueError(f"{os.path.join(root, split)}: no such folder; {describe_folder(root)}")
  if not splits[split]:
    found = {name: len({picture.pid for picture in rows}) for name, rows in splits.items()}
    raise ValueError(
      f"{root}: no {split} pictures, persons found: {found}; {remedy} (the person of a query needs two "
      "pictures)"
    )
  return splits[split]


def _people(persons):
  """Returns the name of this numbering of persons (see `SourceSpec.people`), with a digest of all names.

  The id of a person depends on the names of all persons. So two folders have the same ids only if their
  digests are equal.
  """
  names = "\0".join(_sort_names(persons))
  return f"identity_folder, {hashlib.sha256(os.fsencode(names)).hexdigest()[:_DIGEST_LENGTH]}"


def _sort_names(persons):
  """Returns the names of all persons in the order of their ids."""
  return sorted(set().union(*persons.values()))


def _read_pictures(root, persons):
  """Lists the pictures of all persons.

  Args:
    root: folder that contains the folders of `persons`.
    persons: {folder: names of persons}.
  Returns:
    ({folder: pictures}, list of notes on all folders).
  """
  if not any(persons.values()):
    raise ValueError(f"{root}: no folders of persons; expected one per person; {describe_folder(root)}")
  pids = {name: pid for pid, name in enumerate(_sort_names(persons))}
  left_out = collections.Counter()
  files = [
    (folder, person, name)
    for folder, names in persons.items()
    for person in names
    for name in _list_person(os.path.join(root, folder, person), left_out)
  ]
  cameras = [_CAMERA.search(name) for _, _, name in files]
  # A picture without a camera gets a camera number that is higher than all cameras in the names.
  own_camera = itertools.count(1 + max((int(camera[1]) for camera in cameras if camera), default=-1))
  pictures = {folder: [] for folder in persons}
  for (folder, person, name), camera in zip(files, cameras, strict=True):
    camid = int(camera[1]) if camera else next(own_camera)
    pictures[folder].append(Picture(os.path.join(folder, person, name), pids[person], camid))
  without = [os.path.join(*file) for file, camera in zip(files, cameras, strict=True) if camera is None]
  return pictures, note_left_out(left_out) + _note_cameras(without, len(files))


def _note_cameras(without, num_pictures):
  """Returns a list with a note if only some pictures have a camera in their names, else [].

  Args:
    without: paths of the pictures without a camera.
    num_pictures: number of all pictures.
  """
  if len(without) in (0, num_pictures):
    return []
  return [
    f"{len(without):,} of {num_pictures:,} file names contain no camera (_c2), but all others do. Each "
    "picture without a camera gets a separate camera: add the camera to all names, or to none "
    f"({person_images.few(without)})"
  ]


def _list_person(folder, left_out):
  before = left_out.copy()
  names = list_pictures(folder, left_out)
  if not names:
    problem = f"{folder}: no pictures; expected pictures of one person; {describe_folder(folder)}"
    raise ValueError("; ".join([problem, *note_left_out(left_out - before)]))
  return names


def _divide(pictures, test_share, split_seed):
  """Divides pictures into {split: pictures}. The pictures of a person must follow each other in the list."""
  rng = np.random.default_rng(split_seed)
  persons = [list(group) for _, group in itertools.groupby(pictures, key=lambda picture: picture.pid)]
  is_tested = rng.permutation(len(persons)) < round(test_share * len(persons))
  splits = {"train": [], "query": [], "gallery": []}
  for person, tested in zip(persons, is_tested, strict=True):
    # A query is drawn for training persons, too. So the queries do not depend on test_share.
    query = int(rng.random() * len(person)) if len(person) > 1 else None
    for i, picture in enumerate(person):
      splits[("query" if i == query else "gallery") if tested else "train"].append(picture)
  return splits

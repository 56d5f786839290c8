"""Source: pictures of known persons in one folder per person, such as a user's own collection.

  <root>/<person>/*.jpg                                     this source draws the splits, by `split_seed`
  <root>/train/<person>/*.jpg, query/<person>/, gallery/    given splits; any of the three may be missing

Persons are numbered in the order of the names of all their folders. The part _cN of a file's name gives the
camera: anna_c2_001.jpg is by camera 2. The number only says which pictures share a camera. A picture without
this part gets its own camera. The reason is that two pictures by the same camera do not count as a match.
With one camera for all pictures there would be no match; with own cameras all pictures of a person match.
"""

import hashlib
import itertools
import os
import re

import numpy as np

from hap_jax.data import person_images
from hap_jax.data.person_images import SPLITS, Picture
from hap_jax.data.sources.base import check_root, describe_folder, list_folders, list_pictures

_DIGEST_LENGTH = 12  # hexadecimal digits
_CAMERA = re.compile(r"_c(\d{1,9})(?!\d)")


def open_source(*, root, split, seed, test_share=0.5, split_seed=0):
  """Opens a split of a folder that contains one folder per person.

  Args:
    root: folder that contains the persons' folders, or train/, query/ and gallery/ (config.data.root).
    split: "train", "query" or "gallery".
    seed: not used, because the test persons must not change with the seed of a run.
    test_share: share of the persons in the test set, if the folder has no given splits. One random picture of
      each test person is a query, and the others are in the gallery. A person with only one picture is only
      in the gallery.
    split_seed: seed that draws the test persons and the query pictures.

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
  check_root(root, "one folder of pictures per person, or train/, query/ and gallery/ with such folders")
  folders = list_folders(root)
  divided = [name for name in SPLITS if name in folders]
  if divided:
    persons = {name: list_folders(os.path.join(root, name)) for name in divided}
    # The name of a folder is the identity, so one name in training and test is the same person in both.
    test = {person for name in divided if name != "train" for person in persons[name]}
    person_images.check_apart(
      set(persons.get("train", ())), test, root, "give different persons different folder names"
    )
    splits = _read_pictures(root, persons)
  else:
    persons = {"": folders}
    splits = _divide(_read_pictures(root, persons)[""], test_share, split_seed)
  pictures = splits.get(split)
  if pictures is None:
    raise ValueError(f"{os.path.join(root, split)}: no such folder; {describe_folder(root)}")
  if not pictures:
    found = {name: len({picture.pid for picture in rows}) for name, rows in splits.items()}
    remedy = (
      f"add pictures to {split}/"
      if divided
      else f"change config.data.identity_folder.test_share={test_share}"
    )
    raise ValueError(
      f"{root}: no {split} pictures, persons found: {found}; {remedy} (the person of a query needs two "
      "pictures)"
    )
  notes = person_images.note_single(pictures) if split == "train" else []
  if split == "query":
    notes += person_images.note_unmatched(pictures, splits.get("gallery", []))
  return person_images.make(
    root, pictures, "identity_folder", licence="not known", notes=notes, people=_people(persons)
  )


def _people(persons):
  """Returns a text that says whose numbers these are. It contains a digest of all names of the persons.

  The numbers depend on all names, so two folders have the same numbers only if their digests are equal.
  """
  names = "\0".join(_sort_names(persons))
  return f"identity_folder, {hashlib.sha256(os.fsencode(names)).hexdigest()[:_DIGEST_LENGTH]}"


def _sort_names(persons):
  """Returns the names of all persons in the order of their numbers."""
  return sorted(set().union(*persons.values()))


def _read_pictures(root, persons):
  """Returns {folder: pictures} of the persons {folder: names of persons}."""
  if not any(persons.values()):
    raise ValueError(f"{root}: no folders of persons; expected one per person; {describe_folder(root)}")
  pids = {name: pid for pid, name in enumerate(_sort_names(persons))}
  files = [
    (folder, person, name)
    for folder, names in persons.items()
    for person in names
    for name in _list_person(os.path.join(root, folder, person))
  ]
  cameras = [_CAMERA.search(name) for _, _, name in files]
  # Pictures without a camera get numbers above all cameras in the names.
  own_camera = itertools.count(1 + max((int(camera[1]) for camera in cameras if camera), default=-1))
  pictures = {folder: [] for folder in persons}
  for (folder, person, name), camera in zip(files, cameras, strict=True):
    camid = int(camera[1]) if camera else next(own_camera)
    pictures[folder].append(Picture(os.path.join(folder, person, name), pids[person], camid))
  return pictures


def _list_person(folder):
  names = list_pictures(folder)
  if not names:
    raise ValueError(f"{folder}: no pictures; expected pictures of one person; {describe_folder(folder)}")
  return names


def _divide(pictures, test_share, split_seed):
  """Divides pictures into {split: pictures}. The pictures of a person must be neighbours in the list."""
  rng = np.random.default_rng(split_seed)
  persons = [list(group) for _, group in itertools.groupby(pictures, key=lambda picture: picture.pid)]
  is_tested = rng.permutation(len(persons)) < round(test_share * len(persons))
  splits = {"train": [], "query": [], "gallery": []}
  for person, tested in zip(persons, is_tested, strict=True):
    # Drawn for training persons too, so that test_share does not change the queries of the other persons.
    query = int(rng.random() * len(person)) if len(person) > 1 else None
    for i, picture in enumerate(person):
      splits[("query" if i == query else "gallery") if tested else "train"].append(picture)
  return splits

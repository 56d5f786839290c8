"""MSMT17 (Wei et al., CVPR 2018), as released or as a copy in Market-1501's layout.

As released, lists name the pictures and their persons, a line each, and the third field of a file's name is
the camera, 1 to 15: "0000/0000_000_01_0303morning_0008_0.jpg 0".

  <root>/list_train.txt, list_val.txt       pictures below train/ (V1) or mask_train_v2/ (V2, faces blurred)
  <root>/list_query.txt, list_gallery.txt   pictures below test/ (V1) or mask_test_v2/ (V2)

A copy has bounding_box_train/, query/ and bounding_box_test/ with names that state person and camera, as in
0012_c15_0303morning.jpg; see `market1501.py`. Test persons are numbered from 0 again, so one number means two
people in the training and the test set.
"""

import os
import re

from hap_jax.data import person_images
from hap_jax.data.person_images import Picture
from hap_jax.data.sources import market1501
from hap_jax.data.sources.base import check_relative, check_root, describe_folder, printable
from hap_jax.io import regular_file

SPLITS = person_images.SPLITS
_LISTS = {"train": ("train",), "train+val": ("train", "val"), "query": ("query",), "gallery": ("gallery",)}
_TRAIN_FOLDERS = ("train", "mask_train_v2")
_TEST_FOLDERS = ("test", "mask_test_v2")
_COUNTS = {
  "train": (30_248, 1_041),
  "train+val": (32_621, 1_041),
  "query": (11_659, 3_060),
  "gallery": (82_161, 3_060),
}

_EXAMPLE = "0000/0000_000_01_0303morning_0008_0.jpg 0"
# path (pid, camera), pid
_LINE = re.compile(r"((?:[^/]+/)*([0-9]{1,9})_[0-9]+_([0-9]{1,9})_[^/]+\.jpg) ([0-9]{1,9})")
_NUM_SHOWN = 5  # names of absent pictures in an error


def open_source(*, root, split, seed, train_set="train+val", num_val=0):
  """Opens a split of MSMT17.

  A number of pictures other than the official one is noted and logged, as are queries that cannot be scored.

  Args:
    root: folder of the lists and their folders, or of the three folders of a copy (config.data.root).
    split: "train", "query" or "gallery".
    seed: not used; the order is that of the lists, or of the names.
    train_set: "train+val", what is trained on for published numbers, or "train", without the validation list;
      they show the same persons. A copy in Market-1501's layout has one training set and is not asked.
    num_val: 0, the test set is the data set's own.

  Returns:
    a source of re-identification records (see `base.py`).

  Raises:
    ValueError: if a list or folder is missing or empty, a line or name does not state person and camera, a
      listed picture is absent or not below its folder, or an option is out of range.
  """
  del seed
  person_images.check_split("msmt17", split, num_val)
  if train_set not in ("train+val", "train"):
    raise ValueError(f'config.data.msmt17.train_set={train_set!r}: expected "train+val" or "train"')
  check_root(root, "list_train.txt, list_val.txt, list_query.txt, list_gallery.txt and their pictures")
  lists = train_set if split == "train" else split
  if os.path.isfile(os.path.join(root, f"list_{split}.txt")):
    pictures, notes = _read_released(root, lists)
  elif os.path.isdir(os.path.join(root, market1501.FOLDERS[split])):
    pictures, notes = market1501.read_split(root, split)
  else:
    raise ValueError(
      f"{root}: expected list_{split}.txt, as MSMT17 is released, or {market1501.FOLDERS[split]}/, of a copy "
      f"in Market-1501's layout, in config.data.root; {describe_folder(root)}"
    )
  notes += person_images.note_counts(f"{lists} in {root}", pictures, _COUNTS[lists])
  licence = "MSMT17: academic research, under the agreement signed with its authors"
  people = "msmt17" if split == "train" else "msmt17, test"  # they are numbered from 0 twice
  return person_images.make(root, pictures, "msmt17", licence, notes=notes, people=people)


def _read_released(root, lists):
  pictures = [picture for name in _LISTS[lists] for picture in _read_list(root, name)]
  if lists == "query":
    return pictures, person_images.note_unmatched(pictures, _read_list(root, "gallery"))
  return pictures, [] if lists == "gallery" else person_images.note_single(pictures)


def _read_list(root, name):
  """Lists the pictures of one official list, in its order."""
  path = os.path.join(root, f"list_{name}.txt")
  folder = _find_folder(root, _TRAIN_FOLDERS if name in ("train", "val") else _TEST_FOLDERS)
  if not os.path.isfile(path):
    raise ValueError(f"{path}: no such file; expected MSMT17's official list, {describe_folder(root)}")
  pictures = []
  with regular_file.open_regular(path, "r", encoding="utf-8", errors="surrogateescape") as file:
    for number, line in enumerate(file, start=1):
      match = _LINE.fullmatch(line.rstrip())
      # The name and the second column both state the person.
      if not match or int(match[2]) != int(match[4]) or not int(match[3]):
        raise ValueError(
          f"{path}: line {number} is {line.rstrip()!r}; expected a path and its person, with the same person "
          f"first and the camera, from 1 on, third in the file's name: {_EXAMPLE}"
        )
      pictures.append(Picture(match[1], int(match[2]), int(match[3]) - 1))
  if not pictures:
    raise ValueError(f"{path}: the list is empty; expected lines as {_EXAMPLE}")
  names = [picture.path for picture in pictures]
  check_relative(names, lambda i: f"{path}: line {i + 1}")
  _check_presence(path, os.path.join(root, folder), names)
  return [picture._replace(path=f"{folder}/{picture.path}") for picture in pictures]


def _check_presence(path, folder, names):
  """Raises ValueError if pictures of the list `path` are absent in `folder`; lists each folder once."""
  found = {below: _list_names(os.path.join(folder, below)) for below in set(map(os.path.dirname, names))}
  absent = [name for name in names if os.path.basename(name) not in found[os.path.dirname(name)]]
  if absent:
    more = ", ..." if len(absent) > _NUM_SHOWN else ""
    raise ValueError(
      f"{path}: {len(absent):,} of its {len(names):,} pictures are absent in {folder}: "
      f"{', '.join(map(printable, absent[:_NUM_SHOWN]))}{more}; copy them there, or change config.data.root"
    )


def _list_names(folder):
  return set(os.listdir(folder)) if os.path.isdir(folder) else set()


def _find_folder(root, choices):
  found = [folder for folder in choices if os.path.isdir(os.path.join(root, folder))]
  if len(found) != 1:
    raise ValueError(
      f"{root}: {' and '.join(f'{folder}/' for folder in found) or 'no folder of pictures'}; expected either "
      f"{choices[0]}/ (V1) or {choices[1]}/ (V2) beside MSMT17's lists, {describe_folder(root)}"
    )
  return found[0]

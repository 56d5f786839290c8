"""Source: MSMT17 (Wei et al., CVPR 2018), as released or as a copy in Market-1501's layout.

In the release, text files list the pictures and their persons, one picture per line. An example of a line is
"0000/0000_000_01_0303morning_0008_0.jpg 0". The third field of a file's name is the camera, 1 to 15.

  <root>/list_train.txt, list_val.txt       pictures in train/ (V1) or mask_train_v2/ (V2, faces blurred)
  <root>/list_query.txt, list_gallery.txt   pictures in test/ (V1) or mask_test_v2/ (V2)

A copy has bounding_box_train/, query/ and bounding_box_test/. The names of its files contain person and
camera, such as 0012_c15_0303morning.jpg (see `market1501.py`).

The ids of training persons and the ids of test persons both start at 0. So the same id means different people
in the two sets.
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
# A line of a list. Groups: path of the picture, person in its name, camera in its name, person in column 2.
_LINE = re.compile(r"((?:[^/]+/)*([0-9]{1,9})_[0-9]+_([0-9]{1,9})_[^/]+\.jpg) ([0-9]{1,9})")
_NUM_SHOWN = 5  # largest number of missing pictures in an error message


def open_source(*, root, split, seed, train_set="train+val"):
  """Opens a split of MSMT17.

  A note is logged if the number of pictures differs from the official number, or if query pictures cannot be
  scored.

  Args:
    root: folder of the lists and the pictures, or folder of a copy (config.data.root).
    split: "train", "query" or "gallery".
    seed: not used, because the pictures are in the order of the lists or of their names.
    train_set: "train+val" is the training set of published results. "train" leaves out the pictures of the
      validation list, which show the same persons. For a copy in Market-1501's layout, which has only one
      training set, this option has no effect.

  Returns:
    a source of re-identification records (see `base.py`).

  Raises:
    ValueError: if a list or folder is missing or empty, if a line or name does not contain person and camera,
      if a listed picture is missing or is outside its folder, or if an option has a wrong value.
  """
  del seed
  person_images.check_split("msmt17", split)
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
      f"{root}: expected list_{split}.txt of MSMT17's release, or {market1501.FOLDERS[split]}/ of a copy in "
      f"Market-1501's layout, in config.data.root; {describe_folder(root)}"
    )
  notes += person_images.note_counts(f"{lists} in {root}", pictures, _COUNTS[lists])
  licence = "MSMT17: academic research, under the agreement signed with its authors"
  people = "msmt17" if split == "train" else "msmt17, test"  # the ids of both sets start at 0
  return person_images.make(root, pictures, "msmt17", licence=licence, notes=notes, people=people)


def published(split, options):
  """Returns the sizes of the published data set, see `base.py`."""
  lists = options.get("train_set", "train+val") if split == "train" else split
  return dict(zip(("records", "persons"), _COUNTS[lists], strict=True))


def _read_released(root, lists):
  pictures = [picture for name in _LISTS[lists] for picture in _read_list(root, name)]
  if lists == "query":
    return pictures, person_images.note_unmatched(pictures, _read_list(root, "gallery"))
  return pictures, [] if lists == "gallery" else person_images.note_single(pictures)


def _read_list(root, name):
  """Returns the pictures of one official list, in its order."""
  path = os.path.join(root, f"list_{name}.txt")
  folder = _find_folder(root, _TRAIN_FOLDERS if name in ("train", "val") else _TEST_FOLDERS)
  if not os.path.isfile(path):
    raise ValueError(f"{path}: no such file; expected MSMT17's official list, {describe_folder(root)}")
  pictures = []
  with regular_file.open_regular(path, "r", encoding="utf-8", errors="surrogateescape") as file:
    for number, line in enumerate(file, start=1):
      match = _LINE.fullmatch(line.rstrip())
      # The file name and the second column both contain the person. If they differ, the list is damaged.
      if not match or int(match[2]) != int(match[4]) or not int(match[3]):
        raise ValueError(
          f"{path}: line {number} is {line.rstrip()!r}; expected a path and the number of its person. The "
          "name of the file must have the same number as first field, and the camera (1 or more) as third "
          f"field: {_EXAMPLE}"
        )
      pictures.append(Picture(match[1], int(match[2]), int(match[3]) - 1))
  if not pictures:
    raise ValueError(f"{path}: the list is empty; expected lines such as {_EXAMPLE}")
  names = [picture.path for picture in pictures]
  check_relative(names, lambda i: f"{path}: line {i + 1}")
  _check_presence(path, os.path.join(root, folder), names)
  return [picture._replace(path=f"{folder}/{picture.path}") for picture in pictures]


def _check_presence(path, folder, names):
  """Raises ValueError if pictures of the list `path` are missing in `folder`."""
  # Listing each folder once is much faster than looking up each picture, especially on a network disk.
  found = {below: _list_names(os.path.join(folder, below)) for below in set(map(os.path.dirname, names))}
  absent = [name for name in names if os.path.basename(name) not in found[os.path.dirname(name)]]
  if absent:
    more = ", ..." if len(absent) > _NUM_SHOWN else ""
    raise ValueError(
      f"{path}: {len(absent):,} of its {len(names):,} pictures are missing in {folder}: "
      f"{', '.join(map(printable, absent[:_NUM_SHOWN]))}{more}; copy them there, or change config.data.root"
    )


def _list_names(folder):
  return set(os.listdir(folder)) if os.path.isdir(folder) else set()


def _find_folder(root, choices):
  found = [folder for folder in choices if os.path.isdir(os.path.join(root, folder))]
  if len(found) != 1:
    raise ValueError(
      f"{root}: {' and '.join(f'{folder}/' for folder in found) or 'no folder of pictures'}; expected either "
      f"{choices[0]}/ (V1) or {choices[1]}/ (V2) next to MSMT17's lists, {describe_folder(root)}"
    )
  return found[0]

"""Writes pictures of synthetic people and their labels to a folder, in the layouts of public data sets.

  bounding_box_train/, query/, bounding_box_test/  pictures, named as in Market-1501: 0002_c5s1_000011_00.jpg
                                                   is person 2, camera 5 at place 1, picture 11 of its split
  bounding_box_val/                                pictures of other people, for validation
  annotations/person_keypoints_{train,val}.json    joints and boxes in COCO's layout
  attributes.csv                                   one row per picture: file, split, person, attributes
  reid_raw.json                                    two captions per picture, in the layout of CUHK-PEDES
  README.txt                                       description of the folder

Persons are numbered from 1: first the people of train, then of val, then of test (query and gallery).
"""

import csv
import dataclasses
import functools
import json
import os
import pathlib

from hap_jax.data.sources.synthetic import open_source
from hap_jax.io import picture_file, unfinished
from hap_jax.io.progress import SILENT
from hap_jax.synthetic import camera, captions, coco_labels, draw, parallel

FOLDERS = {
  "train": "bounding_box_train",
  "val": "bounding_box_val",
  "query": "query",
  "gallery": "bounding_box_test",
}
_SET = {
  "train": "train",
  "val": "val",
  "query": "test",
  "gallery": "test",
}  # names of the splits in the annotation files
_QUALITY = 95  # JPEG quality. The files differ from the drawn pictures by a few grey levels
_CHUNK = 64  # pictures per call of a worker process


@dataclasses.dataclass(frozen=True)
class _Row:
  """One picture.

  Attributes:
    file: path relative to the exported folder.
    split: a key of FOLDERS.
    person: id of the person in the exported folder, from 1.
    index: index of the picture for `draw.draw_person`.
  """

  file: str
  split: str
  person: int
  index: int


def write_folder(
  out,
  *,
  seed=0,
  num_train=12000,
  num_val=1024,
  num_test=1024,
  image_size=(256, 128),
  workers=None,
  progress=SILENT,
):
  """Draws people and writes pictures and labels to a new folder.

  The folder has a temporary name until it is complete. So the folder `out` is never incomplete.

  Args:
    out: folder to create.
    seed: same as in `sources.synthetic`.
    num_train: same as in `sources.synthetic`.
    num_val: same as in `sources.synthetic`.
    num_test: same as in `sources.synthetic`.
    image_size: same as in `sources.synthetic`.
    workers: number of processes that draw. 0: this process draws. None: one process per processor.
    progress: a started `Progress` that counts the pictures.

  Returns:
    {split: number of pictures}.

  Raises:
    ValueError: if `out` exists, its parent folder does not exist, or a number is out of range.
  """
  out = pathlib.Path(out)
  unfinished.check_new(out)
  rows = _list_rows(seed=seed, num_train=num_train, num_val=num_val, num_test=num_test, image_size=image_size)
  with unfinished.new_folder(out) as part:
    for folder in (*FOLDERS.values(), "annotations"):
      (part / folder).mkdir()
    # The annotation files are written last, because they need the labels of all pictures.
    progress.begin(len(rows), "pictures")
    truths = write_pictures(part, seed, tuple(image_size), rows, _label, workers, progress)
    progress.stage("writing annotations")
    _write_lists(part, image_size, rows, truths)
    counts = {split: sum(row.split == split for row in rows) for split in FOLDERS}
    (part / "README.txt").write_text(_readme(seed, image_size, counts), encoding="utf-8")
  return counts


def _list_rows(**options):
  """Lists the pictures of all splits. Persons are numbered in the order of their first pictures."""
  rows, numbers = [], {}
  for split, folder in FOLDERS.items():
    source = open_source(split=split, **options)
    who = zip(source.indices, source.columns["pid"], source.columns["camid"], strict=True)
    for k, (index, pid, camid) in enumerate(who):
      person = numbers.setdefault(int(pid), len(numbers) + 1)
      # Market-1501 counts cameras and places from 1.
      place = camid // camera.CAMERAS_PER_SITE + 1
      file = f"{folder}/{person:04d}_c{camid + 1}s{place}_{k:06d}_00.jpg"
      rows.append(_Row(file, split, person, int(index)))
  return rows


def write_pictures(root, seed, size, rows, label, workers, progress):
  """Draws pictures and writes them as JPEG files.

  Args:
    root: folder of the files.
    seed: seed of the people.
    size: (H, W) of the pictures in pixels.
    rows: list of objects with `file`, the path below `root`, and `index`, the picture's index for
      `draw.draw_person`.
    label: function of (seed, size, result of `draw_person`). It returns the labels of a picture. It must be
      defined at the top level of a module, because it is sent to other processes.
    workers: same as in `write_folder`.
    progress: same as in `write_folder`.
  Returns:
    The results of `label`, in the order of `rows`.
  """
  chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
  write = functools.partial(_write_chunk, root, seed, size, label)
  parts = parallel.map_in_processes(write, chunks, workers, lambda chunk: progress.add(len(chunk)))
  return [truth for part in parts for truth in part]


def _write_chunk(root, seed, size, label, rows):
  truths = []
  for row in rows:
    drawn = draw.draw_person(seed, row.index, size)
    picture_file.write(root / row.file, drawn["image"], quality=_QUALITY)
    truths.append(label(seed, size, drawn))
  return truths


def _label(_, size, drawn):
  return {
    "labels": coco_labels.of_person(drawn, coco_labels.visible_area(drawn["parts"]), size),
    "attributes": drawn["attributes"].astype(int).tolist(),
    "captions": list(drawn["captions"]),
  }


def _write_lists(root, image_size, rows, truths):
  pairs = list(zip(rows, truths, strict=True))
  for split in ("train", "val"):
    write_json(
      root / "annotations" / f"person_keypoints_{split}.json",
      _coco(image_size, [pair for pair in pairs if pair[0].split == split]),
    )
  with (root / "attributes.csv").open("w", encoding="utf-8", newline="") as file:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(("file", "split", "person", *captions.ATTRIBUTES))
    table.writerows((row.file, _SET[row.split], row.person, *truth["attributes"]) for row, truth in pairs)
  write_json(
    root / "reid_raw.json",
    [
      {"split": _SET[row.split], "captions": truth["captions"], "file_path": row.file, "id": row.person}
      for row, truth in pairs
    ],
  )


def _coco(image_size, pairs):
  """Returns the content of a COCO keypoint file. File names are relative to the split's folder."""
  files = [os.path.basename(row.file) for row, _ in pairs]
  return coco_labels.file_content(image_size, files, [truth["labels"] for _, truth in pairs])


def write_json(path, content):
  """Writes a new JSON file."""
  with path.open("w", encoding="utf-8") as file:
    json.dump(content, file)


def _readme(seed, image_size, counts):
  H, W = image_size
  pictures, cameras, places = draw.PICTURES_PER_PERSON, camera.CAMERAS_PER_SITE, draw.NUM_SITES
  train, val, query, gallery = (counts[split] for split in FOLDERS)
  return f"""Synthetic people, drawn by hap_jax: nobody in these pictures exists.

seed {seed}, {H}x{W} pixels (height x width)
{train} pictures to train on, {val} held out, {query} to search for, {gallery} to search in
Each person has {pictures} pictures, taken by the {cameras} cameras of one of {places} places.
The command was

  python -m hap_jax.cli prepare synthetic --out=DIR --seed={seed} --image_size={H}x{W}
    --num_train={train} --num_val={val} --num_test={query + gallery}

bounding_box_train/, query/, bounding_box_test/
    named as in Market-1501: 0002_c5s1_000011_00.jpg is person 2, camera 5 at place 1, picture 11 of its
    split. bounding_box_val/ holds the people that are held out; its files are named in the same way.
annotations/person_keypoints_train.json, person_keypoints_val.json
    joints and boxes of bounding_box_train/ and bounding_box_val/ in COCO's layout. Hidden joints are
    labelled (v = 1).
attributes.csv
    one row for each picture: file, split, person, and 0 or 1 for each attribute.
reid_raw.json
    two captions for each picture in CUHK-PEDES' layout. file_path is relative to this folder.

Pictures are JPEG files of quality 95 with colours at full resolution.
Licence: Apache-2.0 (https://www.apache.org/licenses/LICENSE-2.0), for the pictures and the labels.
"""

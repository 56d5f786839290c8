"""Writes tiny data sets for text ReID in the official layouts: a dozen pictures each."""

import json

from tests.data import pose_files

SPLITS = {"train": 6, "val": 2, "test": 4}  # {split: pictures}, two of each person
COLOURS = ("red", "green", "blue", "black", "white", "grey")
# CUHK-PEDES mixes formats and folders.
_CUHK = ("CUHK01/{:07d}.png", "cam_a/{:03d}_45.bmp", "train_query/p{}_s1.jpg")


def make_records(key="file_path", captions=2, splits=SPLITS):
  """Returns records. Two consecutive pictures show one person. Captions are different."""
  records = []
  for split, count in splits.items():
    for _ in range(count):
      k = len(records)
      words = f"{COLOURS[k // 2 % len(COLOURS)]} shirt. "  # the blank at the end must remain
      records.append(
        {
          "split": split,
          "captions": [f"A person {k} in a {words}", f" {k}: the shirt is{words}"][:captions],
          key: _CUHK[k % 3].format(k),
          "id": k // 2 + 1,
        }
      )
  return records


def write_pictures(folder, names):
  for name in names:
    pose_files.write_picture(folder / name, (24, 12))


def write_cuhk(root, records=None, folder="imgs"):
  """Writes CUHK-PEDES' layout. Returns `root`."""
  records = make_records() if records is None else records
  write_pictures(root / folder, [record["file_path"] for record in records])
  pose_files.write_json(root / "reid_raw.json", records)
  return root


def make_icfg():
  """Returns records of ICFG-PEDES. The path of the first record contains "test", but its split is "train"."""
  records = make_records(captions=1, splits={"train": 8, "test": 4})
  for k, record in enumerate(records):
    folder = "test" if k == 0 else record["split"]
    record["file_path"] = f"{folder}/{k // 2:04d}/{k // 2:04d}_{k:03d}_05_0303afternoon_1591_0.jpg"
    record["processed_tokens"] = [["a", "person"]]
  return records


def write_icfg(root, records=None, folder="imgs", file="ICFG-PEDES.json"):
  """Writes ICFG-PEDES' layout. Returns `root`."""
  records = make_icfg() if records is None else records
  write_pictures(root / folder, [record["file_path"] for record in records])
  pose_files.write_json(root / file, records)
  return root


def make_rstp():
  """Returns records of RSTPReid."""
  records = make_records("img_path")
  for k, record in enumerate(records):
    record["id"] -= 1  # ids start at 0
    record["img_path"] = f"{record['id']:04d}_c{k % 15}_{k:04d}.jpg"
  return records


def write_rstp(root, records=None, folder="imgs"):
  """Writes RSTPReid's layout. Returns `root`."""
  records = make_rstp() if records is None else records
  write_pictures(root / folder, [record["img_path"] for record in records])
  pose_files.write_json(root / "data_captions.json", records)
  return root


def read_json(path):
  return json.loads(path.read_text(encoding="utf-8"))

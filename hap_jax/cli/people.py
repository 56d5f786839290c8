"""Draw two sheets of synthetic people: one has a row per person, the other has the labels of each picture."""

import os

import numpy as np

from hap_jax.io import picture_file
from hap_jax.synthetic import anatomy, camera, draw
from hap_jax.viz import people

_NAMES = ("people.jpg", "people_truth.jpg")
_QUALITY = 78


def add_arguments(parser):
  parser.add_argument("--out", required=True, metavar="DIR", help=f"folder for {' and '.join(_NAMES)}")
  parser.add_argument("--seed", type=int, default=0, help="random seed of the people (default: %(default)s)")
  parser.add_argument(
    "--first", type=int, default=0, metavar="N", help="index of the first person (default: %(default)s)"
  )
  parser.add_argument(
    "--rows", type=int, default=5, metavar="N", help="number of people (default: %(default)s)"
  )


def run(args):
  if args.rows < 1 or args.first < 0 or args.seed < 0:
    raise ValueError(
      f"--rows={args.rows} --first={args.first} --seed={args.seed}: expected --rows of at least 1, "
      "--first and --seed of at least 0"
    )
  paths = [os.path.join(args.out, name) for name in _NAMES]
  for path in paths:
    if os.path.lexists(path):
      raise ValueError(f"{path} exists; give another --out, or move it away")
  os.makedirs(args.out, exist_ok=True)
  for path, sheet in zip(paths, (_contact_sheet(args), _truth_sheet(args)), strict=True):
    picture_file.write(path, sheet, quality=_QUALITY)
    print(path)


def _contact_sheet(args):
  pictures, titles, texts = [], [], []
  for pid in range(args.first, args.first + args.rows):
    cameras = draw.camids_of(args.seed, pid)[: camera.CAMERAS_PER_SITE]
    records = [
      draw.draw_person(args.seed, pid * draw.PICTURES_PER_PERSON + k, (224, 112)) for k in np.argsort(cameras)
    ]
    pictures.append([record["image"] for record in records])
    titles.append(f"person {pid} at place {cameras[0] // camera.CAMERAS_PER_SITE + 1}")
    texts.append(records[0]["captions"])
  columns = [f"camera {k + 1}" for k in range(camera.CAMERAS_PER_SITE)]
  return people.contact_sheet(pictures, titles, texts, columns)


def _truth_sheet(args):
  first = args.first + args.rows  # these people are not on the first sheet
  indices = [
    pid * draw.PICTURES_PER_PERSON + pid % draw.PICTURES_PER_PERSON for pid in range(first, first + 9)
  ]
  records = [draw.draw_person(args.seed, index, (288, 144)) for index in indices]
  return people.truth_sheet(records, anatomy.PARTS)

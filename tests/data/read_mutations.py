"""Reads damaged files of one kind. The test `test_mutations` starts this program.

  python -m tests.data.read_mutations KIND COUNT FOLDER

It prints one line of JSON. A crash, or more than ten seconds of computing for one file, ends the process by a
signal. The last line on stderr then names the file.
"""

import functools
import itertools
import json
import pathlib
import signal
import sys
import time

import absl.logging
from PIL import Image

from hap_jax.cli import __main__ as cli
from hap_jax.data import pack
from hap_jax.data.sources import base, coco_persons, coco_pose, tfds
from hap_jax.io import mat_file, picture_header, picture_orientation
from tests.data import mutations_coco, mutations_packed, mutations_pictures, tiny_sources
from tests.io import mutations_mat
from tests.io.test_picture_header import claiming

_SECONDS = 10  # limit of computing time for one file


def mat_files(count, folder):
  path = folder / "annotation.mat"
  for number, data in enumerate(mutations_mat.cases(count, seed=0)):
    path.write_bytes(data)
    yield f"file {number}", lambda: mat_file.load(str(path))


def coco_files(count, folder):
  (folder / "below").mkdir()
  for name in ("one.jpg", "below/two.jpg"):
    Image.new("RGB", (60, 80)).save(folder / name)
  path = folder / "people.json"
  for number, data in enumerate(mutations_coco.cases(count, seed=0)):
    path.write_bytes(data)
    yield f"file {number}", functools.partial(_read_people, str(folder), is_whole=number % 2)


def _read_people(root, is_whole):
  """Reads an annotation file as people on whole pictures, or as people that are cut out."""
  if is_whole:
    options = {"val_annotations": "people.json", "val_images": "."}
    source = coco_pose.open_source(root=root, split="val", seed=0, **options)
    _read_all(source)
    source.truth()
  else:
    _read_all(coco_persons.open_source(root=root, split="train", seed=0, annotations="people.json"))


def pictures(count, folder):
  for name, data in mutations_pictures.cases(count, seed=0):
    yield name, lambda data=data, name=name: _decode(data, name)


def claimed_sizes(count, folder):
  """Yields pictures of a few hundred bytes whose headers state a size above the limit."""
  kinds = itertools.product(("JPEG", "PNG", "BMP"), (60_000, 30_000))
  files = [(f"{kind} {side}", claiming(kind, side, side)) for kind, side in kinds]
  files.append(("WebP", claiming("WebP, lossy", 16_383, 16_383)))
  for name, data in files[:count]:
    yield name, lambda data=data, name=name: _decode(data, name)


def packed_data_sets(count, folder):
  words = ("--num_train=8", "--num_val=2", "--num_test=3", "--image_size=32x16", f"--out={folder / 'people'}")
  assert cli.main(["prepare", "synthetic", "--format=tfds", *words]) == 0
  pack.write_dataset(folder / "texts", {"train": tiny_sources.Described(), "val": tiny_sources.Described(3)})
  work = folder / "work"
  work.mkdir()
  originals = {
    "people/hap_synthetic/1.0.0": ("train", "val", "test"),
    "texts/hap_described/1.0.0": ("train", "val"),
  }
  for original, splits in originals.items():
    _read_packed(folder / original, splits)  # imports take seconds, which must not be measured
    part = count // len(originals)
    for name, copy in mutations_packed.cases(str(folder / original), str(work), part, 0):
      yield f"{original}, {name}", lambda copy=copy, splits=splits: _read_packed(copy, splits)


def _read_all(source):
  """Reads every record of a source. Continues after a bad record."""
  for index in range(len(source)):
    assert source.name(index)
    try:
      source[index]
    except base.BadRecordError as error:
      _check(error)


def _check(error):
  """Checks that an error is one line and is not a UnicodeError of Python, which names no file."""
  assert not isinstance(error, UnicodeError), error
  assert "\n" not in str(error), error


def _read_packed(folder, splits):
  for split in splits:
    source = tfds.open_source(root=str(folder), split=split, seed=0)
    for column in source.columns.values():
      assert len(column.tolist()) == len(source)
    for index in range(len(source)):
      assert source.name(index) is not None
      source[index]


def _decode(data, name):
  orientation = picture_orientation.read_orientation(data)
  image = base.decode_image(data, name)
  assert image.shape == (*picture_header.read_header(data)[:2], 3)
  upright = picture_orientation.turn_upright(image, orientation)
  assert upright.shape == (image.shape if orientation < 5 else (*image.shape[1::-1], 3))


def _peak_memory():
  """Returns the largest memory of this process in MiB."""
  # ru_maxrss is not used, because it may include the memory of the parent process.
  status = pathlib.Path("/proc/self/status").read_text()
  return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) // 1024


def main(kind, count, folder):
  absl.logging.set_verbosity("fatal")
  signal.signal(signal.SIGPROF, signal.SIG_DFL)
  found, start = {"read": 0, "refused": 0}, time.process_time()
  for name, read in KINDS[kind](int(count), pathlib.Path(folder)):
    print(ascii(name), file=sys.stderr, flush=True)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
      read()
      found["read"] += 1
    except (ValueError, OSError) as error:
      _check(error)
      found["refused"] += 1
    signal.setitimer(signal.ITIMER_PROF, 0)
  print(json.dumps({**found, "MiB": _peak_memory(), "seconds": time.process_time() - start}))


KINDS = {kind.__name__: kind for kind in (mat_files, coco_files, pictures, claimed_sizes, packed_data_sets)}

if __name__ == "__main__":
  main(*sys.argv[1:])

"""Times the input of pre-training, one line of JSON: taskset -c 0 python -m hap_jax.bench.input_speed.

People are drawn as JPEG files (quality 95, colours at half resolution, as cameras write them), packed as
`prepare` packs a data set, and read back by the loader of pre-training: ArrayRecord, decode, random crop,
bicubic resize, mirror, joints, batches of uint8. --root reads a data set that was packed before instead.
Processor time of one process, without workers, so one core is what it measures.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import re
import statistics
import tempfile
import time

import cv2
import grain
import numpy as np
import simplejpeg

from hap_jax.data import pack
from hap_jax.data.loader import Loader
from hap_jax.data.samplers import ShuffledEpochs
from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources import base, tfds
from hap_jax.data.synthetic import draw
from hap_jax.data.transforms.canvas import CropOnDevice
from hap_jax.data.transforms.image import RandomResizedCrop


def parse_size(text):
  """Reads "256x128" as (256, 128): height, width."""
  match = re.fullmatch(r"(\d+)x(\d+)", text)
  if match is None:
    raise argparse.ArgumentTypeError(f"{text!r} is no size such as 256x128, height x width")
  return int(match[1]), int(match[2])


def parse_args(argv=None):
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--root", default="", help="a packed data set, in place of drawn people")
  parser.add_argument("--split", default="train")
  parser.add_argument("--images", type=int, default=192, help="people that are drawn")
  parser.add_argument("--picture", type=parse_size, default=(380, 160), metavar="HxW", help="their pictures")
  parser.add_argument("--quality", type=int, default=95, help="of their JPEG files")
  parser.add_argument("--size", type=parse_size, default=(256, 128), metavar="HxW", help="of the result")
  parser.add_argument("--augment", choices=("host", "device"), default="host", help="where pixels are warped")
  parser.add_argument("--canvas", type=parse_size, default=(400, 200), metavar="HxW", help="with device")
  parser.add_argument("--batch", type=int, default=64)
  parser.add_argument("--rounds", type=int, default=15, help="of all parts in turn, an epoch each")
  return parser.parse_args(argv)


@dataclasses.dataclass(frozen=True)
class DrawnFiles:
  """Drawn people whose pictures are JPEG files in `folder`."""

  folder: pathlib.Path
  records: tuple[dict, ...]

  spec = base.SourceSpec("drawn", COCO17, "Apache-2.0 (made by this project)")

  @classmethod
  def make(cls, folder, num_images, size, quality):
    """Draws the people and writes their files."""
    records = []
    for i in range(num_images):
      drawn = draw.draw_person(0, i, size)
      data = cv2.imencode(
        ".jpg", cv2.cvtColor(drawn["image"], cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, quality)
      )[1]
      (folder / f"{i}.jpg").write_bytes(data)
      records.append({name: drawn[name] for name in cls.spec.fields})
    return cls(folder, tuple(records))

  def __len__(self):
    return len(self.records)

  def __getitem__(self, i):
    return self.records[i]

  def name(self, i):
    return str(self.folder / f"{i}.jpg")

  def file(self, i):
    return self.name(i)


def make_loader(args, source):
  """Makes the loader of pre-training over a packed source."""
  crop = RandomResizedCrop(args.size, flip_prob=0.5)
  transform = CropOnDevice(crop, args.canvas) if args.augment == "device" else crop
  sampler = ShuffledEpochs(len(source), args.batch, seed=0)
  added = getattr(transform, "adds", ())
  fields = ("image", "keypoints_xy", "keypoints_visible", *added)
  return Loader(source, (transform,), sampler, seed=0, fields=fields)


def make_parts(loader):
  """Makes the parts that are timed, each contained in the next: {name: (function of an epoch, pictures)}."""
  source, steps = loader.source, loader.nominal_steps
  count = steps * loader.sampler.batch_size
  data = [source.read_bytes(i) for i in range(min(count, len(source)))]

  def decode(epoch):
    del epoch
    for i, jpeg in enumerate(data):
      base.decode_image(jpeg, str(i))

  def record(epoch):
    for step in range(epoch * steps, (epoch + 1) * steps):
      for i in loader.sampler.indices(step):
        source[int(i)]

  def batch(epoch):
    for step in range(epoch * steps, (epoch + 1) * steps):
      loader.read_batch(step)

  def through_grain(epoch):
    with loader.iterate(epoch * steps, (epoch + 1) * steps) as batches:
      for _ in batches:
        pass

  parts = {"decode": decode, "record": record, "batch": batch, "grain": through_grain}
  return {name: (part, len(data) if part is decode else count) for name, part in parts.items()}


def time_parts(parts, rounds):
  """Returns {name: [seconds of this process's processor time a picture, one a round]}."""
  for part, _ in parts.values():
    part(0)
  times = {name: [] for name in parts}
  for epoch in range(1, rounds + 1):
    for name, (part, count) in parts.items():
      start = time.process_time()
      part(epoch)
      times[name].append((time.process_time() - start) / count)
  return times


def measure(args):
  """Draws, packs, times; returns what is printed."""
  cv2.setNumThreads(1)
  with tempfile.TemporaryDirectory() as folder:
    root = args.root
    if not root:
      files = pathlib.Path(folder) / "files"
      files.mkdir()
      root = pathlib.Path(folder) / "packed"
      pack.write_dataset(root, {args.split: DrawnFiles.make(files, args.images, args.picture, args.quality)})
    source = tfds.open_source(root=str(root), split=args.split, seed=0)
    loader = make_loader(args, source)
    num_bytes = statistics.mean(len(source.read_bytes(i)) for i in range(min(len(source), args.images)))
    load = os.getloadavg()[0]
    times = time_parts(make_parts(loader), args.rounds)
  median = {name: statistics.median(values) for name, values in times.items()}
  best = {name: min(values) for name, values in times.items()}
  # Round by round, because a busy machine weighs on both parts of a round.
  share = statistics.median(1 - b / g for b, g in zip(times["batch"], times["grain"], strict=True))
  return {
    "bench": "input_speed",
    "images_per_cpu_s": round(1 / median["grain"]),
    "images_per_cpu_s_best_round": round(1 / best["grain"]),
    "images_per_cpu_s_without_grain": round(1 / median["batch"]),
    "images_per_cpu_s_decode_only": round(1 / median["decode"]),
    "grain_share": round(share, 3),
    # What each part adds to the one before it.
    "microseconds": {
      "decode": round(1e6 * median["decode"], 1),
      "read_and_parse": round(1e6 * (median["record"] - median["decode"]), 1),
      "crop_resize_flip_joints_batch": round(1e6 * (median["batch"] - median["record"]), 1),
      "grain": round(1e6 * (median["grain"] - median["batch"]), 1),
    },
    "jpeg_kilobytes": round(num_bytes / 1000, 1),
    "picture": None if args.root else args.picture,
    "size": args.size,
    "augment": args.augment,
    "canvas": args.canvas if args.augment == "device" else None,
    "batch": args.batch,
    "rounds": args.rounds,
    "load": round(load, 2),
    "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    "versions": {
      "python": platform.python_version(),
      "numpy": np.__version__,
      "opencv": cv2.__version__,
      "simplejpeg": simplejpeg.__version__,
      "grain": grain.__version__,
    },
  }


def main(argv=None):
  print(json.dumps(measure(parse_args(argv))))


if __name__ == "__main__":
  main()

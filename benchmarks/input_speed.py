"""Times the input of pre-training and prints one line of JSON: taskset -c 0 python -m benchmarks.input_speed.

The benchmark draws synthetic people and writes JPEG files (quality 95, colours at half resolution, like the
files of a camera). It packs the files in the same way as `prepare`. The loader of pre-training then reads
them: ArrayRecord, decode, random crop, bicubic resize, mirror, joints, batches of uint8. With --root the
loader reads an existing packed data set. The benchmark measures the processor time of one process without
workers, so the result is the speed of one core.
"""

import dataclasses
import pathlib
import statistics
import tempfile

from benchmarks import measure
from hap_jax.data import pack, worker_process
from hap_jax.data.loader import Loader
from hap_jax.data.samplers import ShuffledEpochs
from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources import base, tfds
from hap_jax.data.transforms.canvas import CropOnDevice
from hap_jax.data.transforms.image import RandomResizedCrop
from hap_jax.io import picture_file
from hap_jax.synthetic import draw


def parse_args(argv=None):
  """Reads the command line."""
  parser = measure.make_parser(__doc__)
  parser.add_argument("--root", default="", help="folder of a packed data set; default: synthetic people")
  parser.add_argument("--split", default="train")
  parser.add_argument("--images", type=int, default=192, help="number of pictures to draw")
  parser.add_argument(
    "--picture", type=measure.parse_size, default=(380, 160), metavar="HxW", help="size of drawn pictures"
  )
  parser.add_argument("--quality", type=int, default=95, help="JPEG quality of drawn pictures")
  parser.add_argument(
    "--size", type=measure.parse_size, default=(256, 128), metavar="HxW", help="size of the result"
  )
  parser.add_argument(
    "--augment", choices=("host", "device"), default="host", help="where pictures are cropped and resized"
  )
  parser.add_argument(
    "--canvas",
    type=measure.parse_size,
    default=(400, 200),
    metavar="HxW",
    help="size of the canvas for --augment=device",
  )
  parser.add_argument("--batch", type=int, default=64)
  parser.add_argument("--steps", type=int, default=24, help="batches per round")
  parser.add_argument("--rounds", type=int, default=7, help="timed rounds; each runs all parts in turn")
  return parser.parse_args(argv)


@dataclasses.dataclass(frozen=True)
class DrawnFiles:
  """A source of synthetic people. Their pictures are JPEG files in `folder`."""

  folder: pathlib.Path
  records: tuple[dict, ...]

  spec = base.SourceSpec("drawn", COCO17, "Apache-2.0 (made by this project)")

  @classmethod
  def make(cls, folder, num_images, size, quality):
    """Draws the people and writes their files."""
    records = []
    for i in range(num_images):
      drawn = draw.draw_person(0, i, size)
      data = picture_file.encode_jpeg(drawn["image"], quality, half_colors=True)
      (folder / f"{i}.jpg").write_bytes(data)
      records.append({name: drawn[name] for name in cls.spec.fields})
    return cls(folder, tuple(records))

  def __len__(self):
    return len(self.records)

  def __getitem__(self, i):
    return self.records[i]

  @property
  def columns(self):
    return {}

  def name(self, i):
    return str(self.folder / f"{i}.jpg")

  def file(self, i):
    return self.name(i)


def make_loader(args, source):
  """Returns the loader of pre-training for a packed source."""
  crop = RandomResizedCrop(args.size, flip_prob=0.5)
  transform = CropOnDevice(crop, args.canvas) if args.augment == "device" else crop
  sampler = ShuffledEpochs(len(source), args.batch, seed=0)
  added = getattr(transform, "adds", ())
  fields = ("image", "keypoints_xy", "keypoints_visible", *added)
  return Loader(source, (transform,), sampler, seed=0, fields=fields)


def make_parts(loader, steps):
  """Returns the timed parts, {name: function(number of the round)}.

  Each part also does the work of the part before it. Each part reads `steps` batches. The last part opens an
  iterator in each round. A training run opens only one iterator.
  """
  source, B = loader.source, loader.sampler.batch_size
  data = [source.read_bytes(i) for i in range(len(source))]  # in memory, so that `decode` includes no reading

  def steps_of(number):
    return range(number * steps, (number + 1) * steps)

  def decode(number):
    for i in range(number * steps * B, (number + 1) * steps * B):
      base.decode_image(data[i % len(data)], "picture")

  def record(number):
    for step in steps_of(number):
      for i in loader.sampler.indices(step):
        source[int(i)]

  def batch(number):
    for step in steps_of(number):
      loader.read_batch(step)

  def through_grain(number):
    with loader.iterate(number * steps, (number + 1) * steps) as batches:
      for _ in batches:
        pass

  return {"decode": decode, "record": record, "batch": batch, "grain": through_grain}


def run_bench(args):
  """Draws and packs people, and times the parts. Returns the line to print."""
  worker_process.prepare_reading()  # the same settings as in a worker
  with tempfile.TemporaryDirectory() as folder:
    root = args.root
    if not root:
      files = pathlib.Path(folder) / "files"
      files.mkdir()
      root = pathlib.Path(folder) / "packed"
      pack.write_dataset(root, {args.split: DrawnFiles.make(files, args.images, args.picture, args.quality)})
    source = tfds.open_source(root=str(root), split=args.split, seed=0)
    parts = make_parts(make_loader(args, source), args.steps)
    times = measure.time_in_turn(parts, warmup=1, repeats=args.rounds, per=args.steps * args.batch)
    num_bytes = statistics.mean(len(source.read_bytes(i)) for i in range(min(len(source), 1000)))
  found = describe({name: [cpu for cpu, _ in rounds] for name, rounds in times.items()}) | {
    "jpeg_kilobytes": round(num_bytes / 1000, 1),
    "picture": None if args.root else args.picture,
    "size": args.size,
    "augment": args.augment,
    "canvas": args.canvas if args.augment == "device" else None,
    "batch": args.batch,
    "rounds": args.rounds,
  }
  packages = ("numpy", "opencv-python-headless", "simplejpeg", "grain", "array_record")
  return measure.line("input_speed", found, *packages)


def describe(times):
  """Returns the speeds to print. `times`: {part: [CPU seconds per picture, one number per round]}."""
  median = {name: statistics.median(values) for name, values in times.items()}
  # Times of the same round are subtracted, because other work on the machine slows both parts of a round.
  added = {
    "decode": median["decode"],
    "read_and_parse": _difference(times["record"], times["decode"]),
    "crop_resize_flip_joints_batch": _difference(times["batch"], times["record"]),
    "grain": _difference(times["grain"], times["batch"]),
  }
  return {
    "images_per_cpu_s": round(1 / median["grain"]),
    "images_per_cpu_s_best_round": round(1 / min(times["grain"])),
    "images_per_cpu_s_without_grain": round(1 / median["batch"]),
    "images_per_cpu_s_without_grain_best_round": round(1 / min(times["batch"])),
    "images_per_cpu_s_decode_only": round(1 / median["decode"]),
    "grain_share": round(added["grain"] / median["grain"], 3),
    "microseconds": {name: round(1e6 * value, 1) for name, value in added.items()},
  }


def _difference(whole, part):
  return statistics.median(a - b for a, b in zip(whole, part, strict=True))


def main(argv=None):
  measure.show(run_bench(parse_args(argv)))


if __name__ == "__main__":
  main()

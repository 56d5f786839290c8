"""Times the drawing of people on one core, one line of JSON: python -m benchmarks.synthetic_people."""

import argparse
import json
import statistics

from benchmarks import measure
from hap_jax.synthetic import draw


def parse_args(argv=None):
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--height", type=int, default=256)
  parser.add_argument("--width", type=int, default=128)
  parser.add_argument("--images", type=int, default=200, help="pictures a repeat, other ones each time")
  parser.add_argument("--repeats", type=int, default=7)
  return parser.parse_args(argv)


def draw_many(start, stop, size):
  """Draws one picture after the other and keeps none."""
  for index in range(start, stop):
    draw.draw_person(0, index, size)


def time_drawing(args):
  """Draws one picture after the other in this process and returns what is printed."""
  size = (args.height, args.width)
  # What is drawn once and kept: passers-by, surroundings of the cameras.
  for index in range(0, 2 * args.images, draw.PICTURES_PER_PERSON + 1):
    draw.draw_person(0, index, size)
  machine, warm = measure.machine(), measure.peak_bytes()  # its load before this adds to it
  rates = []
  for repeat in range(args.repeats):
    _, cpu, _ = measure.timed(draw_many, repeat * args.images, (repeat + 1) * args.images, size)
    rates.append(args.images / cpu)
  return {
    "bench": "synthetic_people",
    "images_per_cpu_s": round(max(rates), 1),
    "images_per_cpu_s_median": round(statistics.median(rates), 1),
    "height": args.height,
    "width": args.width,
    "images": args.images,
    "repeats": args.repeats,
    "peak_mib": round(measure.peak_bytes() / 2**20),
    "grown_mib": round((measure.peak_bytes() - warm) / 2**20, 1),
    "machine": machine,
    "versions": measure.versions("numpy", "opencv-python-headless"),
  }


def main(argv=None):
  print(json.dumps(time_drawing(parse_args(argv))))


if __name__ == "__main__":
  main()

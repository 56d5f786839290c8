"""Times the drawing of people on one core, one line of JSON: python -m hap_jax.bench.synthetic_people."""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time

import cv2
import numpy as np

from hap_jax.data.synthetic import draw


def parse_args(argv=None):
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--height", type=int, default=256)
  parser.add_argument("--width", type=int, default=128)
  parser.add_argument("--images", type=int, default=200, help="pictures a repeat, other ones each time")
  parser.add_argument("--repeats", type=int, default=7)
  return parser.parse_args(argv)


def peak_bytes():
  """Largest memory of this process so far."""
  # Kilobytes on Linux, bytes on macOS.
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(args):
  """Draws one picture after the other in this process and returns what is printed."""
  size = (args.height, args.width)
  # What is drawn once and kept: passers-by, surroundings of the cameras.
  for index in range(0, 2 * args.images, draw.PICTURES_PER_PERSON + 1):
    draw.draw_person(0, index, size)
  load, warm = os.getloadavg()[0], peak_bytes()
  rates = []
  for repeat in range(args.repeats):
    start = time.process_time()
    for index in range(repeat * args.images, (repeat + 1) * args.images):
      draw.draw_person(0, index, size)
    rates.append(args.images / (time.process_time() - start))
  return {
    "bench": "synthetic_people",
    "images_per_cpu_s": round(max(rates), 1),
    "images_per_cpu_s_median": round(statistics.median(rates), 1),
    "height": args.height,
    "width": args.width,
    "images": args.images,
    "repeats": args.repeats,
    "peak_mib": round(peak_bytes() / 2**20),
    "grown_mib": round((peak_bytes() - warm) / 2**20, 1),
    "processors": os.cpu_count(),
    "load": round(load, 1),
    "versions": {
      "python": platform.python_version(),
      "numpy": np.__version__,
      "opencv": cv2.__version__,
    },
  }


def main(argv=None):
  print(json.dumps(measure(parse_args(argv))))


if __name__ == "__main__":
  main()

"""Print the box of the person in one picture."""

import json
import pathlib

import numpy as np

from hap_jax.convert import read
from hap_jax.data.sources import folder
from hap_jax.data.transforms.reid import ResizeBicubic
from tests.tasks.third.tasks import box


def add_arguments(parser):
  parser.add_argument("picture", help="picture of one person")


def run(args):
  weights, source = read.read(args.checkpoint), folder.open_file(args.picture)
  record = ResizeBicubic(size=weights.description.encoder.image_size)(source[0], None)
  constants = {"mean": np.array(weights.description.more["mean"], np.float32)}
  variables = {**weights.variables, "constants": constants}
  found, _ = box.make_forward(weights.description)(variables, {"image": record["image"][None]})
  pathlib.Path(args.out).mkdir()
  (pathlib.Path(args.out) / "box.json").write_text(json.dumps(np.asarray(found[0]).tolist()))

"""Times `hap extract_poses` and prints one line of JSON: python -m benchmarks.pose_extraction.

The benchmark draws people, writes JPEG files, and finds their joints with the network of the 2D pose demo,
with the mirrored pass. The weights of the network are random, because they do not change the time. The line
has pictures per second, with the time of compilation, and the share of the time after the first batch in
which the command waited for pictures. --model names another model, and --root another folder of pictures.
"""

import pathlib
import tempfile

import jax
import numpy as np

from benchmarks import measure
from configs import finetune_pose2d_demo
from hap_jax import config as config_lib
from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources import folder
from hap_jax.inference import extract_poses, pose_models, posed_pictures
from hap_jax.io import checkpoint_file, picture_file
from hap_jax.synthetic import draw
from hap_jax.tasks import base, pose2d


def parse_args(argv=None):
  """Reads the command line."""
  parser = measure.make_parser(__doc__)
  parser.add_argument("--model", default="", help="model; default: the network of the 2D pose demo")
  parser.add_argument("--root", default="", help="folder of pictures; default: drawn people")
  parser.add_argument("--images", type=int, default=256, help="number of drawn pictures")
  parser.add_argument("--copies", type=int, default=8, help="files per drawn picture")
  parser.add_argument(
    "--picture", type=measure.parse_size, default=(256, 128), metavar="HxW", help="size of drawn pictures"
  )
  parser.add_argument("--batch", type=int, default=64)
  parser.add_argument("--workers", type=int, default=0)
  parser.add_argument("--no_flip", action="store_true")
  return parser.parse_args(argv)


def write_pictures(root, args):
  """Draws people and writes their files."""
  root.mkdir()
  for i in range(args.images):
    data = picture_file.encode_jpeg(draw.draw_person(0, i, args.picture)["image"], half_colors=True)
    for copy in range(args.copies):
      (root / f"{i}-{copy}.jpg").write_bytes(data)


def write_model(path):
  """Writes a checkpoint of the network of the 2D pose demo with random weights."""
  description = pose2d.describe(config_lib.finalize(finetune_pose2d_demo.get_config()), [COCO17])
  variables = jax.jit(base.make_init(pose2d.network(description), train=False, head=None))(jax.random.key(0))
  checkpoint_file.write(path, jax.tree.map(np.asarray, variables), description.to_json())


def run(args, scratch):
  """Finds the joints of all pictures. Returns {name: result}."""
  root, model_path = pathlib.Path(args.root or scratch / "pictures"), args.model or scratch / "model"
  if not args.root:
    write_pictures(root, args)
  if not args.model:
    write_model(model_path)
  model = pose_models.load(model_path, flip_test=not args.no_flip)
  pictures = posed_pictures.of_source(folder.open_source(root=root), str(root))
  settings = extract_poses.Settings(1.25, not args.no_flip, None, args.batch)
  options = {"workers": args.workers, "say": lambda line: None}
  waiting, cpu, wall = measure.timed(
    lambda: extract_poses.extract(model, pictures, scratch / "poses", settings, **options)
  )
  return {
    "pictures": len(pictures),
    "batch": args.batch,
    "workers": args.workers,
    "flip_test": not args.no_flip,
    "waiting_share": measure.digits(waiting, 3),
    "pictures_per_second": measure.digits(len(pictures) / wall, 4),
    "cpu_seconds_per_picture": measure.digits(cpu / len(pictures), 3),
  }


def main(argv=None):
  args = parse_args(argv)
  with tempfile.TemporaryDirectory() as scratch:
    found = run(args, pathlib.Path(scratch))
  measure.show(measure.line("pose_extraction", found, "jax", "opencv-python-headless"))


if __name__ == "__main__":
  main()

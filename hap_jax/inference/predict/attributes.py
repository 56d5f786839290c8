"""Label the pictures of a folder with attributes; writes a JSON file and a sheet of the first pictures."""

import json
import pathlib

import numpy as np

from hap_jax import sharding
from hap_jax.convert import read as reading
from hap_jax.data.pipeline import Reading
from hap_jax.data.sources import folder
from hap_jax.data.transforms.attributes import ResizeBilinear
from hap_jax.evaluation.evaluate import EvalSplit, make_pass
from hap_jax.inference import gallery
from hap_jax.io import picture_file, unfinished
from hap_jax.io.progress import SILENT, Progress
from hap_jax.tasks import attributes
from hap_jax.viz import attributes as viz

_SHOWN, _LINES = 24, 6  # number of pictures in the sheet, number of attributes below each picture


def add_arguments(parser):
  gallery.add_arguments(
    parser,
    pictures="folder of pictures to label, including sub-folders; with --gallery: picture of the person",
    gallery="folder of pictures to search with the encoder's tokens; then no labels are written",
    required=False,
  )


def run(args):
  """Labels every picture of the folder `args.pictures`, or ranks a gallery."""
  if args.gallery is not None:
    gallery.run(args)
    return
  with Progress("predict") as progress:
    progress.stage("reading the checkpoint")
    weights = reading.read(args.checkpoint, selection=args.selection)
    names = attribute_names(args.checkpoint, weights.description)
    source = folder.open_source(root=args.pictures, exif=args.exif)
    progress.begin(len(source), "pictures")
    found = predict(
      args.checkpoint,
      weights,
      source,
      batch_size=args.batch_size,
      workers=args.workers,
      progress=progress,
    )
  entries = [
    {
      "file": file,
      "present": [name for name, p in zip(names, row, strict=True) if p > 0.5],
      "probability": {name: round(float(p), 4) for name, p in zip(names, row, strict=True)},
    }
    for file, row in zip(source.paths, found, strict=True)
  ]
  content = {
    "checkpoint": args.checkpoint,
    "folder": args.pictures,
    "exif": args.exif,
    "attributes": list(names),
    "pictures": entries,
  }
  with unfinished.new_folder(pathlib.Path(args.out)) as out:
    (out / "attributes.json").write_text(json.dumps(content, indent=2) + "\n")
    picture_file.write(out / "attributes.png", draw_sheet(source, found, names))
  for entry in entries:
    print(f"{entry['file']}  {', '.join(entry['present']) or 'none'}")
  print(f"written: {args.out}")


def attribute_names(path, description):
  """Returns the attribute names of a checkpoint.

  Raises:
    ValueError: if the checkpoint does not record one name per attribute.
  """
  count = attributes.network(description).num_attributes
  names = tuple(description.classes.get("attribute_names", ()))
  if len(names) != count:
    raise ValueError(
      f"{path}: {count} attributes and {len(names)} recorded names; expected one name per attribute, or a "
      "model with the 26, 51 or 35 attributes of the official models"
    )
  return names


def predict(path, weights, source, *, batch_size, workers=0, progress=SILENT):
  """Returns [N, A] float32, the probability of each attribute in each of the N pictures of a source.

  Args:
    path: path of the checkpoint, for error messages.
    weights: `convert.weights.Weights` of this task.
    source: the source of the pictures.
    batch_size: pictures per batch.
    workers: number of processes that read pictures.
    progress: a started `Progress` that counts the pictures.
  Raises:
    ValueError: if the grid or the number of heads of the weights is unknown, or a picture cannot be read.
  """
  if weights.grid is None or weights.num_heads is None:
    raise ValueError(
      f"{path}: its grid or number of heads is unknown: convert it first with hap convert "
      "--source_grid=HxW --num_heads=N"
    )
  mesh = sharding.make_mesh()
  sharding.check_batch_size(batch_size, mesh, "--batch_size")
  # No picture may be skipped, because every picture must get labels.
  reading_all = Reading(workers=workers, max_bad_share=0.0, bad_share_key="")
  resize = ResizeBilinear(size=weights.description.encoder.image_size)
  loader = reading_all.ordered(source, (resize,), batch_size)
  split = EvalSplit(loader, attributes.make_predict(weights.description))
  variables = sharding.put_replicated(weights.variables, mesh)
  return make_pass(split, mesh)(variables, progress=progress)["probability"]


def draw_sheet(source, found, names):
  """Returns a sheet [H, W, 3] uint8 of the first pictures with their most probable attributes."""
  texts = []
  for row in found[:_SHOWN]:
    most = np.argsort(-row, kind="stable")[:_LINES]
    texts.append([f"{names[a]} {row[a]:.2f}" for a in most if row[a] > 0.5])
  return viz.labelled_sheet([source[i]["image"] for i in range(len(texts))], texts)

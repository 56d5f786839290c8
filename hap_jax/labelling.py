"""Labels pictures with a checkpoint that was fine-tuned for attributes."""

import json
import pathlib

import jax
import numpy as np

from hap_jax import sharding
from hap_jax.data.sources import folder as folders
from hap_jax.data.transforms.attributes import ResizeBilinear
from hap_jax.io import picture_file
from hap_jax.models import pixels, vit
from hap_jax.tasks import attributes
from hap_jax.train import probe
from hap_jax.train.evaluate import EvalSplit, make_pass
from hap_jax.viz import attributes as viz

_SHOWN, _LINES = 24, 6  # pictures in the sheet, attributes beneath each


def attribute_names(path, weights):
  """Returns the names of a checkpoint's attributes: recorded ones, or those that its family knows.

  Raises:
    ValueError: if it records none and has another number of attributes than the official models.
  """
  description = weights.description
  count, names = description.network["num_attributes"], tuple(description.classes.get("attribute_names", ()))
  if len(names) != count:
    raise ValueError(
      f"{path}: {count} attributes and {len(names)} recorded names; expected a name each, or the 26, "
      "51 or 35 of the official models"
    )
  return names


def predict(path, weights, source, *, batch_size, workers=0):
  """Returns [N, A] float32, the probability of each attribute in a source's N pictures.

  Args:
    path: of the checkpoint, for messages. weights: `convert.weights.Weights` for attributes.
  Raises:
    ValueError: if the grid or the heads of the weights are not known, or a picture cannot be read.
  """
  if weights.grid is None or weights.num_heads is None:
    raise ValueError(f"{path}: its grid or number of heads is unknown: convert it first, with both given")
  mesh = sharding.make_mesh()
  sharding.check_batch_size(batch_size, mesh, "--batch_size")
  image_size = weights.description.encoder.image_size
  model = attributes.network(weights.description, vit.Compute(scan=False))
  mean, std = (weights.normalization[key] for key in ("mean", "std"))
  loader = probe.picture_pass(
    source,
    image_size=image_size,
    batch_size=batch_size,
    workers=workers,
    max_bad_share=0.0,  # whoever has a folder labelled wants all of it labelled
    resize=ResizeBilinear,
  )

  def probability(variables, batch):
    logits = model.apply(variables, pixels.normalize(batch["image"], mean, std))
    return {"probability": jax.nn.sigmoid(logits)}

  variables = sharding.put_replicated(weights.variables, mesh)
  return make_pass(EvalSplit(loader, probability), mesh)(variables)["probability"]


def label(path, weights, folder, out, *, batch_size, workers=0, say=print):
  """Labels every picture of a folder; writes `attributes.json` and, of the first pictures, `attributes.png`.

  Args:
    path, weights, batch_size, workers: see `predict`. folder: of pictures, sub-folders too. out: to make.
    say: prints a line.
  Returns:
    [N, A] float32 probabilities.
  Raises:
    ValueError: as `attribute_names` and `predict`.
  """
  names = attribute_names(path, weights)
  source = folders.open_source(root=folder)
  found = predict(path, weights, source, batch_size=batch_size, workers=workers)
  labels = [
    {
      "file": file,
      "present": [name for name, p in zip(names, row, strict=True) if p > 0.5],
      "probability": {name: round(float(p), 4) for name, p in zip(names, row, strict=True)},
    }
    for file, row in zip(source.paths, found, strict=True)
  ]
  texts = []
  for row in found[:_SHOWN]:
    most = np.argsort(-row, kind="stable")[:_LINES]
    texts.append([f"{names[a]} {row[a]:.2f}" for a in most if row[a] > 0.5])
  sheet = viz.labelled_sheet([source[i]["image"] for i in range(len(texts))], texts)
  out = pathlib.Path(out)
  out.mkdir(parents=True)
  told = {"checkpoint": str(path), "folder": str(folder), "attributes": list(names), "pictures": labels}
  (out / "attributes.json").write_text(json.dumps(told, indent=2) + "\n")
  picture_file.write(out / "attributes.png", sheet)
  for entry in labels:
    say(f"{entry['file']}  {', '.join(entry['present']) or 'none'}")
  say(f"written: {out}")
  return found

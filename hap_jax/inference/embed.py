"""Computes one vector per picture: the trained embedding of a checkpoint, or pooled tokens if it has none."""

import dataclasses
from collections.abc import Callable
from typing import Any

from hap_jax import config as config_lib
from hap_jax import sharding
from hap_jax.convert import read as reading
from hap_jax.convert.selection import WHOLE
from hap_jax.data.pipeline import Reading
from hap_jax.data.sources.base import APPLY, EXIF
from hap_jax.data.transforms.reid import ResizeBicubic
from hap_jax.evaluation.evaluate import EvalSplit, make_pass
from hap_jax.inference import encoder as encoders
from hap_jax.io.progress import SILENT
from hap_jax.models import pooling, vit
from hap_jax.pixels.normalize import normalize

DEFAULT_POOLING = "mean"  # for checkpoints without a trained embedding


@dataclasses.dataclass(frozen=True)
class Extractor:
  """A frozen model that turns pictures into vectors.

  Attributes:
    extract: a pure function (variables, [B, H, W, 3] uint8 pictures) -> [B, D] float32 vectors with unit
      norm.
    variables: the variables of the model.
    image_size: (H, W) in pixels of the pictures that `extract` needs.
    kind: "embedding" (trained by the task of the checkpoint), or a kind of pooling, one of `pooling.KINDS`.
    description: the description of the checkpoint, plain JSON values.
  """

  extract: Callable
  variables: Any
  image_size: tuple[int, int]
  kind: str
  description: dict[str, Any]


def add_arguments(parser):
  """Adds --feature, --exif, --batch_size and --workers to the arguments of a command for pictures."""
  parser.add_argument(
    "--feature",
    default="",
    metavar="KIND",
    help="embedding (if the task of the checkpoint trains one) | mean (of the patch tokens) | "
    "cls (class token, if the encoder has one) | stripes (means of four horizontal stripes) "
    "(default: embedding if the checkpoint has one, else mean)",
  )
  parser.add_argument(
    "--exif",
    choices=EXIF,
    default=APPLY,
    help="apply: turn pictures as their EXIF headers say | ignore: use the stored pixels (default: apply)",
  )
  parser.add_argument("--batch_size", type=int, default=64, help="pictures per batch (default: %(default)s)")
  parser.add_argument("--workers", type=int, default=0, help="processes that read pictures (default: none)")


def load_extractor(path, kind="", selection=WHOLE):
  """Loads a checkpoint, or the part of it in a `Selection`, as an Extractor, see `make_extractor`."""
  return make_extractor(path, reading.read(path, selection=selection), kind)


def make_extractor(path, weights, kind=""):
  """Makes an Extractor.

  Args:
    path: path of the checkpoint, for error messages.
    weights: the `convert.weights.Weights` of the checkpoint.
    kind: "embedding", or one of `pooling.KINDS` for pooled tokens of the encoder. "": "embedding" if the
      task of the checkpoint trains an embedding, otherwise DEFAULT_POOLING.
  Raises:
    ValueError: if `kind` is unknown, or if the checkpoint has no embedding for "embedding" or no class token
      for "cls". Also if the grid or the number of heads of the encoder is unknown.
  """
  has_embedding = hasattr(config_lib.load("tasks", weights.task), "make_embed")
  if kind == "embedding" and not has_embedding:
    raise ValueError(
      f"{path} is a checkpoint for {weights.task} and has no embedding; set --feature to a kind of "
      f"pooling instead: {', '.join(pooling.KINDS)}"
    )
  if kind not in ("", "embedding", *pooling.KINDS):
    raise ValueError(f"feature {kind!r}: expected one of embedding, {', '.join(pooling.KINDS)}")
  if kind == "cls" and not weights.description.encoder.class_token:
    raise ValueError(
      f"{path} is a checkpoint for {weights.task} and its encoder has no class token; set --feature to "
      "another kind of pooling instead: mean, stripes"
    )
  kind = kind or ("embedding" if has_embedding else DEFAULT_POOLING)
  model, variables, description = encoders.build(path, weights)
  mean, std = (description["normalization"][key] for key in ("mean", "std"))
  image_size, grid = tuple(description["model"]["image_size"]), tuple(description["model"]["grid"])
  if kind == "embedding":
    variables = weights.variables
    extract = config_lib.load("tasks", weights.task).make_embed(weights.description, vit.Compute(scan=False))
  else:

    def extract(variables, images):
      latent = model.apply(variables, normalize(images, mean, std), method="latent")
      return pooling.pool(latent, grid, kind)

  return Extractor(extract, variables, image_size, kind, description)


def extract(extractor, source, *, batch_size, workers=0, max_bad_share=None, progress=SILENT):
  """Computes one vector for each picture of a source. Pictures are resized in the same way as in ReID.

  Args:
    extractor: an Extractor.
    source: a data source whose records have the field "image".
    batch_size: pictures per batch.
    workers: number of processes that read pictures.
    max_bad_share: largest allowed share of unreadable pictures (option --max_bad_share). They get no vector.
      None: every picture must be readable, because the command has no such option.
    progress: a started `Progress` that counts the pictures.
  Returns:
    (vectors [N, D] float32, record indices [N] in ascending order) of the N readable pictures.
  Raises:
    ValueError: if more pictures are unreadable than allowed. The message names the first three.
  """
  mesh = sharding.make_mesh()
  sharding.check_batch_size(batch_size, mesh, "--batch_size")
  key = "" if max_bad_share is None else "--max_bad_share"
  reading = Reading(workers=workers, max_bad_share=max_bad_share or 0.0, bad_share_key=key)
  loader = reading.ordered(source, (ResizeBicubic(size=extractor.image_size),), batch_size)

  def predict(variables, batch):
    return {"feature": extractor.extract(variables, batch["image"])}

  variables = sharding.put_replicated(extractor.variables, mesh)
  rows = make_pass(EvalSplit(loader, predict), mesh)(variables, progress=progress)
  return rows["feature"], rows["index"]

"""Probes the encoder of a checkpoint: retrieval with frozen features, in minutes."""

from hap_jax import config as config_lib
from hap_jax import loading, sharding
from hap_jax.models import pixels
from hap_jax.train import probe as probes
from hap_jax.train.evaluate import make_evaluate


def probe(path, *, source, root="", options=None, batch_size=256, workers=0, say=print):
  """Measures how well frozen features find persons again, for each kind of pooling.

  Args:
    path: a checkpoint that conversion reads. source: a file of `data/sources` with query and gallery.
    root: folder of the data set. options: of the source. batch_size: pictures at a time.
    workers: processes that read pictures. say: prints a line.
  Returns:
    {"mAP_cls": ..., "rank1_cls": ..., ..., "mAP_chance": ...}.
  Raises:
    ValueError: if the checkpoint or the data cannot be read.
  """
  mesh = sharding.make_mesh()
  sharding.check_batch_size(batch_size, mesh, "--batch_size")
  model, variables, description = loading.load(path)
  image_size, grid = description["model"]["image_size"], tuple(description["model"]["grid"])
  mean, std = (description["normalization"][key] for key in ("mean", "std"))
  loaders = {
    split: probes.picture_pass(
      config_lib.open_named_source(source, root=root, split=split, options=options or {}),
      image_size=image_size,
      batch_size=batch_size,
      workers=workers,
      max_bad_share=0.001,
    )
    for split in ("query", "gallery")
  }

  def encode(variables, images):
    return model.apply(variables, pixels.normalize(images, mean, std))

  evaluation = probes.make_evaluation(encode, grid, loaders)
  scores, _ = make_evaluate(evaluation, mesh)(sharding.put_replicated(variables, mesh))
  counts = " and ".join(f"{len(loader.source)} {split}" for split, loader in loaders.items())
  say(f"{source}: {counts} pictures at {image_size[0]}x{image_size[1]}; same-camera matches excluded")
  for name, value in scores.items():
    say(f"{name:13s}  {value:.4f}")
  return scores

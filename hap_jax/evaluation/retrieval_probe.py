"""Measures person retrieval with the features of a frozen encoder, without further training."""

from hap_jax.evaluation.evaluate import EvalSplit, Evaluation
from hap_jax.metrics import retrieval
from hap_jax.models import layers, pooling
from hap_jax.viz.curves import Guide, Mark


def identities(splits, query, gallery):
  """Returns the person and camera arguments of `retrieval.evaluate` for the predicted rows.

  Args:
    splits: {"query": rows, "gallery": rows}. The rows have the record indices as "index".
    query: source of the query pictures, with the columns pid and camid.
    gallery: source of the gallery pictures, with the same columns.
  """
  q, g = splits["query"]["index"], splits["gallery"]["index"]
  return {
    "query_pid": query.columns["pid"][q],
    "gallery_pid": gallery.columns["pid"][g],
    "query_camid": query.columns["camid"][q],
    "gallery_camid": gallery.columns["camid"][g],
  }


def chance_guide(query, gallery):
  """Returns the `Guide` of an mAP. Its baseline is the mAP of a gallery in random order.

  A run calls this function at its start. So the error below is raised at once, not at the first evaluation.

  Raises:
    ValueError: if no query has a match in the gallery.
  """
  pids, camids = ([side.columns[name] for side in (query, gallery)] for name in ("pid", "camid"))
  return Guide(baseline=Mark("chance", retrieval.chance_mean_ap(*pids, *camids)))


def make_encode(encoder, normalize):
  """Returns a function (variables, [B, H, W, 3] uint8 images) -> `vit.Latent` of all patches.

  Args:
    encoder: the `vit.ViT` of a network.
    normalize: a function from uint8 images to normalised float32 pixels.
  """

  def encode(variables, images):
    patches = layers.patchify(normalize(images), encoder.patch, encoder.patch_padding)
    return encoder.apply({"params": variables["params"]["encoder"]}, patches)

  return encode


def make_evaluation(encode, encoder, loaders):
  """Returns the Evaluation of the probe: mAP and rank-1 for each kind of pooling that the encoder supports.

  Matches by the same camera are excluded.

  Args:
    encode: (variables, [B, H, W, 3] uint8 pictures) -> `vit.Latent`.
    encoder: the `vit.ViT` that `encode` runs.
    loaders: {"query": Loader, "gallery": Loader} of sources with the columns pid and camid.
  Returns:
    Evaluation with splits "query" and "gallery" and scores "mAP_<kind>", "rank1_<kind>", "mAP_chance".
  Raises:
    ValueError: if no query has a match in the gallery.
  """
  kinds = pooling.kinds_of(encoder)
  query, gallery = loaders["query"].source, loaders["gallery"].source
  guide = chance_guide(query, gallery)

  def predict(variables, batch):
    latent = encode(variables, batch["image"])
    return {kind: pooling.pool(latent, encoder.grid, kind) for kind in kinds}

  def score(splits):
    persons = identities(splits, query, gallery)
    scores = {}
    for kind in kinds:
      result = retrieval.evaluate(splits["query"][kind], splits["gallery"][kind], **persons)
      scores |= {f"mAP_{kind}": result.mean_ap, f"rank1_{kind}": result.cmc[1]}
    return scores | {"mAP_chance": retrieval.chance_mean_ap(**persons)}

  return Evaluation(
    evals={name: EvalSplit(loader, predict) for name, loader in loaders.items()},
    score=score,
    guides={f"mAP_{kind}": guide for kind in kinds},
  )

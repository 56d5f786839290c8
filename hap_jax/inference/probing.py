"""Measures the frozen features of a checkpoint in minutes, by retrieval or by a linear classifier."""

import numpy as np

from hap_jax import config_sources, sharding
from hap_jax.convert import read as reading
from hap_jax.convert.selection import WHOLE
from hap_jax.data.pipeline import Reading
from hap_jax.data.transforms.reid import ResizeBicubic
from hap_jax.evaluation import linear_probe
from hap_jax.evaluation import retrieval_probe as probes
from hap_jax.evaluation.evaluate import make_evaluate
from hap_jax.inference import embed
from hap_jax.inference import encoder as encoders
from hap_jax.io.progress import SILENT
from hap_jax.metrics import attributes as metrics
from hap_jax.pixels.normalize import normalize


def probe(
  path,
  *,
  source,
  root="",
  options=None,
  batch_size=256,
  workers=0,
  selection=WHOLE,
  say=print,
  progress=SILENT,
):
  """Measures person retrieval with frozen features, for each kind of pooling.

  Args:
    path: a checkpoint that `convert.read.read` can read.
    source: a file of `data/sources` that has the splits query and gallery.
    root: folder of the data set.
    options: {option: value} of the source.
    batch_size: pictures per batch.
    workers: number of processes that read pictures.
    selection: a `Selection`, the part of the checkpoint to read.
    say: prints a line.
    progress: a `Progress`. This function starts and ends it.
  Returns:
    {"mAP_cls": ..., "rank1_cls": ..., ..., "mAP_chance": ...}.
  Raises:
    ValueError: if the checkpoint or the data cannot be read.
  """
  with progress:
    mesh = sharding.make_mesh()
    sharding.check_batch_size(batch_size, mesh, "--batch_size")
    progress.stage("reading the checkpoint")
    weights = reading.read(path, selection=selection)
    model, variables, description = encoders.build(path, weights)
    image_size = description["model"]["image_size"]
    mean, std = (description["normalization"][key] for key in ("mean", "std"))
    progress.stage("opening the data")
    loaders = {
      split: Reading(workers=workers).ordered(
        config_sources.open_named_source(source, root=root, split=split, options=options),
        (ResizeBicubic(size=tuple(image_size)),),
        batch_size,
      )
      for split in ("query", "gallery")
    }

    def encode(variables, images):
      return model.apply(variables, normalize(images, mean, std), method="latent")

    evaluation = probes.make_evaluation(encode, model.encoder, loaders)
    variables = sharding.put_replicated(variables, mesh)
    scores, _ = make_evaluate(evaluation, mesh)(variables, progress=progress)
  counts = " and ".join(f"{len(loader.source)} {split}" for split, loader in loaders.items())
  say(f"{source}: {counts} pictures at {image_size[0]}x{image_size[1]}; same-camera matches excluded")
  for name, value in scores.items():
    say(f"{name:13s}  {value:.4f}")
  return scores


def probe_attributes(
  path,
  *,
  source,
  root="",
  options=None,
  seed=0,
  feature="mean",
  batch_size=256,
  workers=0,
  selection=WHOLE,
  say=print,
  progress=SILENT,
):
  """Measures how well a logistic regression on frozen features predicts attributes.

  The regression is fitted on split "train" and scored on split "test".

  Args:
    path: a checkpoint that `convert.read.read` can read.
    source: a file of `data/sources` with attributes.
    root: same as in `probe`.
    options: same as in `probe`.
    seed: seed of the source, for sources that draw synthetic people.
    feature: see `embed.load_extractor`. The default is "mean" (the mean patch token), because the
      classifier of a fine-tuned model uses it, too.
    batch_size: same as in `probe`.
    workers: same as in `probe`.
    selection: same as in `probe`.
    say: same as in `probe`.
    progress: same as in `probe`.
  Returns:
    {"mA": ..., "F1": ..., ...}, the result of `metrics.attributes.Scores.metrics`.
  Raises:
    ValueError: if the checkpoint or the data cannot be read, or if an attribute has the same value in all
      training pictures.
  """
  with progress:
    progress.stage("opening the data")
    sources = _open_splits(source, root=root, seed=seed, options=options)
    progress.stage("reading the checkpoint")
    extractor = embed.load_extractor(path, feature, selection)
    vectors = _extract_all(extractor, sources, batch_size, workers, progress)
    progress.stage("fitting the classifier")
    labels, known = (
      {split: opened.columns.get(field) for split, opened in sources.items()}
      for field in ("attributes", "attributes_known")
    )
    learnt = linear_probe.choose_and_fit(vectors["train"], labels["train"], known["train"])
  found = metrics.score(learnt.probability(vectors["test"]), labels["test"], known["test"])
  for note in sources["test"].spec.notes:
    say(f"note: {note}")
  counts = " and ".join(f"{len(opened)} {split}" for split, opened in sources.items())
  say(f"{source}: {counts} pictures; feature {extractor.kind}, penalty {learnt.penalty:g}")
  shares = metrics.positive_share(labels["test"], known["test"])
  _say_attributes(sources["test"].spec.labels["attributes"], found, shares, say)
  scores = found.metrics()
  for name, value in scores.items():
    say(f"{name:21s}  {value:.4f}")
  say("mA of a prediction that ignores the picture: 0.5")
  return scores


def _say_attributes(names, found, shares, say):
  """Prints one line per attribute, the attribute with the lowest mA first.

  Args:
    names: the names of the A attributes.
    found: `metrics.attributes.Scores`.
    shares: [A] share of positive labels.
    say: prints a line.
  """
  for a in np.argsort(found.label_mean_accuracy, kind="stable"):
    result = f"mA {found.label_mean_accuracy[a]:.4f}  present in {shares[a]:.4f}"
    say(f"  {names[a]:24s}  {result if found.num_known[a] else 'no known label in split test'}")


def _open_splits(name, **options):
  """Returns {"train": source, "test": source}. `config_sources.open_named_source` explains `options`."""
  sources = {}
  for split in ("train", "test"):
    sources[split] = config_sources.open_named_source(name, split=split, **options)
    _check_attributes(name, sources["train"])
  return sources


def _extract_all(extractor, sources, batch_size, workers, progress):
  """Returns {split: vectors [N, D]} for the pictures of {split: source}."""
  progress.begin(sum(map(len, sources.values())), "pictures")
  vectors = {}
  for split, opened in sources.items():
    vectors[split], _ = embed.extract(
      extractor, opened, batch_size=batch_size, workers=workers, progress=progress
    )
  return vectors


def _check_attributes(name, train):
  if "attributes" not in train.columns:
    raise ValueError(
      f"data set {name} has no attributes; expected a data set with attributes, such as pa100k or synthetic"
    )
  # An attribute without known labels has the share 0, so it is an error, too.
  shares = metrics.positive_share(train.columns["attributes"], train.columns.get("attributes_known"))
  constant = [a for a, share in zip(train.spec.labels["attributes"], shares, strict=True) if share in (0, 1)]
  if constant:
    raise ValueError(
      f"{name}: {', '.join(constant)}: all known labels are equal in the {len(train):,} training "
      "pictures; expected each attribute to be present in some pictures and absent in others: use more "
      "pictures"
    )

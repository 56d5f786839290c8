"""Chooses the body model of a run, and finds the body model of a checkpoint.

Checkpoints do not contain the body model. They record only its digest.
"""

from hap_jax import config as config_lib
from hap_jax.data import body_model


def choose(source, folder, *, eval_source="", eval_folder=""):
  """Returns (BodySet of the network, BodySet of the truth of the evaluation).

  The network has the body of the training parameters. This is `folder`, or the own body of `source`.

  The truth has the first of these bodies that exists:
  1. `eval_folder`;
  2. if the evaluation uses the source of the training: the body of the network;
  3. the own body of `eval_source`;
  4. `folder`.

  Args:
    source: config.data.source.
    folder: config.body, a folder of `hap body`. "": none.
    eval_source: config.data.eval_source. "": the evaluation uses `source`.
    eval_folder: config.data.eval_body. "": none.
  Raises:
    ValueError: if there is no body, or if a folder differs from the body of its source.
  """
  own = own_body(source)
  if folder:
    bodies = body_model.read_body_set(folder)
    remark = "; the truth of the scores has its own key, config.data.eval_body"
    _check_same("config.body", folder, bodies, source, own, remark)
  elif own is not None:
    bodies = own
  else:
    raise ValueError(body_model.missing("config.body", source))
  scored = eval_source or source
  true_bodies = own_body(scored)
  if eval_folder:
    key, given = "config.data.eval_body", body_model.read_body_set(eval_folder, key="config.data.eval_body")
    _check_same(key, eval_folder, given, scored, true_bodies)
    return bodies, given
  if scored == source:
    return bodies, bodies
  if true_bodies is None and not folder:
    raise ValueError(body_model.missing("config.data.eval_body", scored))
  return bodies, true_bodies or bodies


def placeholders(source, eval_source):
  """Returns (BodySet of the network, BodySet of the truth), for the shapes of a step. Reads no folder.

  A source with its own body has this body. For other sources, the shapes are the shapes of SMPL. Its truth
  has all genders, because this needs the most memory.

  Args:
    source: config.data.source.
    eval_source: the source of the evaluation.
  """
  bodies = own_body(source) or body_model.placeholder(("neutral",))
  return bodies, own_body(eval_source) or body_model.placeholder(body_model.GENDERS)


def _check_same(key, folder, bodies, source, own, remark=""):
  """Raises ValueError if a source has its own body, and the folder of a config key has another body."""
  if own is not None and own.digest != bodies.digest:
    raise ValueError(
      f"{key}={folder}: the records of {source} have parameters of another body ({own.name}, digest "
      f"{own.digest}): leave {key} empty{remark}"
    )


def own_body(source):
  """Returns the BodySet of a data source that has its own, such as drawn people, or None."""
  module = config_lib.load("data/sources", source)
  return module.own_body() if hasattr(module, "own_body") else None


def of_checkpoint(description, folder=""):
  """Returns the `BodySet` of a checkpoint's network.

  Args:
    description: the Description of the checkpoint.
    folder: a folder of `hap body`. "": the folder of the training, or the body of its source.
  Raises:
    ValueError: if there is no body.
  """
  recorded = description.config or {}
  folder = folder or _text(recorded, "body")
  if folder:
    return body_model.read_body_set(folder, key="--body")
  data = recorded.get("data")
  source = _text(data, "source") if isinstance(data, dict) else ""
  own = own_body(source) if source in config_lib.names("data/sources") else None
  if own is None:
    raise ValueError(body_model.missing("--body", source or "the training"))
  return own


def _text(group, key):
  """Returns a text of a recorded configuration, or "" if there is none."""
  # A damaged or foreign checkpoint may have a value of another type.
  value = group.get(key)
  return value if isinstance(value, str) else ""


def notes(description, bodies):
  """Returns one line for the user if the body differs from the body of the training, otherwise no line.

  Args:
    description: the Description of the checkpoint.
    bodies: the `BodySet` that the network uses now.
  Returns:
    tuple of str.
  """
  trained = description.network.get("body")
  if trained == bodies.digest:
    return ()
  return (
    f"the body {bodies.name} (digest {bodies.digest}) is not the body of the training (digest {trained})",
  )

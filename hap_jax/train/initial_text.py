"""Chooses the text encoder of a run, and finds the text encoder of a checkpoint.

A run stores its frozen text encoder once, in <workdir>/text_encoder/<digest>/. So a checkpoint can be used
without the folder that config.text.init_from named.
"""

import dataclasses
import pathlib
import re

from hap_jax.convert import text_encoder
from hap_jax.convert.text_encoder import TextEncoder
from hap_jax.data import word_piece
from hap_jax.models import bert

FOLDER = "text_encoder"  # in a workdir, or in the folder of a converted checkpoint
_MLP_RATIO = 4  # width of the hidden MLP layer of a new text encoder divided by its width


def choose(start, *, captions, init_from, is_trained, sizes):
  """Returns the `TextEncoder` of a run.

  The first text encoder of this list that exists is used:
  1. the text encoder of the checkpoint from which the run resumes or starts, if this is a text ReID
     checkpoint;
  2. the BERT folder `init_from`;
  3. if the text encoder is trained: a new one, with a word list of the training captions.

  Args:
    start: a `tasks.base.Start`.
    captions: the captions of the training pairs.
    init_from: config.text.init_from, a BERT folder of Hugging Face. "": none.
    is_trained: True if the run trains the text encoder.
    sizes: "width", "depth", "num_heads", "max_words" and "max_tokens" of a new text encoder.
  Returns:
    TextEncoder. Its `params` are None if the parameters are new or come from the checkpoint.
  Raises:
    ValueError: if there is no text encoder, or if the run would freeze a text encoder that the checkpoint has
      trained.
  """
  given = start.description
  if given is not None and "text" in given.network:
    if given.network["text_is_trained"] and not is_trained:
      raise ValueError(
        f"config.text.lr_scale=0 freezes the text encoder, but {given.place} has trained it: set "
        "config.text.lr_scale above 0"
      )
    return of_checkpoint(given, init_from)
  if init_from:
    return text_encoder.read_folder(init_from)
  if not is_trained:
    raise ValueError(
      "config.text.init_from is empty: set it to a BERT folder of Hugging Face (such as bert-base-uncased), "
      "or set config.init_from to a text ReID checkpoint, which has its own text encoder. To train a small "
      "text encoder instead, set config.text.lr_scale above 0"
    )
  words = word_piece.learn_words(captions, max_words=sizes["max_words"])
  return TextEncoder(_new_sizes(sizes, len(words)), None, tuple(words))


def of_checkpoint(description, init_from=None):
  """Returns the `TextEncoder` of a checkpoint.

  Args:
    description: the Description of the checkpoint. A frozen text encoder is searched in its `place`, then in
      the two folders above.
    init_from: a BERT folder that is used last. "": none. None: the folder that the run was started with.
  Returns:
    TextEncoder. Its `params` are None if the text encoder was trained, because then its parameters are part
    of the parameters of the checkpoint.
  Raises:
    ValueError: if a frozen text encoder is in none of these folders, or differs from the Description. Also if
      the Description has a wrong value.
  """
  _check_is_beside(description)
  sizes, vocabulary = _read_description(description)
  network = description.network
  if network["text_is_trained"]:
    return TextEncoder(sizes, None, vocabulary)
  if init_from is None:
    init_from = _recorded_folder(description.config)
  digest, place = network["text_digest"], pathlib.Path(description.place).absolute()
  tried = [parent / FOLDER / digest for parent in (place, *list(place.parents)[:2])]
  tried += [pathlib.Path(init_from)] if init_from else []
  for folder in tried:
    if folder.is_dir():
      found = text_encoder.read_folder(folder, digest)
      if (found.sizes, found.vocabulary) != (sizes, vocabulary):
        raise ValueError(
          f"{folder}: the description of {description.place} states other sizes or words than this folder; "
          "copy the checkpoint again"
        )
      return found
  raise ValueError(
    f"the text encoder of the checkpoint (digest {digest}) is in none of {', '.join(map(str, tried))}: copy "
    "the folder there, or set config.text.init_from to the BERT folder of the run"
  )


def _recorded_folder(config):
  """Returns config.text.init_from of a recorded configuration, or "" if there is none."""
  # A damaged or foreign checkpoint may have a value of another type.
  text = (config or {}).get("text")
  folder = text.get("init_from") if isinstance(text, dict) else ""
  return folder if isinstance(folder, str) else ""


def with_parameters(description, params):
  """Returns the `TextEncoder` of a Description, with parameters that were read elsewhere.

  Raises:
    ValueError: if the Description has no text encoder, or has a wrong value.
  """
  sizes, vocabulary = _read_description(description)
  return TextEncoder(sizes, params, vocabulary)


def _check_is_beside(description):
  """Raises ValueError for a foreign file, which contains its text encoder."""
  network, place = description.network, description.place
  if network.get("text_is_trained") is False and network.get("text_digest") == "":
    raise ValueError(
      f"{place} holds its text encoder itself, but this command needs it in a folder: run `hap convert "
      f"{place} --out=DIR --text_encoder=BERT_FOLDER` first, and use DIR"
    )


def _read_description(description):
  """Returns (`bert.Sizes`, vocabulary) of a Description. Raises ValueError if a value is wrong."""
  network, vocabulary = description.network, description.more.get("vocabulary")
  where = "the text encoder in the description of the checkpoint"
  text, names = network.get("text"), {field.name for field in dataclasses.fields(bert.Sizes)}
  if not isinstance(text, dict) or text.keys() != names:
    raise ValueError(f"{where} has the sizes {text!r:.80}, expected {', '.join(sorted(names))}")
  if not all(type(value) is int and value > 0 for value in text.values()):
    raise ValueError(f"{where} has the sizes {text!r:.80}, expected whole numbers from 1")
  if text["width"] % text["num_heads"]:
    raise ValueError(
      f"{where} has {text['num_heads']} heads, expected a number that divides its width {text['width']}"
    )
  sizes, max_tokens = bert.Sizes(**text), network.get("max_tokens")
  if type(max_tokens) is not int or not 1 <= max_tokens <= sizes.max_positions:
    raise ValueError(
      f"{where} takes max_tokens={max_tokens!r:.40}, expected 1 to {sizes.max_positions}, its positions"
    )
  is_list = isinstance(vocabulary, list | tuple) and all(isinstance(word, str) for word in vocabulary)
  if not is_list or len(vocabulary) != sizes.vocab_size:
    found = f"{len(vocabulary)} words" if is_list else "no list of words"
    raise ValueError(f"{where} has {found}, expected {sizes.vocab_size} words, one per row of its word table")
  is_trained, digest = network.get("text_is_trained"), network.get("text_digest", "")
  # The digest becomes a part of a path. A trained text encoder has none.
  is_digest = isinstance(digest, str) and re.fullmatch(r"[0-9a-f]*", digest) and (digest or is_trained)
  if type(is_trained) is not bool or not is_digest:
    raise ValueError(
      f"{where} has text_is_trained={is_trained!r:.20} and text_digest={digest!r:.40}, "
      "expected true or false, and hexadecimal digits"
    )
  return sizes, tuple(vocabulary)


def store(encoder, workdir):
  """Writes a frozen text encoder into a workdir, if it is not there yet."""
  text_encoder.write_folder(pathlib.Path(workdir) / FOLDER, encoder)


def make_preset(encoder):
  """Returns the `preset` of a Task whose text encoder is trained. None: its parameters are new."""
  if encoder.params is None:
    return None
  return lambda variables: {**variables, "params": {**variables["params"], "bert": encoder.params}}


def placeholder(sizes, is_new):
  """Returns a `TextEncoder` without parameters and words, for the shapes of a step.

  Args:
    sizes: see `choose`.
    is_new: True: a new text encoder, with the largest vocabulary. False: a BERT folder, which is not read. It
      is assumed to be like bert-base-uncased.
  """
  return TextEncoder(_new_sizes(sizes, sizes["max_words"]) if is_new else bert.BASE_UNCASED, None, ())


def _new_sizes(sizes, num_words):
  return bert.Sizes(
    width=sizes["width"],
    depth=sizes["depth"],
    num_heads=sizes["num_heads"],
    hidden=_MLP_RATIO * sizes["width"],
    vocab_size=num_words,
    max_positions=sizes["max_tokens"],
  )

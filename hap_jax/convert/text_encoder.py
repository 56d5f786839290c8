"""Reads BERT folders of Hugging Face, and stores the text encoder of a run in the same format.

A folder has config.json, the vocabulary in vocab.txt or tokenizer.json, and the tensors in model.safetensors
or pytorch_model.bin. No code in it is executed.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from hap_jax.convert import bert_names, read
from hap_jax.convert.container import read_json
from hap_jax.convert.source import open_source
from hap_jax.convert.weights import flatten, some
from hap_jax.data.word_piece import WordPiece
from hap_jax.io import safetensors_file, unfinished
from hap_jax.models import bert

VOCABULARY = "vocab.txt"
_TOKENIZER = "tokenizer.json"  # the newer file of transformers, which also has the vocabulary
_DIGEST_LENGTH = 32  # hexadecimal digits
_MAX_DEPTH = 1000  # blocks; text encoders have far fewer
# {key of config.json: the only value that `bert.Bert` supports}. A missing key has this value, too.
_FIXED = {
  "model_type": "bert",
  "hidden_act": "gelu",
  "position_embedding_type": "absolute",
  "layer_norm_eps": bert.LAYER_NORM_EPSILON,
  "is_decoder": False,
}
# {key of config.json for a size: field in `bert.Sizes`}
_SIZES = {
  "hidden_size": "width",
  "num_hidden_layers": "depth",
  "num_attention_heads": "num_heads",
  "intermediate_size": "hidden",
  "vocab_size": "vocab_size",
  "max_position_embeddings": "max_positions",
  "type_vocab_size": "num_segments",
}
# {key of config.json: letter in `bert_names`}, for sizes that the tensors also show.
_LETTERS = {
  "hidden_size": "W",
  "intermediate_size": "I",
  "vocab_size": "V",
  "max_position_embeddings": "Q",
  "type_vocab_size": "S",
}
# Prefix of most names in published files. transformers writes it for classes with a head.
_PREFIX = "bert."
# Heads of pre-training, the pooler (token features do not depend on it), and two tables of constants.
_UNUSED = ("cls.", "pooler.", "embeddings.position_ids", "embeddings.token_type_ids")
# Names of scale and shift in files that were converted from TensorFlow.
_OLD_NAMES = ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias"))


@dataclasses.dataclass(frozen=True)
class TextEncoder:
  """A text encoder with its weights and its vocabulary.

  Attributes:
    sizes: `bert.Sizes`.
    params: the parameters of `bert.Bert`, nested dicts of float32 arrays.
    vocabulary: tuple of words for `WordPiece.of`.
    unused: the names of tensors in the file that this project does not use.
  """

  sizes: bert.Sizes
  params: Any
  vocabulary: tuple[str, ...]
  unused: tuple[str, ...] = ()

  @functools.cached_property
  def digest(self):
    """Returns a hash of sizes, vocabulary and parameters: 32 hexadecimal digits.

    The hash does not depend on the format of the file.
    """
    facts = {"sizes": self.sizes.to_json(), "vocabulary": self.vocabulary}
    content = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for path, array in sorted(flatten(self.params).items()):
      content.update(f"{path} {array.shape}".encode())
      content.update(np.ascontiguousarray(array, "<f4"))
    return content.hexdigest()[:_DIGEST_LENGTH]


def read_folder(path, digest=""):
  """Reads a text encoder from a BERT folder.

  Args:
    path: a Hugging Face folder, or a folder that `write_folder` made.
    digest: the expected digest. "": any digest is accepted.
  Returns:
    TextEncoder.
  Raises:
    UnsafePickleError: if the pickle of a file is built in a way that no writer uses.
    OSError: if a file cannot be read.
    ValueError: in these cases:
      a file is missing or damaged;
      config.json states a model that `bert.Bert` does not support, or sizes that differ from the tensors;
      the name of a tensor is unknown, or a tensor is missing, has an unexpected shape or bad values;
      the vocabulary does not fit the word table of the tensors, or is not the vocabulary of an uncased BERT;
      the digest differs.
  """
  path = pathlib.Path(path)
  if not path.is_dir():
    raise ValueError(f"{path}: expected a BERT folder with config.json, {VOCABULARY} and the tensors")
  if not (path / "config.json").is_file():
    raise ValueError(f"{path / 'config.json'}: no such file; a BERT folder has it next to the tensors")
  source = open_source(path)
  sizes = _read_config(path / "config.json", source.config)
  state, file_names, unused = _rename(source)
  rows = bert_names.table(sizes.depth)
  _check_names(path, rows, state, file_names)
  variables, _, found = read.to_ours(source, rows, state, file_names)
  for key, letter in _LETTERS.items():
    if source.config[key] != found[letter]:
      raise ValueError(
        f"{path / 'config.json'}: {key} is {source.config[key]}, but {source.files[0].name} has "
        f"{found[letter]}"
      )
  encoder = TextEncoder(sizes, variables["params"], _read_vocabulary(path, sizes.vocab_size), unused)
  if digest and encoder.digest != digest:
    raise ValueError(
      f"{path}: holds a text encoder with the digest {encoder.digest}, expected {digest}: it is another text "
      "encoder, or the copy is damaged"
    )
  return encoder


def read_words(path, sizes):
  """Reads the vocabulary and the number of heads of a BERT folder. The folder needs no file of tensors.

  Args:
    path: a BERT folder.
    sizes: {field of `bert.Sizes`: number}, the sizes of the tensors of the text encoder. The folder must
      state the same sizes.
  Returns:
    (`bert.Sizes`, vocabulary as a tuple of words).
  Raises:
    OSError: if a file cannot be read.
    ValueError: if a file is missing or damaged, or has other sizes.
  """
  path = pathlib.Path(path)
  file = path / "config.json"
  if not file.is_file():
    raise ValueError(f"{file}: no such file; expected a BERT folder with config.json and {VOCABULARY}")
  found = _read_config(file, read_json(file))
  for key, field in _SIZES.items():
    if sizes.get(field) not in (None, getattr(found, field)):
      raise ValueError(
        f"{file}: {key} is {getattr(found, field)}, but the text encoder has {sizes[field]}: use the folder "
        "that the network was trained with"
      )
  return found, _read_vocabulary(path, found.vocab_size)


def write_folder(parent, encoder):
  """Stores a text encoder in the folder <parent>/<digest>, completely or not at all.

  transformers also reads this folder. If the folder exists, it has the same content, so nothing is written.

  Args:
    parent: a folder. It is made if it does not exist.
    encoder: TextEncoder.
  Returns:
    pathlib.Path of the folder.
  Raises:
    OSError: if the folder cannot be written.
  """
  folder = pathlib.Path(parent) / encoder.digest
  if folder.is_dir():
    return folder
  folder.parent.mkdir(parents=True, exist_ok=True)
  config = {
    "architectures": ["BertModel"],
    **_FIXED,
    **{key: getattr(encoder.sizes, field) for key, field in _SIZES.items()},
    "pad_token_id": 0,
  }
  try:
    with unfinished.new_folder(folder) as part:
      safetensors_file.save(part / "model.safetensors", to_state(encoder), {})
      (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
      words = "".join(f"{word}\n" for word in encoder.vocabulary)
      (part / VOCABULARY).write_text(words, encoding="utf-8", newline="\n")
  except OSError:
    if not folder.is_dir():  # another process may have written the same folder at the same time
      raise
  return folder


def to_state(encoder):
  """Returns the tensors of a TextEncoder with the names of transformers, {name: float32 array}."""
  flat = flatten(encoder.params)
  rows = bert_names.table(encoder.sizes.depth)
  return {row.reference: row.layout.to_reference(row.of(np.asarray(flat[row.ours]))) for row in rows}


def _read_config(file, config):
  """Returns the `bert.Sizes` of config.json, after a check of all other values."""
  for key, expected in _FIXED.items():
    value = config.get(key, expected)
    if value != expected:
      raise ValueError(
        f"{file}: {key} is {value!r}, but this project's text encoder uses {expected!r} and would give "
        "different features; use a folder of BERT"
      )
  for key in _SIZES:
    limit = _MAX_DEPTH if key == "num_hidden_layers" else 1 << 31
    if type(config.get(key)) is not int or not 1 <= config[key] < limit:
      raise ValueError(f"{file}: {key} is {config.get(key)!r}, expected a whole number from 1")
  sizes = bert.Sizes(**{field: config[key] for key, field in _SIZES.items()})
  if sizes.width % sizes.num_heads:
    raise ValueError(
      f"{file}: num_attention_heads is {sizes.num_heads}, which does not divide hidden_size {sizes.width}"
    )
  return sizes


def _rename(source):
  """Returns ({name in the table's spelling: array}, {that name: name in the file}, unused names)."""
  state, file_names, unused = {}, {}, []
  for name, array in source.state.items():
    renamed = name.removeprefix(_PREFIX)
    for old, new in _OLD_NAMES:
      renamed = renamed.replace(old, new)
    if renamed.startswith(_UNUSED):
      unused.append(source.names[name])
      continue
    if renamed in state:
      raise ValueError(f"{source.path}: {file_names[renamed]} and {source.names[name]} are the same tensor")
    state[renamed], file_names[renamed] = array, source.names[name]
  return state, file_names, tuple(unused)


def _check_names(path, rows, state, file_names):
  """Raises ValueError if the file has an unknown tensor, or has no tensor for a row."""
  known = {row.reference for row in rows}
  unknown = sorted(file_names[name] for name in state.keys() - known)
  if unknown:
    raise ValueError(f"{path}: expected names of a BERT with the sizes of config.json, found {some(unknown)}")
  missing = [row.reference for row in rows if row.reference not in state]
  if missing:
    raise ValueError(f"{path}: missing tensors of BERT: {some(missing)}")


def _read_vocabulary(path, vocab_size):
  """Returns the vocabulary of a BERT folder, after a check of its size."""
  file = path / VOCABULARY
  if file.is_file():
    vocabulary = WordPiece.read(file).vocabulary
  else:
    file = path / _TOKENIZER
    vocabulary = _words_of_tokenizer(file)
  check_words(file, vocabulary, vocab_size)
  # `WordPiece` converts captions to lower case, so it cannot use the vocabulary of a cased BERT.
  settings = path / "tokenizer_config.json"
  if read_json(settings).get("do_lower_case") is False:
    raise ValueError(f"{settings}: do_lower_case is false; use a folder of an uncased BERT")
  return vocabulary


def check_words(file, words, vocab_size):
  """Returns a vocabulary as a tuple, after a check of its form and its size.

  Args:
    file: the file of the vocabulary, for error messages.
    words: the vocabulary. It may come from anyone, so any value is possible.
    vocab_size: the number of rows of the word table.
  Raises:
    ValueError: if it is not a list of words, has another size, or is not the vocabulary of a BERT.
  """
  if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
    raise ValueError(f"{file}: its vocabulary is {words!r:.60}, expected a list of words")
  if len(words) != vocab_size:
    raise ValueError(
      f"{file}: has {len(words)} words, but the word table of the tensors has {vocab_size} rows; use the "
      "vocabulary of this text encoder"
    )
  try:
    return WordPiece.of(words).vocabulary
  except ValueError as error:
    raise ValueError(f"{file}: {error}") from error


def _words_of_tokenizer(file):
  """Returns the vocabulary of a tokenizer.json, in the order of the ids."""
  if not file.is_file():
    raise ValueError(f"{file.parent / VOCABULARY}: no such file; a BERT folder has it, or {_TOKENIZER}")
  content = read_json(file)
  model, normalizer = (
    {} if type(content.get(k)) is not dict else content[k] for k in ("model", "normalizer")
  )
  ids = model.get("vocab") if model.get("type", "WordPiece") == "WordPiece" else None
  is_good = isinstance(ids, dict) and all(type(i) is int for i in ids.values())
  if not is_good or sorted(ids.values()) != list(range(len(ids))):
    raise ValueError(f"{file}: expected the words of a WordPiece tokenizer with the ids 0, 1, 2, ...")
  if normalizer.get("lowercase") is False:
    raise ValueError(f"{file}: its normalizer keeps upper case; use a folder of an uncased BERT")
  return WordPiece.of(sorted(ids, key=ids.get)).vocabulary

"""Rank the pictures of a gallery by their similarity to a sentence or a picture; writes JSON and a sheet."""

import argparse
import os

import jax
import numpy as np

from hap_jax.convert import read as reading
from hap_jax.data.sources.base import PICTURE_ENDINGS
from hap_jax.data.word_piece import WordPiece
from hap_jax.inference import calibration_file, embed, gallery
from hap_jax.io import regular_file
from hap_jax.io.progress import Progress
from hap_jax.tasks import text_reid
from hap_jax.train import initial_text
from hap_jax.train.state import with_constants

_MAX_BYTES = 2**26  # largest file of sentences
_EXAMPLE = '"a woman in a red coat with a backpack"'


class _InPlaceOf(argparse.Action):
  """Stores the value of an option. If the option is given, another argument (`other`) is not required.

  nargs="?" is not used, because argparse of Python 3.11 would then not find a QUERY after an option.
  """

  def __init__(self, *words, other, **options):
    super().__init__(*words, **options)
    self._other = other

  def __call__(self, parser, namespace, value, option_string=None):
    setattr(namespace, self.dest, value)
    self._other.required = False


def add_arguments(parser):
  text = f"sentence that describes the person to find, such as {_EXAMPLE}; or a picture of the person"
  # The argument has the name `pictures`, because the function for picture queries expects it.
  query = parser.add_argument("pictures", metavar="QUERY", help=text)
  text = "text file (UTF-8) with one sentence per line, in place of QUERY"
  parser.add_argument("--queries", metavar="FILE", action=_InPlaceOf, other=query, help=text)
  gallery.add_search_arguments(
    parser,
    gallery="folder of pictures to search, including sub-folders; or a file of vectors from hap embed",
  )


def run(args):
  """Ranks the gallery for each query, and writes ranking.json and ranking.png."""
  if None not in (args.pictures, args.queries):
    raise ValueError(f"expected QUERY or --queries=FILE, found both: {args.pictures[:200]!r}")
  # A query that is the path of a file is a picture, with any ending.
  if args.queries is None and os.path.isfile(args.pictures):
    gallery.run(args)
    return
  if args.queries is None:
    _check_sentence(args.pictures, "the query")
    sentences = [args.pictures]
  else:
    sentences = read_sentences(args.queries)
  if args.feature not in ("", "embedding"):
    raise ValueError(f"--feature={args.feature}: a sentence has only an embedding; remove --feature")
  _rank(args, sentences)


def _rank(args, sentences):
  """Ranks the gallery for each sentence."""
  pictures = gallery.open_gallery(args)
  with Progress("predict") as progress:
    progress.stage("reading the checkpoint")
    weights = reading.read(args.checkpoint, selection=args.selection)
    extractor = embed.make_extractor(args.checkpoint, weights, "embedding")
    calibration = calibration_file.find_for_query(
      args.calibration, args.checkpoint, weights, feature=extractor.kind, kind="text"
    )
    progress.begin(pictures.num_pictures, "pictures")
    queries, num_cut = embed_sentences(weights, sentences, batch_size=args.batch_size)
    found = gallery.rank(args, queries, pictures, extractor, progress)
  if num_cut:
    max_tokens = weights.description.network["max_tokens"]
    print(f"cut to {max_tokens} tokens: {num_cut:,} of {len(sentences):,} sentences")
  are_many = args.queries is not None
  judged = gallery.Judged(found, "text", extractor.kind, calibration)
  gallery.write(args, sentences, sentences, pictures, judged, are_many=are_many)


def embed_text_query(weights, query):
  """Returns the embedding of a query that is a sentence, [1, F] float32; None if it is the path of a file."""
  if os.path.isfile(query):
    return None
  _check_sentence(query, "the query")
  return embed_sentences(weights, [query], batch_size=1)[0]


def embed_sentences(weights, sentences, *, batch_size):
  """Computes the embeddings of sentences.

  Args:
    weights: `convert.weights.Weights` of this task.
    sentences: N texts.
    batch_size: sentences per batch.
  Returns:
    ([N, F] float32 embeddings with unit norm, number of sentences that were cut).
  Raises:
    ValueError: if the frozen text encoder of the checkpoint is not found.
  """
  description = weights.description
  text = initial_text.of_checkpoint(description)
  max_tokens = description.network["max_tokens"]
  ids, lengths, num_cut = WordPiece.of(text.vocabulary).encode(sentences, max_tokens)
  variables = with_constants(weights.variables, text_reid.constants_of(description, text))
  variables, step = jax.device_put(variables), jax.jit(text_reid.make_embed_captions(description))
  N, rows = len(sentences), []
  size = min(batch_size, N)
  for start in range(0, N, size):
    # The last batch is filled up with the first sentences, so that all batches have the same size.
    batch = np.arange(start, start + size) % N
    rows.append(jax.device_get(step(variables, {"ids": ids[batch], "length": lengths[batch]})))
  return np.concatenate(rows)[:N], num_cut


def read_sentences(path):
  """Reads a text file with one sentence per line.

  Raises:
    OSError: if the file is missing or cannot be read.
    ValueError: if the file is empty or not UTF-8, or a line is not a sentence. The message names the line.
  """
  try:
    text = regular_file.read_bytes(path, _MAX_BYTES).decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: expected sentences in UTF-8, one per line ({error})") from error
  lines = [line.removesuffix("\r") for line in text.split("\n")]
  if not lines[-1]:
    lines.pop()  # the file ends with a line break
  if not lines:
    raise ValueError(f"{path}: the file is empty; expected one sentence per line")
  for number, line in enumerate(lines, 1):
    _check_sentence(line, f"{path}: line {number}")
  return lines


def _check_sentence(sentence, where):
  """Raises ValueError if a text is not a sentence. `where` is the name of the text for the message."""
  if sentence.lower().endswith(PICTURE_ENDINGS):
    problem = "no such picture" if where == "the query" else "a picture cannot be a query of this file"
    raise ValueError(f"{where} is {sentence[:200]!r}: {problem}; expected a sentence such as {_EXAMPLE}")
  if not any(letter.isalnum() for letter in sentence):
    found = f"{sentence[:200]!r}, without a letter or digit" if sentence else "empty"
    raise ValueError(f"{where} is {found}; expected a sentence such as {_EXAMPLE}")

"""A source with token ids for its captions."""

import dataclasses

import numpy as np

from hap_jax.data.sources import base

FIELDS = ("ids", "length")


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenized:
  """A source with two more fields: ids [T] int32 and length [] int32, the tokens of the caption.

  Attributes:
    source: a source with the column `caption`.
    ids: [N, T] uint16 or int32, the token ids of each caption, padded with 0 at the end.
    lengths: [N] int32, the number of tokens of each caption.
  """

  source: base.Source
  ids: np.ndarray
  lengths: np.ndarray

  @property
  def spec(self):
    spec = self.source.spec
    return dataclasses.replace(spec, fields=(*spec.fields, *FIELDS))

  @property
  def columns(self):
    return self.source.columns

  def __len__(self):
    return len(self.source)

  def __getitem__(self, index):
    tokens = {"ids": self.ids[index].astype(np.int32), "length": self.lengths[index]}
    return {**self.source[index], **tokens}

  def name(self, index):
    return self.source.name(index)


def tokenize(source, word_piece, max_tokens):
  """Tokenises all captions of a source.

  Args:
    source: a source with the column `caption`.
    word_piece: a `WordPiece`.
    max_tokens: T. Longer captions are cut.
  Returns:
    (Tokenized, number of captions that were cut).
  Raises:
    ValueError: in the same cases as `WordPiece.encode`.
  """
  ids, lengths, num_cut = word_piece.encode(source.columns["caption"], max_tokens)
  # The vocabulary of BERT has 30,522 words, so uint16 is enough. This halves the table, which is sent to
  # every worker process.
  small = ids.astype(np.uint16) if len(word_piece.vocabulary) <= 2**16 else ids
  return Tokenized(source, small, lengths), num_cut

"""Turns captions into the token ids of BERT with the WordPiece algorithm (arXiv 1810.04805).

A caption is lower-cased, its accents and control characters are removed, and it is split at blanks and
punctuation. Each word is then cut into the longest pieces in the vocabulary. The package `tokenizers`
does this work. This module imports neither PyTorch nor jax, and it needs no network.
"""

import collections
import pathlib
import string

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from hap_jax.io import regular_file

PAD, UNKNOWN, START, END = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_CONTINUED = "##"  # prefix of a piece that is not the start of a word
_MAX_LETTERS = 100  # a longer word becomes the unknown token, as in BERT
_MAX_BYTES = 1 << 26  # largest vocabulary file; the vocabulary of BERT-base has 231,508 bytes


class WordPiece:
  """A tokenizer for captions. Make it with `read` or `of`.

  The package `tokenizers` starts threads only for a batch of texts. This class passes one text at a time, so
  that the process can fork later without a warning about threads.

  Attributes:
    vocabulary: tuple of words. The index of a word is its token id. The id of the padding is 0.
  """

  def __init__(self, vocabulary, where):
    self.vocabulary = vocabulary
    self._where = where
    ids = _checked_ids(vocabulary, where)
    self._tokenizer = Tokenizer(
      models.WordPiece(
        ids,
        unk_token=UNKNOWN,
        continuing_subword_prefix=_CONTINUED,
        max_input_chars_per_word=_MAX_LETTERS,
      )
    )
    self._tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    self._tokenizer.post_processor = processors.BertProcessing((END, ids[END]), (START, ids[START]))

  def __reduce__(self):
    # A loader worker builds the tokenizer again, because the words take fewer bytes than the tokenizer.
    return WordPiece, (self.vocabulary, self._where)

  @classmethod
  def read(cls, path):
    """Reads a vocabulary file: UTF-8 text with one word per line, such as BERT's vocab.txt.

    Raises:
      OSError: if the file is missing or cannot be read.
      ValueError: if the file is not such a text, or the words are not a vocabulary (see `of`).
    """
    path = pathlib.Path(path)
    try:
      text = regular_file.read_bytes(path, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
      raise ValueError(f"{path}: expected a vocabulary in UTF-8, one word per line ({error})") from error
    # `splitlines` would also split at characters such as U+2028, which can be words of a vocabulary.
    lines = text.replace("\r\n", "\n").split("\n")
    if not lines[-1]:
      lines.pop()
    return cls(tuple(lines), str(path))

  @classmethod
  def of(cls, words):
    """Returns the tokenizer of a list of words.

    Raises:
      ValueError: if a special token is missing, the padding is not the first word, a word is empty or not a
        text, or a word occurs twice.
    """
    return cls(tuple(words), "the word list")

  def encode(self, captions, max_tokens):
    """Returns the token ids of captions, with [CLS] before and [SEP] after each caption.

    The name of a special token in a caption is ordinary text. So a caption never has the id 0 of the padding.
    A caption without letters has only the ids of [CLS] and [SEP].

    Args:
      captions: sequence of N str.
      max_tokens: T, the length of a row of ids. A longer caption is cut: its last ids, and so its [SEP], are
        dropped, as in the official code.
    Returns:
      (ids [N, T] int32 padded with 0, lengths [N] int32, number of captions that were cut).
    Raises:
      ValueError: if a caption is not a str, or if max_tokens is below 1.
    """
    if max_tokens < 1:
      raise ValueError(f"text.max_tokens is {max_tokens}, expected at least 1")
    ids = np.zeros((len(captions), max_tokens), np.int32)
    lengths = np.zeros(len(captions), np.int32)
    num_cut = 0
    for i, caption in enumerate(captions):
      if not isinstance(caption, str):
        raise ValueError(f"caption {i} is a {type(caption).__name__}, expected a text: {caption!r:.80}")
      tokens = self._tokenizer.encode(_without_surrogates(caption)).ids
      lengths[i] = min(len(tokens), max_tokens)
      ids[i, : lengths[i]] = tokens[:max_tokens]
      num_cut += len(tokens) > max_tokens
    return ids, lengths, num_cut


def learn_words(captions, *, max_words=1000, min_count=2):
  """Returns a word list for captions: the special tokens, characters, and the most frequent words.

  The list has every character of the captions and every printable ASCII character in lower case, both as the
  start of a word and as a later piece. So any word with these characters has token ids.

  Args:
    captions: sequence of str.
    max_words: the largest number of words with two or more characters.
    min_count: smallest number of occurrences of a word in the captions.
  Returns:
    tuple of str for `WordPiece.of`. It does not depend on the order of the captions.
  """
  normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
  counts = collections.Counter()
  for caption in captions:
    text = normalizer.normalize_str(_without_surrogates(caption))
    counts.update(word for word, _ in splitter.pre_tokenize_str(text))
  ascii_characters = string.ascii_lowercase + string.digits + string.punctuation
  characters = sorted(set(ascii_characters).union(*counts))
  frequent = sorted(
    (word for word, count in counts.items() if count >= min_count and len(word) > 1),
    key=lambda word: (-counts[word], word),
  )
  pieces = (*characters, *(f"{_CONTINUED}{character}" for character in characters))
  # Punctuation is split into single characters. So no frequent word looks like a piece or a special token.
  return (*SPECIAL, *pieces, *frequent[:max_words])


def _checked_ids(vocabulary, where):
  """Returns {word: id}, after a check of the words. `where` is their origin, for error messages."""
  ids = {}
  for i, word in enumerate(vocabulary):
    if not isinstance(word, str) or not word or {"\n", "\r"} & set(word):
      raise ValueError(f"{where}: word {i} is {word!r}, expected one word per line")
    if word in ids:
      raise ValueError(f"{where}: the word {word!r} has the ids {ids[word]} and {i}, expected each word once")
    ids[word] = i
  missing = [word for word in SPECIAL if word not in ids]
  if missing:
    raise ValueError(
      f"{where}: the special tokens {', '.join(missing)} are missing; expected BERT's vocab.txt"
    )
  if ids[PAD]:
    raise ValueError(f"{where}: {PAD} has the id {ids[PAD]}, expected 0; use a vocabulary with {PAD} first")
  return ids


def _without_surrogates(text):
  """Returns a text without lone surrogates, because JSON may contain them, but UTF-8 cannot encode them."""
  return text if text.isascii() else text.encode("utf-8", "ignore").decode()

"""The tokeniser: ids of real and awkward captions, vocabulary files, and processes that fork."""

import json
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

from hap_jax.data.word_piece import SPECIAL, WordPiece, learn_words

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORDS = (*SPECIAL, "a", "man", "##s", "red", "coat", "!", "e", "##e")


def words_of(tokenizer, row, length):
  return [tokenizer.vocabulary[i] for i in row[:length]]


@pytest.fixture(scope="module")
def real(samples):
  """Returns the tokenizer of BERT-base."""
  return WordPiece.read(samples / "text_reid" / "vocab.txt")


@pytest.fixture(scope="module")
def stored(samples):
  """Returns [(caption, token ids that the official preparation stored)]."""
  files = sorted((samples / "text_reid").glob("*/bert_ids.json"))
  assert files
  return [(r["caption"], r["bert_ids"]) for file in files for r in json.loads(file.read_text())]


def test_ids_of_real_captions_are_the_stored_ids(real, stored):
  max_tokens = max(len(ids) for _, ids in stored) + 3
  ids, lengths, num_cut = real.encode([caption for caption, _ in stored], max_tokens)
  assert num_cut == 0
  assert ids.dtype == lengths.dtype == np.int32
  for row, length, (_, expected) in zip(ids, lengths, stored, strict=True):
    assert row[:length].tolist() == expected
    assert not row[length:].any()


def test_a_long_caption_is_cut_and_loses_its_last_token(real):
  # 116 words and the two special tokens: the longest test caption of CUHK-PEDES has this length.
  caption = " ".join(["red"] * 116)
  (whole,), (length,), num_cut = real.encode([caption], 118)
  assert (length, whole[-1], num_cut) == (118, 102, 0)
  ids, lengths, num_cut = real.encode([caption, "red"], 100)
  assert num_cut == 1
  assert lengths.tolist() == [100, 3]
  np.testing.assert_array_equal(ids[0], whole[:100])
  assert 102 not in ids[0]
  assert ids[0].all()  # so the official mask, id != 0, has a one at every position


AWKWARD = {
  "Méń": ["[CLS]", "men", "[SEP]"],  # accents are removed
  "a\tman \n": ["[CLS]", "a", "man", "[SEP]"],
  "man \U0001f600": ["[CLS]", "man", "[UNK]", "[SEP]"],
  "x" * 200: ["[CLS]", "[UNK]", "[SEP]"],
  "shirt.His": ["[CLS]", "shirt", ".", "his", "[SEP]"],
  "red\u3000coat": ["[CLS]", "red", "coat", "[SEP]"],
  "re\u200bd": ["[CLS]", "red", "[SEP]"],  # control characters are removed
  "red \ud800": ["[CLS]", "red", "[SEP]"],  # JSON can contain half of a surrogate pair
  "": ["[CLS]", "[SEP]"],
  " \u200b\x00\ufffd ": ["[CLS]", "[SEP]"],
  "[PAD] [SEP]": ["[CLS]", "[", "pad", "]", "[", "sep", "]", "[SEP]"],  # ordinary text in a caption
}


@pytest.mark.parametrize("caption", AWKWARD, ids=ascii)
def test_awkward_captions_have_the_words_of_bert(real, caption):
  (row,), (length,), _ = real.encode([caption], 100)
  assert words_of(real, row, length) == AWKWARD[caption]


def test_ids_of_awkward_captions_equal_the_ids_of_transformers(real, samples):
  transformers = pytest.importorskip("transformers")
  theirs = transformers.BertTokenizer(vocab=str(samples / "text_reid" / "vocab.txt"))
  for caption in AWKWARD:
    # The class treats the names of special tokens as special, and refuses half of a surrogate pair.
    if "[PAD]" in caption or "\ud800" in caption:
      continue
    (row,), (length,), _ = real.encode([caption], 300)
    assert row[:length].tolist() == theirs(caption)["input_ids"], ascii(caption)


def test_a_caption_must_be_text():
  tokenizer = WordPiece.of(WORDS)
  with pytest.raises(ValueError, match=r"caption 1 is a list, expected a text: \['a'\]"):
    tokenizer.encode(["a", ["a"]], 5)
  with pytest.raises(ValueError, match=r"text.max_tokens is 0"):
    tokenizer.encode(["a"], 0)


def test_a_vocabulary_file_is_read_line_by_line(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_bytes(("\ufeff" + "\r\n".join((*WORDS, "\u2028"))).encode())  # U+2028 is no end of a line
  assert WordPiece.read(path).vocabulary == (*WORDS, "\u2028")
  path.write_text("".join(f"{word}\n" for word in WORDS))
  tokenizer = WordPiece.read(path)
  assert tokenizer.vocabulary == WORDS
  (row,), (length,), _ = tokenizer.encode(["A red man's coats!"], 20)
  expected = ["[CLS]", "a", "red", "man", "[UNK]", "[UNK]", "coat", "##s", "!", "[SEP]"]
  assert words_of(tokenizer, row, length) == expected


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (("a", *WORDS[:4]), r"\[PAD\] has the id 1, expected 0"),
    ((*WORDS[:2], "a"), r"special tokens \[CLS\], \[SEP\] are missing"),
    ((*WORDS, "a"), r"the word 'a' has the ids 4 and 12"),
    ((*WORDS, "", "b"), r"word 12 is '', expected one word per line"),
  ],
)
def test_a_bad_vocabulary_is_an_error_that_names_the_file(tmp_path, words, message):
  path = tmp_path / "vocab.txt"
  path.write_text("".join(f"{word}\n" for word in words))
  with pytest.raises(ValueError, match=rf"vocab\.txt: .*{message}"):
    WordPiece.read(path)
  with pytest.raises(ValueError, match=rf"the word list: .*{message}"):
    WordPiece.of(words)


def test_a_vocabulary_file_that_is_no_text_is_an_error(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_bytes(b"\xff\xfe")
  with pytest.raises(ValueError, match=r"vocab\.txt: expected a vocabulary in UTF-8"):
    WordPiece.read(path)


def test_a_pickled_tokenizer_gives_the_same_ids():
  tokenizer = WordPiece.of(WORDS)
  copy = pickle.loads(pickle.dumps(tokenizer))
  assert copy.vocabulary == WORDS
  np.testing.assert_array_equal(copy.encode(["red coats"], 6)[0], tokenizer.encode(["red coats"], 6)[0])


# Encodes captions, forks, and encodes again in the new process. Prints modules that must not be imported.
IN_A_PROCESS = """
import os, sys
from hap_jax.data.word_piece import WordPiece
tokenizer = WordPiece.of(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "red"))
expected = tokenizer.encode(["red"] * 100, 5)[0].tolist()
child = os.fork()
if not child:
  os._exit(int(tokenizer.encode(["red"] * 100, 5)[0].tolist() != expected))
assert os.waitpid(child, 0)[1] == 0
print([name for name in ("huggingface_hub", "torch", "transformers", "jax") if name in sys.modules])
print(len(os.listdir("/proc/self/task")))
"""


def test_the_tokenizer_imports_no_framework_starts_no_thread_and_survives_a_fork():
  command = [sys.executable, "-c", IN_A_PROCESS]
  # OpenBLAS would start threads when NumPy is imported.
  env = {"PATH": "", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
  result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
  assert (result.returncode, result.stderr) == (0, "")
  assert result.stdout.splitlines() == ["[]", "1"]


def test_a_learned_word_list_spells_every_caption():
  captions = ["A man in a red coat.", "A red coat, red shoes", "Éé ünïque 红"]
  words = learn_words(captions, max_words=2)
  assert words[:4] == SPECIAL
  assert len(set(words)) == len(words)
  assert words[-2:] == ("red", "coat")  # the most frequent words with two characters or more
  assert learn_words(captions[::-1], max_words=2) == words
  tokenizer = WordPiece.of(words)
  ids, lengths, _ = tokenizer.encode([*captions, "zebra-crossing 42?"], 40)
  unknown = words.index("[UNK]")
  assert unknown not in ids
  assert words_of(tokenizer, ids[1], lengths[1])[:4] == ["[CLS]", "a", "red", "coat"]


def test_a_rare_word_is_spelled_with_characters():
  words = learn_words(["red coat", "red shoes"], min_count=2)
  assert "red" in words
  assert "shoes" not in words

"""NumPy's generators of many records at once: those of np.random.default_rng, in a quarter of the time.

Most of the time that default_rng takes goes into hashing its seed. NumPy's SeedSequence is a fixed algorithm
(its reference says so; after M. E. O'Neill's alternatives to seed_seq), so the hashes of a batch are computed
here as arrays. A test compares the generators with NumPy's own.
"""

import functools
import sys

import numpy as np
from numpy.random.bit_generator import ISeedSequence

_POOL = 4  # words of 32 bits that a seed is mixed into
_STATE = 8  # words of 32 bits that PCG64 starts from
_HASH_START, _HASH_FACTOR = 0x43B0D7E5, 0x931E8875
_OUT_START, _OUT_FACTOR = 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_SHIFT = np.uint32(16)
_WORD = 2**32


def of_records(seed, epoch, *numbers):
  """Returns the generators np.random.default_rng((seed, epoch, i, ...)) for the rows (i, ...) of `numbers`.

  Args:
    seed, epoch: whole numbers, not negative.
    *numbers: each [B] whole numbers from 0 to 2**32 - 1; the first is the record's.
  """
  numbers = [np.asarray(column, np.uint32) for column in numbers]
  words = [np.full(len(numbers[0]), word, np.uint32) for word in (*_words(seed), *_words(epoch))]
  return [np.random.Generator(np.random.PCG64(_State(words))) for words in _states(_pool([*words, *numbers]))]


def of_batch(seed, epoch, index):
  """Returns a generator for each row of a batch's record numbers `index` [B], no two of them alike.

  A record's first row has that of `of_records`, whatever else is in the batch; its n-th further one has that
  of (i, 0, n), so that pictures that a batch holds twice are not augmented alike.
  """
  rngs = of_records(seed, epoch, index)
  repeats = _count_before(np.asarray(index))
  again = np.flatnonzero(repeats)
  if again.size:
    numbers = np.asarray(index)[again], np.zeros(again.size), repeats[again]
    for row, rng in zip(again, of_records(seed, epoch, *numbers), strict=True):
      rngs[row] = rng
  return rngs


def _count_before(values):
  """Counts for each of [B] values how many equal ones stand before it."""
  order = np.argsort(values, kind="stable")
  ordered = values[order]
  is_first = np.r_[True, ordered[1:] != ordered[:-1]][: len(values)]
  rank = np.arange(len(values))
  counts = np.empty(len(values), np.int64)
  counts[order] = rank - np.maximum.accumulate(np.where(is_first, rank, 0))
  return counts


class _State(ISeedSequence):
  """Hands a state computed beforehand to PCG64, which asks for it once, as 4 numbers of 64 bits."""

  def __init__(self, words):
    self._words = words

  def generate_state(self, n_words, dtype=np.uint32):
    return self._words


def _words(number):
  """Cuts a whole number into words of 32 bits, the lowest first; 0 is one word."""
  words = [number % _WORD]
  while number := number // _WORD:
    words.append(number % _WORD)
  return words


def _hashes(start, factor):
  """Yields the functions that hash words, each with the next two constants."""
  constant = start
  while True:
    before, constant = constant, constant * factor % _WORD
    yield functools.partial(_hash, np.uint32(before), np.uint32(constant))


def _hash(before, after, words):
  words = (words ^ before) * after
  return words ^ (words >> _SHIFT)


def _pool(words):
  """Mixes words ([B] uint32 each) into the pool: _POOL arrays [B] uint32."""
  hashes = _hashes(_HASH_START, _HASH_FACTOR)
  zero = np.zeros_like(words[0])
  pool = [next(hashes)(word) for word in (*words, *[zero] * _POOL)[:_POOL]]
  for i in range(_POOL):
    for j in range(_POOL):
      if i != j:
        pool[j] = _mix(pool[j], next(hashes)(pool[i]))
  for word in words[_POOL:]:
    pool = [_mix(mixed, next(hashes)(word)) for mixed in pool]
  return pool


def _mix(a, b):
  mixed = a * _MIX_LEFT - b * _MIX_RIGHT
  return mixed ^ (mixed >> _SHIFT)


def _states(pool):
  """Returns [B, 4] uint64, what PCG64 starts from."""
  hashes = _hashes(_OUT_START, _OUT_FACTOR)
  words = np.stack([next(hashes)(pool[i % _POOL]) for i in range(_STATE)], axis=1)
  if sys.byteorder == "big":
    words = np.ascontiguousarray(words.reshape(-1, _STATE // 2, 2)[..., ::-1]).reshape(-1, _STATE)
  return words.view(np.uint64)

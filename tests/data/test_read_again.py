"""Reads that end in an error of the storage are tried again, and counted. The errors come from the system."""

import dataclasses
import errno
import logging
import pathlib
import time

import numpy as np
import pytest

from hap_jax.data.loader import Loader
from hap_jax.data.read_again import is_momentary
from hap_jax.data.samplers import Sequential
from hap_jax.data.sources import base, folder
from hap_jax.data.transforms.image import ResizeWhole
from hap_jax.io import picture_file

COUNT = 12
# A regular file whose reads end in EIO: no memory is mapped at address 0.
ALWAYS_EIO = pathlib.Path("/proc/self/mem")


class Repaired:
  """A source whose broken files are repaired after some failed reads.

  Attributes:
    source: a source of pictures.
    files: {name of a record: (its path, which is a link to ALWAYS_EIO, path of the right file)}.
    at: number of failed reads of a record, after which its file is repaired.
  """

  def __init__(self, source, files, at):
    self.source, self.files, self.at = source, files, at
    self.spec, self.num_failed = source.spec, 0

  def __len__(self):
    return len(self.source)

  def __getitem__(self, index):
    try:
      return self.source[index]
    except base.BadRecordError:
      self.num_failed += 1
      if self.num_failed == self.at:
        path, right = self.files.pop(self.name(index))
        right.replace(path)
        self.num_failed = 0
      raise

  def name(self, index):
    return self.source.name(index)


def break_files(root, numbers):
  files = {}
  for number in numbers:
    path = root / f"{number:02d}.png"
    files[path.name] = (path, path.rename(root / f".{number:02d}"))
    path.symlink_to(ALWAYS_EIO)
  return files


@pytest.fixture
def pictures(tmp_path):
  rng = np.random.default_rng(0)
  for number in range(COUNT):
    picture_file.write(tmp_path / f"{number:02d}.png", rng.integers(0, 256, (8, 4, 3), np.uint8))
  return folder.open_source(root=str(tmp_path), split="all")


def make_loader(source, **options):
  options = {"waits": (0.001, 0.001, 0.001), "max_bad_share": 0.5} | options
  return Loader(source, (ResizeWhole((8, 4)),), Sequential(COUNT, 4), seed=0, fields=("image",), **options)


def read_all(loader):
  with loader.iterate(0) as batches:
    return list(batches)


def messages(caplog, part):
  return [entry.getMessage() for entry in caplog.records if part in entry.getMessage()]


@pytest.mark.parametrize("at", [1, 3])
def test_a_record_whose_storage_recovers_is_read_and_counted(pictures, tmp_path, caplog, at):
  expected = read_all(make_loader(pictures))
  source = Repaired(pictures, break_files(tmp_path, (2, 5, 6)), at)
  with caplog.at_level(logging.WARNING, logger="absl"):
    batches = read_all(make_loader(source))
  assert not source.files
  for batch, whole in zip(batches, expected, strict=True):
    for name, rows in whole.items():
      np.testing.assert_array_equal(batch[name], rows)
  assert not messages(caplog, "is not used")
  # Only the 1st and the 10th record are logged.
  (message,) = messages(caplog, "read only after another try")
  assert "records of folder that were read only after another try: 1 so far" in message
  assert "02.png: cannot be read: Input/output error" in message


@pytest.mark.parametrize("workers", [0, 1])
def test_a_record_whose_storage_does_not_recover_is_bad_after_four_tries(pictures, tmp_path, caplog, workers):
  break_files(tmp_path, (5,))
  with caplog.at_level(logging.WARNING, logger="absl"):
    batches = read_all(make_loader(pictures, workers=workers))
  assert [index for batch in batches for index in batch["index"]] == [*range(5), 6, *range(6, COUNT)]
  (message,) = messages(caplog, "is not used")
  assert "05.png: cannot be read: Input/output error (number of tries: 4)" in message


def test_a_batch_waits_for_at_most_ten_records(pictures, tmp_path):
  break_files(tmp_path, range(COUNT - 1))
  sampler = Sequential(COUNT, COUNT)
  loader = dataclasses.replace(make_loader(pictures, waits=(0.001,)), sampler=sampler)
  batch, bad, _ = loader.read_batch(0)
  assert set(batch["index"]) == {COUNT - 1}
  tries = [int(text.partition("number of tries: ")[2].rstrip(")")) for text in bad.values()]
  assert tries == [2] * 10 + [1]


def test_a_source_that_raises_the_error_of_the_system_follows_the_same_rule(pictures):
  class Raw(Repaired):
    def __getitem__(self, index):
      if index == 3:
        raise OSError(errno.ESTALE, "Stale file handle", self.name(index))
      return self.source[index]

  _, bad, repeated = make_loader(Raw(pictures, {}, 0)).read_batch(0)
  assert list(bad) == [3]
  assert "Stale file handle" in bad[3]
  assert repeated == {}


def test_other_errors_are_not_tried_again(pictures, tmp_path):
  (tmp_path / "05.png").write_bytes(b"no picture")
  (tmp_path / "06.png").unlink()
  before = time.monotonic()
  _, bad, _ = make_loader(pictures, waits=(60.0,)).read_batch(1)
  assert time.monotonic() - before < 30
  assert sorted(bad) == [5, 6]


def test_the_error_text_of_the_array_record_reader_is_recognised():
  # The message of array_record when pread ends in EIO. Its reader works again after the error.
  text = (
    "pread() failed: Input/output error; reading a.array_record; at byte 30021556; Could not read from the "
    "underlying reader; at byte 0"
  )
  error = base.BadRecordError("record 3: cannot be read")
  error.__cause__ = RuntimeError(text)
  assert is_momentary(error)
  assert not is_momentary(RuntimeError("read() failed: Is a directory; reading a.array_record"))

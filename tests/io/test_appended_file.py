"""An appended file keeps the bytes that a full disk does not accept, and writes them later."""

import errno
import os
import resource

import pytest

from hap_jax.io.appended_file import AppendedFile


@pytest.fixture
def limit_files():
  """Returns a function that sets the largest size of a file in bytes, as a quota or a full disk does."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_bytes_that_a_full_disk_does_not_accept_are_written_later(tmp_path, limit_files):
  path = tmp_path / "folder" / "lines"
  file = AppendedFile(path)
  file.append(b"1234567\n")
  limit_files(12)
  for line in (b"2234567\n", b"3234567\n"):
    with pytest.raises(OSError, match=str(path)) as error:
      file.append(line)
    assert error.value.errno == errno.EFBIG
  assert path.read_bytes() == b"1234567\n2234"  # a part of a line
  limit_files(resource.RLIM_INFINITY)
  file.append(b"4234567\n")
  assert path.read_bytes() == b"1234567\n2234567\n3234567\n4234567\n"
  file.close()


def test_a_file_that_cannot_be_opened_is_opened_later(tmp_path):
  (tmp_path / "lines").mkdir()
  file = AppendedFile(tmp_path / "lines", first=b"\n")
  with pytest.raises(IsADirectoryError):
    file.append(b"1\n")
  with pytest.raises(IsADirectoryError):
    file.flush()
  (tmp_path / "lines").rmdir()
  file.append(b"2\n")
  assert (tmp_path / "lines").read_bytes() == b"\n1\n2\n"
  file.close()


def test_bytes_that_wait_do_not_fill_the_memory(tmp_path, monkeypatch):
  monkeypatch.setattr("hap_jax.io.appended_file._MOST_WAITING", 4)
  (tmp_path / "lines").mkdir()
  file = AppendedFile(tmp_path / "lines")
  for line in (b"1\n", b"2\n", b"3\n"):
    with pytest.raises(IsADirectoryError):
      file.append(line)
  (tmp_path / "lines").rmdir()
  file.close()
  assert (tmp_path / "lines").read_bytes() == b"1\n2\n"


def test_close_reports_lost_bytes_and_closes_the_file(tmp_path, limit_files):
  file = AppendedFile(tmp_path / "lines")
  file.append(b"1\n")
  before = len(os.listdir("/proc/self/fd"))
  limit_files(2)
  for _ in range(2):
    with pytest.raises(OSError, match="File too large"):
      file.append(b"2\n")
  with pytest.raises(OSError, match="File too large"):
    file.close()
  assert len(os.listdir("/proc/self/fd")) == before - 1

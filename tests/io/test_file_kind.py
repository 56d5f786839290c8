"""A file that holds no tensors is an error that names its kind and the remedy."""

import gzip
import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from hap_jax.io import file_kind, safetensors_file, torch_file
from tests.io import torch_bytes

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 343276189\n"


def picture(kind):
  file = io.BytesIO()
  Image.new("RGB", (8, 8)).save(file, kind)
  return file.getvalue()


def archive():
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode="w") as made:
    made.addfile(tarfile.TarInfo("model.pth"))
  return file.getvalue()


KINDS = {
  "empty": (b"", "the file is empty: download or copy it again"),
  "pointer": (POINTER.encode(), r"a Git LFS pointer, not the file itself: fetch the file \(git lfs pull\)"),
  "page": (b"\n<!DOCTYPE html>\n<html lang=en>", "an HTML page, .*: download the file again"),
  "marked page": (b"\xef\xbb\xbf<html>", "an HTML page"),
  "xhtml": (b'<?xml version="1.0"?><html xmlns="x">', "an HTML page"),
  "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML text"),
  "json": (b'{"error": "not found"}', "a JSON text"),
  "text": (b"Invalid username or password.", "a text file"),
  **{kind: (picture(kind), f"an? {kind} picture") for kind in ("PNG", "JPEG", "GIF", "BMP", "WebP")},
  "gzip": (gzip.compress(b"a"), "compressed by gzip: unpack it first"),
  "tar": (archive(), "a tar archive: unpack it first"),
  "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(9), "an HDF5 file"),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("read", [torch_file.load, safetensors_file.load])
def test_a_file_of_another_kind_is_an_error_that_names_the_kind(tmp_path, read, name):
  content, words = KINDS[name]
  path = tmp_path / "weights.pth"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=rf"weights\.pth: (this is )?{words}"):
    read(path)


@pytest.mark.parametrize("start", [b"BM", b"\x1f\x8b", b"GI"])
def test_a_safetensors_file_may_begin_with_the_first_bytes_of_another_kind(tmp_path, start):
  path, wanted = tmp_path / "weights.safetensors", int.from_bytes(start, "little")
  header = b'{"__metadata__":{"note":"' + b"a" * 9 + b'"}}'
  header = header.replace(b"a" * 9, b"a" * (wanted - len(header) + 9))
  path.write_bytes(wanted.to_bytes(8, "little") + header)
  assert path.read_bytes().startswith(start)
  tensors, metadata = safetensors_file.load(path)
  assert not tensors
  assert set(metadata["note"]) == {"a"}


def test_files_of_pytorch_are_of_no_other_kind(tmp_path):
  path = tmp_path / "weights.pth"
  for make in (torch_bytes.zip_file, torch_bytes.legacy_file):
    path.write_bytes(make({"weight": np.ones(2, np.float32)}))
    file_kind.check(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_program_is_an_error_that_says_so(tmp_path):
  torch = pytest.importorskip("torch")
  torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "program.pt")
  with pytest.raises(ValueError, match=r"program\.pt: this is a TorchScript program: save its state_dict"):
    torch_file.load(tmp_path / "program.pt")

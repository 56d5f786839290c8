"""Recognises files that hold no tensors, such as a web page that was saved in place of a checkpoint."""

_HEAD_BYTES = 512
_TAR = 257, b"ustar"  # place and text of the magic number of a tar archive
# (first bytes, kind of the file and what the user can do)
_KINDS = (
  (
    b"version https://git-lfs.github.com/spec/",
    "a Git LFS pointer, not the file itself: fetch the file (git lfs pull)",
  ),
  (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
  (b"\xff\xd8\xff", "a JPEG picture"),
  (b"GIF8", "a GIF picture"),
  (b"BM", "a BMP picture"),
  (b"%PDF-", "a PDF document"),
  (
    b"\x89HDF\r\n\x1a\n",
    "an HDF5 file, as Keras writes it: save the weights as .safetensors",
  ),
  (b"\x1f\x8b", "compressed by gzip: unpack it first"),
  (b"BZh", "compressed by bzip2: unpack it first"),
  (b"\xfd7zXZ\x00", "compressed by xz: unpack it first"),
  (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
  (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
  (b"Rar!\x1a\x07", "a RAR archive: unpack it first"),
)
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body")
_PAGE = "an HTML page, such as an error or a login of a web server: download the file again"


def check(path):
  """Raises ValueError if a file is empty or of a kind that holds no tensors. The message names the kind.

  Raises:
    OSError: if the file cannot be read.
  """
  with path.open("rb") as file:
    head = file.read(_HEAD_BYTES)
  if not head:
    raise ValueError(f"{path}: the file is empty: download or copy it again")
  kind = _kind_of(head)
  if kind:
    raise ValueError(f"{path}: this is {kind}")


def _kind_of(head):
  """Returns the kind of a file as text, or "" if its first bytes may begin a checkpoint."""
  # A .safetensors file begins with the length of its header, which may have the first bytes of any kind.
  if head[6:9] == b"\0\0{":
    return ""
  for start, kind in _KINDS:
    if head.startswith(start):
      return kind
  if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
    return "a WebP picture"
  place, text = _TAR
  if head[place : place + len(text)] == text:
    return "a tar archive: unpack it first"
  text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
  if text.startswith(_PAGES) or (text.startswith(b"<?xml") and b"<html" in text):
    return _PAGE
  if text.startswith(b"<?xml"):
    return "an XML text, such as an error of a web server: download the file again"
  if text.startswith((b"{", b"[")) and _is_text(head):
    return "a JSON text: give the file of the tensors, or the folder that holds it"
  return "a text file" if len(text) > 16 and _is_text(head) else ""


def _is_text(head):
  # Pickles of protocol 0 are text, too. They begin with a mark, a container or a name in its own line.
  return not head.startswith((b"(", b"c", b"]", b"}")) and all(
    32 <= byte < 127 or byte in b"\t\r\n" for byte in head
  )

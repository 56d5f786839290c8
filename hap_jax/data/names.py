"""Stores many strings in one block of bytes, which takes little memory and is sent to workers quickly."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Names:
  """N strings without NUL characters. Two million names take 60 MB.

  A file name may contain bytes that are not UTF-8. They are kept as lone surrogates, as Python does with
  errors="surrogateescape".

  Attributes:
    text: the strings in UTF-8, with one NUL byte after each string.
    ends: [N] int64, position of the NUL byte after each string.
  """

  text: bytes
  ends: np.ndarray

  @classmethod
  def of(cls, names):
    """Packs strings. They must not contain NUL: the callers check this first, see `base.check_relative`."""
    text = "\0".join([*names, ""]).encode("utf-8", "surrogatepass")
    return cls(text, np.flatnonzero(np.frombuffer(text, np.uint8) == 0))

  def __len__(self):
    return len(self.ends)

  def __getitem__(self, index):
    if not 0 <= index < len(self.ends):
      raise IndexError(f"record {index} of {len(self.ends)}")
    start = self.ends[index - 1] + 1 if index else 0
    return self.text[start : self.ends[index]].decode("utf-8", "surrogatepass")

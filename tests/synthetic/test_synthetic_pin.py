"""Pins the bytes of some records of synthetic people, both pixels and ground truth.

Published figures depend on these pictures, so a change of one bit fails here. The bytes do not depend on the
version of Python, on the order of drawing or on the process.
"""

import hashlib

import numpy as np
import pytest

from hap_jax.synthetic import draw

VAL, TEST = draw.FIRST_INDEX["val"], draw.FIRST_INDEX["test"]
PINNED = (
  (0, 0, (256, 128), False, "2d9a02e915830943013793c3bb2514b378278fd77c128b79b43b2a5d150f2bbd"),
  (0, 1234, (80, 40), False, "84e9d608fa8bcde5967b4e2eede5ce36b84964288566ad272149ea8506dc9b0f"),
  (7, 1235, (256, 128), False, "4786517a6371a26863ff3ca19657b6f3d6ad4d72268d307489afd5e63945c0d5"),
  (0, VAL + 5, (80, 40), False, "5d908af789b2c88af3a64c9ebbe9f55638bfad4eee1a85e228ccae12d4af4eed"),
  (1, VAL + 803, (256, 128), False, "369331bb3905c950f063954b495947633d602004317c93edf28b93a65b11a1a9"),
  (3, TEST + 99, (384, 288), False, "c55dbde63069adfab0ae222a128352aff5e96ce4be9837373bbd0d59b84d8a6c"),
  (0, 17, (128, 64), True, "a4b08b466da0546c663433dc37498885eb65196c76bc03801188ea024ad9a2bc"),
  (2, TEST + 1030, (256, 128), True, "756f020a0425b1345789678ab54096ebe3c91794b386b0232f5613d2ea5d0727"),
  (5, 91, (256, 192), False, "898fc2d65ac5a23b800c21514e0aca9f30d00e7acad71b7f04f7088b5dc55be7"),
)


def digest(record):
  """Returns the SHA-256 of the names, types, shapes and bytes of all fields."""
  total = hashlib.sha256()
  for name in sorted(record):
    value = record[name]
    if isinstance(value, np.ndarray):
      total.update(f"{name} {value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    else:
      total.update(f"{name} {value!r}".encode())
  return total.hexdigest()


@pytest.mark.parametrize(("seed", "index", "size", "is_empty", "wanted"), PINNED)
def test_record_has_the_pinned_bytes(seed, index, size, is_empty, wanted):
  assert digest(draw.draw_person(seed, index, size, is_empty=is_empty)) == wanted

"""After `keep_freed`, a process reuses its freed memory and does not request it from the system again."""

import ctypes
import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
import numpy as np
from hap_jax import malloc
if sys.argv[1] == "kept":
  malloc.keep_freed()
def faults():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
  before = faults()
  np.ones(64 << 20, np.uint8)
  found = faults() - before
print(found)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc has mallopt")
@pytest.mark.soak  # other processes on the machine change the numbers
def test_a_freed_block_is_reused_without_page_faults():
  found = {}
  for mode in ("kept", "as_it_is"):
    done = subprocess.run([sys.executable, "-c", _PROGRAM, mode], check=True, capture_output=True, text=True)
    found[mode] = int(done.stdout)
  assert found["kept"] <= 5 < 20 <= found["as_it_is"]  # 64 MiB are 32 huge pages or 16,384 small pages

"""Freed memory that a process keeps is not fetched from the system again."""

import ctypes
import os
import subprocess
import sys

import jax
import pytest

from hap_jax import malloc

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


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc can be told")
def test_a_block_that_was_freed_is_taken_again_without_page_faults():
  found = {}
  for mode in ("kept", "as_it_is"):
    done = subprocess.run([sys.executable, "-c", _PROGRAM, mode], check=True, capture_output=True, text=True)
    found[mode] = int(done.stdout)
  assert found["kept"] <= 5 < 20 <= found["as_it_is"]  # 32 huge pages, 16,384 small ones


_STEPS = """
import resource, statistics, sys
from hap_jax import malloc
if sys.argv[1] == "kept":
  malloc.keep_freed_on_cpu()
import jax, jax.numpy as jnp
step = jax.jit(lambda x: x + jax.lax.optimization_barrier(x.T), donate_argnums=0)  # a temporary of 64 MiB
x, found = jnp.ones((4096, 4096)), []
for _ in range(12):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  x = jax.block_until_ready(step(x))
  found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(int(statistics.median(found[4:])))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc can be told")
def test_temporaries_of_a_step_are_taken_again_without_page_faults():
  found = {}
  for mode in ("kept", "as_it_is"):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-c", _STEPS, mode]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    found[mode] = int(done.stdout)
  assert found["kept"] <= 5 < 20 <= found["as_it_is"]  # 32 huge pages, 16,384 small ones


@pytest.mark.parametrize(
  ("platforms", "plugins", "is_kept"),
  [("cpu", ["cuda"], True), ("", [], True), ("", ["cuda"], False), ("cuda,cpu", ["cuda"], False)],
)
def test_only_a_process_that_computes_on_a_cpu_is_told(monkeypatch, platforms, plugins, is_kept):
  told = []
  monkeypatch.setattr(jax.config, "update", lambda *option: told.append(option))
  monkeypatch.setitem(os.environ, "JAX_PLATFORMS", platforms)
  monkeypatch.setattr(malloc.importlib.metadata, "entry_points", lambda group: plugins)
  monkeypatch.setattr(malloc.importlib.util, "find_spec", lambda name: None)
  monkeypatch.setattr(malloc, "keep_freed", lambda threads: told.append(threads))
  malloc.keep_freed_on_cpu()
  assert told == ([False, ("jax_cpu_enable_async_dispatch", False)] if is_kept else [])

"""What benchmarks ask of jax: the device, compile times cold and cached, memory, recompiles, host syncs."""

import contextlib
import tempfile
import time

import jax
from jax.experimental.compilation_cache import compilation_cache

from benchmarks import measure

_COMPILED = "/jax/core/compile/backend_compile_duration"
_CACHE_HIT = "/jax/compilation_cache/cache_hits"
_CACHE_OPTIONS = {
  "jax_persistent_cache_min_compile_time_secs": 0.0,
  "jax_persistent_cache_min_entry_size_bytes": -1,
}


def device():
  """Returns kind, platform and number of the devices of this process."""
  first = jax.devices()[0]
  return {"kind": first.device_kind, "platform": first.platform, "count": len(jax.devices())}


def line(bench, found, *packages):
  """Returns the line of a benchmark that computes with jax; see `measure.line`."""
  return measure.line(bench, {**found, "device": device()}, "jax", "jaxlib", *packages)


class Events:
  """Counts programs that jax compiles, and programs that it reads from its cache, while `counting`."""

  def __init__(self):
    self.compiled = self.cache_hits = 0
    self._is_counting = False
    # jax cannot remove a listener: these stay, and count nothing outside `counting`.
    jax.monitoring.register_event_duration_secs_listener(self._on_duration)
    jax.monitoring.register_event_listener(self._on_event)

  def _on_duration(self, name, _, **__):
    self.compiled += self._is_counting and name == _COMPILED

  def _on_event(self, name, **_):
    self.cache_hits += self._is_counting and name == _CACHE_HIT

  @contextlib.contextmanager
  def counting(self):
    """Context that counts anew, from 0."""
    self.compiled, self.cache_hits, self._is_counting = 0, 0, True
    try:
      yield self
    finally:
      self._is_counting = False


@contextlib.contextmanager
def empty_persistent_cache():
  """Context with an empty persistent compilation cache."""
  names = ("jax_compilation_cache_dir", *_CACHE_OPTIONS)
  before = {name: getattr(jax.config, name) for name in names}
  with tempfile.TemporaryDirectory() as folder:
    try:
      for name, value in {"jax_compilation_cache_dir": folder, **_CACHE_OPTIONS}.items():
        jax.config.update(name, value)
      compilation_cache.reset_cache()
      yield folder
    finally:
      for name, value in before.items():
        jax.config.update(name, value)
      compilation_cache.reset_cache()


def compile_times(function, *arguments):
  """Compiles a jitted function cold and once more from a persistent cache.

  Returns:
    (the compiled function, {"trace_seconds", "compile_seconds", "compile_cpu_seconds",
    "compile_cached_seconds"}). Tracing, which no cache saves, is not part of the others. The last is None
    where jax cannot store the program, as with oneDNN's products on a CPU.
  """
  events = Events()
  with empty_persistent_cache():
    jax.clear_caches()
    start = time.perf_counter()
    lowered = function.lower(*arguments)
    traced = time.perf_counter()
    _, cold_cpu, cold = measure.timed(lowered.compile)
    jax.clear_caches()
    lowered = function.lower(*arguments)
    with events.counting():
      before = time.perf_counter()
      compiled = lowered.compile()
      cached = time.perf_counter() - before
  return compiled, {
    "trace_seconds": round(traced - start, 2),
    "compile_seconds": round(cold, 2),
    "compile_cpu_seconds": round(cold_cpu, 2),
    "compile_cached_seconds": round(cached, 2) if events.cache_hits else None,
  }


def memory(compiled, batch):
  """Returns the device memory of a compiled step by XLA's own analysis, in bytes, and the share per picture.

  `arguments` are state and batch; `temporaries` live while the step runs, and grow with the batch.
  """
  found = compiled.memory_analysis()
  return {
    "arguments": found.argument_size_in_bytes,
    "temporaries": found.temp_size_in_bytes,
    "temporaries_per_image": round(found.temp_size_in_bytes / batch),
  }


def host_syncs(call, count):
  """Returns the share of `count` calls that copy anything from device to host; None on a CPU.

  jax's guard stops such a copy, so a call that is stopped is made again without the guard. On a CPU there is
  nothing to copy, because arrays of the device are the host's.
  """
  if jax.default_backend() == "cpu":
    return None
  stopped = 0
  for _ in range(count):
    try:
      with jax.transfer_guard_device_to_host("disallow_explicit"):
        call()
    except jax.errors.JaxRuntimeError:
      stopped += 1
      call()
  return stopped / count

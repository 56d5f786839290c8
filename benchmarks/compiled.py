"""Measurements of jax for the benchmarks: device, compile time, memory, recompilation, copies to the host."""

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
  """Returns the line of a benchmark that uses jax; see `measure.line`."""
  return measure.line(bench, {**found, "device": device()}, "jax", "jaxlib", *packages)


class Events:
  """Counts the programs that jax compiles and the programs that it reads from its cache."""

  def __init__(self):
    self.compiled = self.cache_hits = 0
    self._is_counting = False
    # jax cannot remove a listener. So the listeners stay for ever, but outside `counting` they count nothing.
    jax.monitoring.register_event_duration_secs_listener(self._on_duration)
    jax.monitoring.register_event_listener(self._on_event)

  def _on_duration(self, name, _, **__):
    self.compiled += self._is_counting and name == _COMPILED

  def _on_event(self, name, **_):
    self.cache_hits += self._is_counting and name == _CACHE_HIT

  @contextlib.contextmanager
  def counting(self):
    """Context manager: sets the counts to 0 and counts until the end of the `with` block."""
    self.compiled, self.cache_hits, self._is_counting = 0, 0, True
    try:
      yield self
    finally:
      self._is_counting = False


@contextlib.contextmanager
def empty_persistent_cache():
  """Context manager: jax uses an empty persistent compilation cache inside the `with` block."""
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
  """Compiles a jitted function twice: with an empty cache, then from a persistent cache.

  Returns:
    (the compiled function, {"trace_seconds", "compile_seconds", "compile_cpu_seconds",
    "compile_cached_seconds"}). The tracing is not in the other times, because no cache can save it.
    "compile_cached_seconds" is None if jax cannot store the program, for example with oneDNN's matrix
    products on a CPU.
  """
  events = Events()
  with empty_persistent_cache():
    jax.clear_caches()
    start = time.perf_counter()
    lowered = function.lower(*arguments)
    traced = time.perf_counter()
    _, cold_cpu, cold = measure.timed(lowered.compile)
    jax.clear_caches()  # removes the program from memory, so that the second compilation reads the file
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
  """Returns the device memory of a compiled step in bytes, from XLA's own analysis.

  Returns:
    {"arguments": state and batch, "temporaries": memory that is only used while the step runs,
    "temporaries_per_image": the temporaries divided by `batch`, because they grow with the batch}.
  """
  found = compiled.memory_analysis()
  return {
    "arguments": found.argument_size_in_bytes,
    "temporaries": found.temp_size_in_bytes,
    "temporaries_per_image": round(found.temp_size_in_bytes / batch),
  }


def host_syncs(call, count):
  """Returns the share of `count` calls that copy data from device to host, or None on a CPU.

  The transfer guard of jax raises an error at such a copy. The call is then repeated without the guard. On a
  CPU nothing is copied, because device and host share the arrays.
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

"""Reuses compiled programs within one test process.

A run, its resumption and its evaluation make the same functions again, so jax compiles equal programs several
times. A compilation cache on disk would avoid this, but it must stay off, see conftest.py. So this module
keeps compiled programs in memory. A program is reused only if its code, its devices and its compiler options
are equal. It is then the same object as before, as if the first function were called again.
"""

import collections
import functools
import time

import jax

_MIN_SECONDS = 0.05  # programs that compile faster are compiled again
_MOST = 100  # programs in memory; the one that was not used for the longest time is dropped


def install():
  """Makes jax look for a compiled program in memory before it compiles. A cache on disk turns this off.

  jax has no public interface for this. If a later version lacks the functions, all programs are compiled.
  """
  try:
    from jax._src import cache_key, compiler

    compile_program, make_key = compiler.compile_or_get_cached, cache_key.get
  except (ImportError, AttributeError):
    return
  programs = collections.OrderedDict()  # {key: compiled program}, ordered by the last use

  @functools.wraps(compile_program)
  def find_or_compile(backend, computation, devices, options, host_callbacks, *rest, **named):
    def compiled():
      return compile_program(backend, computation, devices, options, host_callbacks, *rest, **named)

    # A program with callbacks belongs to the Python functions of its first use.
    if jax.config.jax_compilation_cache_dir is not None or host_callbacks:
      return compiled()
    key = make_key(computation, devices, options, backend)
    if key not in programs:
      before = time.process_time()
      program = compiled()
      if time.process_time() - before < _MIN_SECONDS:
        return program
      programs[key] = program
    programs.move_to_end(key)
    if len(programs) > _MOST:
      programs.popitem(last=False)
    return programs[key]

  compiler.compile_or_get_cached = find_or_compile

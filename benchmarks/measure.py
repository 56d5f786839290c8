"""Functions for all benchmarks: timing, facts about the machine, and the line to print. Imports no jax.

CPU seconds include all threads of this process. On a machine with other work, CPU seconds are more reliable
than wall time. On an accelerator, wall time is more reliable.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time

_LOAD = os.getloadavg()[0]  # read at import, before the benchmark itself loads the machine


def make_parser(doc):
  """Returns the parser of a benchmark's command line. `doc` is the benchmark's docstring, shown by --help."""
  return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)


def parse_size(text):
  """Returns "256x128" as (256, 128): rows and columns, in pixels or patches."""
  rows, columns = text.lower().split("x")
  return int(rows), int(columns)


def timed(function, *arguments):
  """Runs a function once. Returns (its result, CPU seconds, wall seconds)."""
  start_wall, start_cpu = time.perf_counter(), time.process_time()
  result = function(*arguments)
  return result, time.process_time() - start_cpu, time.perf_counter() - start_wall


def time_in_turn(parts, *, warmup, repeats, per=1):
  """Runs all parts in every round, so that other work on the machine slows all parts equally.

  Args:
    parts: {name: function(number of the round)}. A function returns when its work is done.
    warmup: number of untimed rounds at the start.
    repeats: number of timed rounds.
    per: divisor of the seconds of a round, for example its number of steps.
  Returns:
    {name: [(CPU seconds, wall seconds), ...], one pair per timed round}.
  """
  times = {name: [] for name in parts}
  for number in range(warmup + repeats):
    for name, part in parts.items():
      _, cpu, wall = timed(part, number)
      if number >= warmup:
        times[name].append((cpu / per, wall / per))
  return times


def summary(times, prefix=""):
  """Returns median and minimum of [(CPU seconds, wall seconds), ...], with six significant digits."""
  cpu, wall = zip(*times, strict=True)
  return {
    f"{prefix}cpu_seconds_median": digits(statistics.median(cpu)),
    f"{prefix}cpu_seconds_min": digits(min(cpu)),
    f"{prefix}wall_seconds_median": digits(statistics.median(wall)),
    f"{prefix}wall_seconds_min": digits(min(wall)),
  }


def digits(value, count=6):
  """Rounds a number to `count` significant digits."""
  return float(f"{value:.{count}g}")


def median_ratio(ours, theirs, which=0):
  """Returns the median of ours / theirs over the rounds.

  Each ratio uses two times of the same round, because other work on the machine slows both parts of a round.

  Args:
    ours: [(CPU seconds, wall seconds), ...], one pair per round.
    theirs: the same for the other part.
    which: 0 compares CPU seconds, 1 compares wall seconds.
  """
  return round(statistics.median(a[which] / b[which] for a, b in zip(ours, theirs, strict=True)), 3)


def line(bench, found, *packages):
  """Returns the line of a benchmark: name, results, machine, and the versions of Python and `packages`."""
  versions = {name: importlib.metadata.version(name) for name in packages}
  where = {"machine": machine(), "versions": {"python": platform.python_version(), **versions}}
  return {"bench": bench, **found, **where}


def show(*lines):
  """Prints each line as JSON."""
  for one in lines:
    print(json.dumps(one))


def machine():
  """Returns facts about the machine: processor, usable cores, load, and the flags of malloc and XLA."""
  return {
    "cpu": cpu_name(),
    "cores": len(os.sched_getaffinity(0)),
    "load": round(_LOAD, 1),
    # These flags decide whether the memory of temporaries is kept between steps: see docs/performance.md.
    "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
    "xla_flags": os.environ.get("XLA_FLAGS", ""),
  }


def cpu_name(path="/proc/cpuinfo"):
  """Returns the processor's name, on Linux with family and model: "AMD EPYC (family 25, model 17)".

  A virtual machine may shorten the name. For two processors with the same short name, the times of a step
  differed by half.
  """
  path = pathlib.Path(path)
  text = path.read_text().partition("\n\n")[0] if path.exists() else ""  # the text about the first core
  pairs = (row.partition(":") for row in text.splitlines())
  fields = {key.strip(): value.strip() for key, _, value in pairs}
  name = fields.get("model name") or platform.processor() or platform.machine()
  if "cpu family" in fields and "model" in fields:
    name += f" (family {fields['cpu family']}, model {fields['model']})"
  return name

"""What all benchmarks share: stopwatch, rounds, the machine, and the line that they print. Imports no jax.

CPU seconds are of all threads of this process. On a machine that does other work they say more than wall time
does; on an accelerator it is the other way round.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time

_LOAD = os.getloadavg()[0]  # before the benchmark adds its own


def make_parser(doc):
  """Makes the parser of a benchmark's command line from its docstring."""
  return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)


def parse_size(text):
  """Reads "256x128" as (256, 128): rows, columns, of pixels or of patches."""
  rows, columns = text.lower().split("x")
  return int(rows), int(columns)


def timed(function, *arguments):
  """Runs a function once; returns (its result, CPU seconds, wall seconds)."""
  start_wall, start_cpu = time.perf_counter(), time.process_time()
  result = function(*arguments)
  return result, time.process_time() - start_cpu, time.perf_counter() - start_wall


def time_in_turn(parts, *, warmup, repeats, per=1):
  """Runs all parts in every round, so that other work on the machine weighs on all of them.

  Args:
    parts: {name: function of the round's number}; a function returns when its work is done.
    warmup: untimed rounds, the first ones.
    repeats: timed rounds.
    per: what the seconds of a round are divided by, for example its steps.
  Returns:
    {name: [(CPU seconds, wall seconds), ...] of the timed rounds}.
  """
  times = {name: [] for name in parts}
  for number in range(warmup + repeats):
    for name, part in parts.items():
      _, cpu, wall = timed(part, number)
      if number >= warmup:
        times[name].append((cpu / per, wall / per))
  return times


def summary(times, prefix=""):
  """Returns median and minimum of [(CPU seconds, wall seconds), ...], six digits of each."""
  cpu, wall = zip(*times, strict=True)
  return {
    f"{prefix}cpu_seconds_median": digits(statistics.median(cpu)),
    f"{prefix}cpu_seconds_min": digits(min(cpu)),
    f"{prefix}wall_seconds_median": digits(statistics.median(wall)),
    f"{prefix}wall_seconds_min": digits(min(wall)),
  }


def digits(value, count=6):
  """Rounds to this many significant digits."""
  return float(f"{value:.{count}g}")


def median_ratio(ours, theirs, which=0):
  """Returns the median over the rounds of ours / theirs, because other work weighs on both of a round.

  Args:
    ours: [(CPU seconds, wall seconds), ...] of the rounds.
    theirs: the same of the other part.
    which: 0 compares CPU seconds, 1 wall seconds.
  """
  return round(statistics.median(a[which] / b[which] for a, b in zip(ours, theirs, strict=True)), 3)


def line(bench, found, *packages):
  """Returns a benchmark's line: its name, what it found, the machine, versions of Python and of packages."""
  versions = {name: importlib.metadata.version(name) for name in packages}
  where = {"machine": machine(), "versions": {"python": platform.python_version(), **versions}}
  return {"bench": bench, **found, **where}


def show(*lines):
  """Prints lines of JSON."""
  for one in lines:
    print(json.dumps(one))


def machine():
  """Returns the processor, how many of its cores this process may use, the load, flags of malloc and XLA."""
  return {
    "cpu": cpu_name(),
    "cores": len(os.sched_getaffinity(0)),
    "load": round(_LOAD, 1),
    # They decide whether a step's temporaries are asked from the system anew: see docs/performance.md.
    "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
    "xla_flags": os.environ.get("XLA_FLAGS", ""),
  }


def cpu_name(path="/proc/cpuinfo"):
  """Returns the processor's name, on Linux with family and model: virtual machines shorten the name.

  "AMD EPYC (family 25, model 17)": processors that share the short name differed by half in a step's time.
  """
  path = pathlib.Path(path)
  text = path.read_text().partition("\n\n")[0] if path.exists() else ""  # of the first core
  pairs = (row.partition(":") for row in text.splitlines())
  fields = {key.strip(): value.strip() for key, _, value in pairs}
  name = fields.get("model name") or platform.processor() or platform.machine()
  if "cpu family" in fields and "model" in fields:
    name += f" (family {fields['cpu family']}, model {fields['model']})"
  return name

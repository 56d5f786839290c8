"""What benchmarks share: stopwatch, versions, the machine, peaks of devices. Imports no jax.

Seconds of the CPU are those of all threads of this process: on a machine that does other work besides they
say more than wall time does. On an accelerator it is the other way round.
"""

import importlib.metadata
import os
import pathlib
import platform
import resource
import statistics
import sys
import time

# Dense bfloat16 FLOP/s by the name that the device gives itself. "measured": of a product of two matrices of
# 8192 x 8192 on such a device, None where it was not taken; "datasheet": the vendor's figure, no sparsity.
PEAKS = {
  "NVIDIA H200": {"measured": 788e12, "datasheet": 989.5e12},
  "NVIDIA H100 80GB HBM3": {"measured": None, "datasheet": 989.5e12},
}


def timed(function, *arguments, wait=None):
  """Runs a function once; returns (its result, CPU seconds, wall seconds).

  Args:
    wait: result -> result, when the result is there (`jax.block_until_ready`); None: when it is returned.
  """
  start_wall, start_cpu = time.perf_counter(), time.process_time()
  result = function(*arguments)
  if wait is not None:
    result = wait(result)
  return result, time.process_time() - start_cpu, time.perf_counter() - start_wall


def summary(times, prefix=""):
  """Returns the figures of [(CPU seconds, wall seconds), ...], six digits of each."""
  cpu, wall = zip(*times, strict=True)
  return {
    f"{prefix}cpu_seconds_median": digits(statistics.median(cpu)),
    f"{prefix}cpu_seconds_min": digits(min(cpu)),
    f"{prefix}wall_seconds_median": digits(statistics.median(wall)),
    f"{prefix}wall_seconds_min": digits(min(wall)),
  }


def digits(value, count=6):
  """Rounds to so many significant digits."""
  return float(f"{value:.{count}g}")


def median_ratio(ours, theirs):
  """Returns the median of ours[i] / theirs[i]: what else the machine does weighs on both of a round."""
  return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)


def versions(*packages):
  """Returns {name: version} of Python and of installed packages."""
  return {
    "python": platform.python_version(),
    **{name: importlib.metadata.version(name) for name in packages},
  }


def machine():
  """Returns the processor, how many of its cores this process may use, the load, flags of malloc and XLA."""
  return {
    "cpu": cpu_name(),
    "cores": len(os.sched_getaffinity(0)),
    "load": round(os.getloadavg()[0], 1),
    # They decide whether a step's temporaries are asked from the system anew: see docs/performance.md.
    "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
    "xla_flags": os.environ.get("XLA_FLAGS", ""),
  }


def cpu_name(path="/proc/cpuinfo"):
  """Returns the processor's name, on Linux with family and model: virtual machines shorten the name.

  "AMD EPYC (family 25, model 17)": processors of the bare name were seen to differ by half in a step's time.
  """
  path = pathlib.Path(path)
  text = path.read_text().partition("\n\n")[0] if path.exists() else ""  # of the first core
  pairs = (line.partition(":") for line in text.splitlines())
  fields = {key.strip(): value.strip() for key, _, value in pairs}
  name = fields.get("model name") or platform.processor() or platform.machine()
  if "cpu family" in fields and "model" in fields:
    name += f" (family {fields['cpu family']}, model {fields['model']})"
  return name


def peak_bytes():
  """Returns the largest resident memory of this process so far."""
  # Kilobytes on Linux, bytes on macOS.
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def utilisation(flops_per_second, device_kind, dtype):
  """Returns the share of each known peak of a device that its useful FLOP/s are.

  Args:
    flops_per_second: of the closed form, `bench.flops`, recomputation not counted. device_kind: see `PEAKS`.
    dtype: the peaks are those of bfloat16; of another type nothing is said.
  Returns:
    {"measured": share or None, "datasheet": share or None}.
  """
  peaks = PEAKS.get(device_kind, {}) if dtype == "bfloat16" else {}
  shares = {}
  for kind in ("measured", "datasheet"):
    peak = peaks.get(kind)
    shares[kind] = round(flops_per_second / peak, 4) if peak else None
  return shares


def parse_size(text):
  """Reads "256x128" as (256, 128): rows, columns, of pixels or of patches."""
  rows, columns = text.lower().split("x")
  return int(rows), int(columns)

"""Finds the largest batch that fits a machine, and the keys with which a configuration fits."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from hap_jax import config as config_lib
from hap_jax.plan.machines import GIB, Machine

_STEP = 8  # rows of a device, as in the tiles of a TPU
_TRIES = 3  # programs that are compiled at most to check a number of rows
_WORTHWHILE = 1.1  # a full compilation with more rows is tried only if at least a tenth more rows may fit


@dataclasses.dataclass(frozen=True)
class Trial:
  """A compiled configuration.

  Attributes:
    config: the finalized config.
    reply: the result of `compile.analyse`.
    rows: pictures that go through the model together on each device.
    effort: see `step_program.analyse`.
  """

  config: Any
  reply: Mapping[str, Any]
  rows: int
  effort: str

  @property
  def needed(self):
    """Bytes of each device."""
    return self.reply["compiled"]["needed"]


class Search:
  """Compiles changed configurations for a machine, each of them once.

  Attributes:
    machine: the `Machine`.
    measure: (config, effort) -> the result of `compile.analyse`.
    trials: the `Trial`s so far, by settings and effort.
  """

  def __init__(self, machine: Machine, measure: Callable):
    self.machine, self.measure = machine, measure
    self.trials = {}

  def fits(self, trial):
    """Returns True if a trial needs no more memory than its device has."""
    return "out_of_memory" not in trial.reply["compiled"] and trial.needed <= self.machine.memory

  def compile(self, config, effort="planning"):
    """Returns the `Trial` of a configuration."""
    key = (*settings_of(config).items(), effort)
    if key not in self.trials:
      reply = self.measure(config, effort)
      rows = config.batch_size // _sharers(reply["mesh"]) // config.accumulate
      self.trials[key] = Trial(config, reply, rows, effort)
    return self.trials[key]

  def line(self, config):
    """Returns (fixed bytes, bytes per row) of a device for a batch in one part, from two compilations.

    Args:
      config: the finalized config. Only its remat and its mesh matter if two of its programs were compiled.
    """
    whole = config_lib.replaced(config, "accumulate", 1)
    known = [trial for trial in self.trials.values() if _differ_in_rows(trial.config, whole)]
    known = {trial.rows: trial for trial in known if trial.effort == "planning"}
    if not known:
      rows = self.compile(config).rows
      known[rows] = self.compile(with_rows(config, self.compile(config), rows))
    if len(known) == 1:
      (first,) = known.values()
      # Half as many rows are the other point. A single row would show more of the padding than of the rows.
      rows = max(_STEP, first.rows // 2 // _STEP * _STEP)
      rows = 2 * rows if rows == first.rows else rows
      known[rows] = self.compile(with_rows(config, first, rows))
    low, high = known[min(known)], known[max(known)]
    slope = (high.needed - low.needed) / (high.rows - low.rows)
    return low.needed - slope * low.rows, slope

  def largest(self, config, effort="planning"):
    """Returns the `Trial` with the most rows per device that fits, or None if no rows fit.

    Args:
      config: the finalized config.
      effort: of the compilations that check the number of rows.
    """
    fixed, slope = self.line(config)
    first = self.compile(config)
    rows, best = _round((self.machine.memory - fixed) / slope), None
    for _ in range(_TRIES):
      if rows < 1:
        break
      trial = self.compile(with_rows(config, first, rows), effort)
      if self.fits(trial):
        best = trial
        more = _round(rows + (self.machine.memory - trial.needed) / slope)
        if effort == "planning" or more < _WORTHWHILE * rows:
          break
        rows = more
      elif best is not None:
        break
      else:
        # The memory is not quite a line. So the next try leaves out the bytes that were too many.
        over = (trial.needed - self.machine.memory) / slope
        rows = _round(rows - max(over, 1)) if over > 0 else _round(0.9 * rows)
    return best


def _differ_in_rows(one, other):
  """Returns True if two configurations are the same except for their batch sizes."""
  return settings_of(one) | {"batch_size": 0} == settings_of(other) | {"batch_size": 0}


def _round(rows):
  """Returns a number of rows, rounded down to a multiple of 8 if it is larger than 8."""
  rows = int(rows)
  return rows // _STEP * _STEP if rows > _STEP else rows


def _sharers(mesh):
  """Returns the number of devices that split a batch."""
  return mesh["data"] * mesh["fsdp"]


def settings_of(config):
  """Returns {key: value} of the keys that a plan may change."""
  return {
    "batch_size": config.batch_size,
    "accumulate": config.accumulate,
    "model.remat": config.model.remat,
    "mesh.fsdp": config.mesh.fsdp,
  }


def with_rows(config, trial, rows):
  """Returns the configuration with this number of rows per device, in one part."""
  config = config_lib.replaced(config, "accumulate", 1)
  return config_lib.replaced(config, "batch_size", rows * _sharers(trial.reply["mesh"]))


def recommend(search, config):
  """Returns the `Trial` of the first configuration that fits, and keeps the batch size.

  The configuration itself comes first. The others have more parts (accumulate), then remat=full, then the
  parameters divided over some devices (fsdp, see `fsdp_for`). A task that allows no parts has none.

  Args:
    search: a `Search`.
    config: the finalized config.
  Raises:
    ValueError: if no configuration fits. The message says how much memory is missing and which batch fits.
  """
  smallest = None
  for candidate in _candidates(search, config):
    trial = search.compile(candidate)
    if search.fits(trial):
      return trial
    fixed, slope = search.line(candidate)
    largest = (search.machine.memory - fixed) / slope
    smallest = candidate
    for parts in _parts(candidate, trial, largest):
      trial = search.compile(config_lib.replaced(candidate, "accumulate", parts))
      if search.fits(trial):
        return trial
  raise ValueError(_nowhere(search, config, smallest))


def _candidates(search, config):
  """Returns the configurations that are tried, with the batch size and the parts of `config`."""
  found = [config]
  reply, machine = search.compile(config).reply, search.machine
  fsdp = fsdp_for(reply["device_bytes"], machine.count // reply["mesh"]["tensor"], machine.memory)
  for key, value in (("model.remat", "full"), ("mesh.fsdp", fsdp)):
    if settings_of(found[-1])[key] != value:
      found.append(config_lib.replaced(found[-1], key, value))
  return found


def fsdp_for(device_bytes, count, memory):
  """Returns the smallest mesh.fsdp with which all that can be divided takes at most half of a device.

  Args:
    device_bytes: see `needs.of_step`, for fsdp=1.
    count: number of devices that can share the parameters.
    memory: usable bytes of a device.
  """
  divided = sum(device_bytes[name] for name in ("parameters", "moments", "average", "gradients"))
  divisors = [n for n in range(1, count + 1) if count % n == 0]
  return next((n for n in divisors if divided / n <= memory / 2), count)


def _parts(config, trial, largest):
  """Yields numbers of parts, in ascending order, in which the rows of a device may fit."""
  rows = config.batch_size // _sharers(trial.reply["mesh"])
  for parts in range(config.accumulate + 1, rows + 1):
    if rows % parts or rows / parts > largest:
      continue
    try:
      config_lib.replaced(config, "accumulate", parts)
    except ValueError:
      return  # the task needs the whole batch at once
    yield parts


def _nowhere(search, config, smallest):
  """Returns the message for a configuration that fits with no settings."""
  trial, memory = search.compile(smallest), search.machine.memory
  missing = trial.needed - memory
  words = (
    f"{search.machine.name}: the step needs {trial.needed / GIB:.2f} GiB on each device with "
    f"{' '.join(words_of(smallest))}, {missing / GIB:.2f} GiB more than its {memory / GIB:.2f} GiB"
  )
  largest = search.largest(smallest)
  if largest is None:
    return f"{words}. No batch fits: use devices with more memory, or a smaller model.variant"
  return f"{words}. The nearest that fits: {' '.join(words_of(largest.config))}"


def words_of(config):
  """Returns the words of the command line that set the keys that a plan may change."""
  return [f"--config.{key}={value}" for key, value in settings_of(config).items()]

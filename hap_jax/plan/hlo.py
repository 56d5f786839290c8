"""Reads an optimized program of XLA as text: estimated cycles of a TPU, and the collective operations.

The text is the result of `as_text()` of a compiled function. A loop's body counts as often as the loop runs.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

_COMPUTATION = re.compile(r"(?:ENTRY )?%([\w.\-]+) \(.*\{$")
# Groups: type of the result, operation. A type has no blank outside of a tuple, and a tuple ends with ")".
_INSTRUCTION = re.compile(r"(?:ROOT )?%[\w.\-]+ = (\(.*?\)|\S+) ([a-z][\w\-]*)\(")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_NAME = re.compile(r'op_name="([^"]*)"')
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")
COLLECTIVES = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "ragged-all-to-all",
  "collective-permute",
  "collective-broadcast",
)


@dataclasses.dataclass(frozen=True)
class Instruction:
  """An instruction that the program runs.

  Attributes:
    operation: the operation, such as "fusion" or "all-reduce".
    result: the type of the result, such as "f32[8,512]{1,0}".
    name: the path of the operation in the traced function, such as "jit(step)/jvp(HAP)/encoder/...", or "".
    file: path of the innermost file of the package `hap_jax` that asked for the operation, relative to the
      package, or "" if the program does not record it.
    count: how often the program runs it.
    cycles: the cycles of one run, estimated by the compiler for a TPU. 0: there is no estimate.
  """

  operation: str
  result: str
  name: str
  file: str
  count: int
  cycles: int


def instructions(text: str) -> Iterator[Instruction]:
  """Yields the instructions of a program, in loops and calls, too. The parts of a fusion are not listed."""
  computations, entry = _split(text)
  files = _package_files(text)

  def walk(name, count):
    for line in computations.get(name, ()):
      match = _INSTRUCTION.match(line)
      if match is None:
        continue
      result, operation = match.groups()
      if operation == "while":
        trips = _trip_count(line, computations)
        yield from walk(_called(line, "body"), count * trips)
        continue
      if operation in ("call", "conditional", "async-start"):
        for called in _all_called(line):
          yield from walk(called, count)
      cycles, path, frame = _CYCLES.search(line), _NAME.search(line), _FRAME.search(line)
      yield Instruction(
        operation=operation,
        result=result,
        name=path[1] if path else "",
        file=files.get(frame[1], "") if frame else "",
        count=count,
        cycles=int(cycles[1]) if cycles else 0,
      )

  yield from walk(entry, 1)


def _split(text):
  """Returns ({name of a computation: its lines}, name of the first one that runs)."""
  computations, lines, entry = {}, None, ""
  for line in text.splitlines():
    if line.startswith((" ", "\t")):
      if lines is not None:
        lines.append(line.strip())
    elif match := _COMPUTATION.match(line):
      lines = computations[match[1]] = []
      entry = match[1] if line.startswith("ENTRY") else entry
    else:
      lines = None
  return computations, entry


def _called(line, kind):
  match = re.search(rf"\b{kind}=%([\w.\-]+)", line)
  return match[1] if match else ""


def _all_called(line):
  match = re.search(r"\b(?:to_apply|calls|branch_computations|true_computation)=\{?(%[\w.\-%, ]+)", line)
  return re.findall(r"%([\w.\-]+)", match[1]) if match else []


def _trip_count(line, computations):
  """Returns how often a loop runs: the number that its condition compares the counter with.

  The loops of this project are scans from 0. If a condition has no constant, as in a search, the loop counts
  as one run.
  """
  if known := _TRIPS.search(line):
    return int(known[1])
  condition = computations.get(_called(line, "condition"), ())
  numbers = [int(n) for step in condition for n in re.findall(r"constant\((\d+)\)", step)]
  return max(numbers, default=1)


def _package_files(text):
  """Returns {id of a stack frame: file in the package}, from the tables at the head of the program."""
  tables = {name: {} for name in _TABLES}
  table = None
  for line in text.splitlines():
    if line in tables:
      table = tables[line]
    elif table is not None and (match := re.match(r"(\d+) (.*)", line)):
      table[match[1]] = match[2]
    elif line.startswith(("ENTRY", "%")):
      break
  names = {key: _inside_package(value.strip('"')) for key, value in tables["FileNames"].items()}
  places = {
    key: names.get(match[1], "")
    for key, value in tables["FileLocations"].items()
    if (match := re.search(r"file_name_id=(\d+)", value))
  }
  frames = {}
  for key, value in tables["StackFrames"].items():
    ids = dict(re.findall(r"(file_location_id|parent_frame_id)=(\d+)", value))
    # The number of a parent is its id plus 1. The outermost frame has the number 1, which is no frame.
    frames[key] = places.get(ids["file_location_id"], ""), str(int(ids["parent_frame_id"]) - 1)
  return {key: _innermost(key, frames) for key in frames}


def _inside_package(path):
  _, found, inside = path.rpartition("/hap_jax/")
  return inside if found else ""


def _innermost(key, frames):
  """Returns the file of the innermost frame inside the package."""
  while key in frames:
    file, key = frames[key]
    if file:
      return file
  return ""


def num_bytes(result):
  """Returns the bytes of a type such as "f32[8,512]{1,0}" or of all arrays of a tuple."""
  total = 0
  for kind, shape in _ARRAY.findall(result):
    bits = 8 if kind == "pred" else int((re.search(r"\d+", kind) or ["0"])[0])
    total += math.prod(int(n) for n in shape.split(",") if n) * bits // 8
  return total


def collectives(found):
  """Counts the collective operations of a program.

  Args:
    found: the instructions.
  Returns:
    list of {"operation", "dtype", "count", "bytes"}, the largest first. "bytes" is the size of the results on
    one device, of all runs in a step. An operation that starts and ends separately counts once.
  """
  totals = collections.defaultdict(lambda: [0, 0])
  for step in found:
    operation = step.operation.removesuffix("-start")
    if operation not in COLLECTIVES:
      continue
    arrays = _ARRAY.findall(step.result)
    size = num_bytes(step.result)
    if step.operation.endswith("-start") and operation != "all-reduce":
      # The result of such a start has the operand, the result and internal numbers.
      size = num_bytes(re.findall(r"[a-z]+\d*\w*\[[\d,]*\]", step.result)[1])
    total = totals[operation, arrays[0][0]]
    total[0] += step.count
    total[1] += step.count * size
  listed = [
    {"operation": operation, "dtype": dtype, "count": count, "bytes": size}
    for (operation, dtype), (count, size) in totals.items()
  ]
  return sorted(listed, key=lambda entry: -entry["bytes"])


# Operations that only move values.
_MOVES = re.compile(
  r"copy(-start|-done)?|transpose|reshape|slice(-start|-done)?|dynamic-slice|dynamic-update-slice|concatenate|"
  r"pad|broadcast|gather|scatter|reverse"
)
_MOVE_NAMES = re.compile(
  r".*/(transpose|reshape|squeeze|concatenate|split|slice|dynamic_slice|dynamic_update_slice|"
  r"broadcast_in_dim|pad|gather|scatter|select_and_gather_add|rev|copy)"
)
# (folder or file of the package, name of the part)
_PARTS = (
  ("train/", "optimizer"),
  ("losses/", "losses"),
  ("masking/", "masks"),
  ("pixels/", "pixels"),
)


# Parts of the path of an operation that are not modules.
_WRAPPERS = ("while", "body", "closed_call", "checkpoint", "rematted_computation")


def part_of(step):
  """Returns the part of a training step that an instruction belongs to, such as "encoder attention"."""
  if step.operation.removesuffix("-start").removesuffix("-done") in COLLECTIVES:
    return "collectives"
  if _MOVES.fullmatch(step.operation) or _MOVE_NAMES.fullmatch(step.name):
    return "copies and transposes"
  for folder, part in _PARTS:
    if step.file.startswith(folder):
      return part
  path = _module_path(step.name)
  if not path:
    return "rest"
  if "mlp" in path:
    return f"{path[0]} MLP"
  if {"qkv", "proj"} & set(path):
    return f"{path[0]} qkv and projections"
  if "attn" in path:
    return f"{path[0]} attention"
  return f"{path[0]} rest"


def _module_path(name):
  """Returns the names of the modules of an operation, without the name of the whole network.

  The name "jit(step)/transpose(jvp(HAP))/decoder/while/body/closed_call/Block/mlp/fc1/dot_general" gives
  ["decoder", "Block", "mlp", "fc1"]. An operation outside of all modules gives [].
  """
  words = [word for word in name.split("/")[1:-1] if word not in _WRAPPERS]
  return words[1:] if words and "jvp(" in words[0] else []


def cycles_by_part(found):
  """Returns {part of a step: cycles}, the largest first. See `part_of`."""
  totals = collections.Counter()
  for step in found:
    totals[part_of(step)] += step.count * step.cycles
  return {part: cycles for part, cycles in totals.most_common() if cycles}

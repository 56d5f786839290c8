"""Writes a plan as lines of text."""

from hap_jax.plan.machines import GIB

_MIB = 2**20
_LABEL = 15  # width of the first column


def lines(plan):
  """Returns the lines of a plan, see `planner.make_plan`."""
  needs, machine = plan["needs"], plan["machine"]
  text = [
    _line("machine", machine["name"]),
    _line("", f"{_gib(machine['memory'])} of {_gib(machine['total_memory'])} on each device can be used"),
    _line("mesh", " ".join(f"{axis}={size}" for axis, size in needs["mesh"].items())),
    *(_line("step" if not i else "", line) for i, line in enumerate(needs["lines"])),
    _line("parameters", f"{needs['parameters']:,}, {needs['trained']:,} of them trained"),
    _line("FLOPs", f"{needs['flops'] / 1e9:,.1f} G for each picture, without recomputation"),
    _line("checkpoint", f"{_gib(needs['checkpoint_bytes'])} before compression"),
    "",
    "memory of each device",
    *(_line(f"  {name}", _gib(size)) for name, size in needs["device_bytes"].items() if size),
  ]
  if "step" in plan:
    text += _compiled(plan)
  else:
    left = machine["memory"] - sum(needs["device_bytes"].values())
    text.append(_line("  left", f"{_gib(left)} for activations and the program"))
  if plan.get("cycles"):
    text += _cycles(plan)
  if "pictures_per_second" in plan:
    rate, share = plan["pictures_per_second"], plan["peak_share"]
    estimate = f"{rate:,.0f} pictures/s, {share:.0%} of the peak: the compiler's estimate, not a measurement"
    text += ["", _line("speed", estimate)]
  if "hours" in plan:
    text.append(_line("duration", _duration(plan)))
  return text


def _compiled(plan):
  """Returns the lines about the compiled step."""
  step, recommended, largest = plan["step"], plan["recommended"], plan["largest"]
  verdict = "fits" if step["fits"] else "does not fit"
  text = [
    _line("  whole step", f"{_memory(step)} with {step['rows']:,} pictures at a time: {verdict}"),
    "",
    _line("recommended", " ".join(recommended["words"])),
    _line("", f"{_memory(recommended)} on each device, {recommended['rows']:,} pictures at a time"),
  ]
  if largest:
    size = largest["settings"]["batch_size"]
    text += [
      _line("largest batch", f"{size:,} pictures, {largest['rows']:,} on each device"),
      _line("", f"{_memory(largest)} on each device"),
    ]
  if plan["collectives"]:
    text += ["", "collective operations of a step, on each device"]
    text += [
      _line(
        f"  {found['bytes'] / _MIB:8.2f} MiB", f"{found['count']} x {found['operation']} {found['dtype']}"
      )
      for found in plan["collectives"]
    ]
  return text


def _memory(facts):
  """Returns the memory of a compiled step, and how it was compiled."""
  return f"{_gib(facts['needed'])}{'' if facts['effort'] == 'full' else ' (planning figure)'}"


def _cycles(plan):
  """Returns the lines about the estimated cycles."""
  total = sum(plan["cycles"].values())
  return [
    "",
    f"cycles of a step, estimated by the compiler: {total / 1e6:,.1f} million",
    *(_line(f"  {cycles / total:6.1%}", part) for part, cycles in plan["cycles"].items()),
  ]


def _duration(plan):
  if plan["hours"] is None:
    return "not known: state the number of training records with --records=N"
  records = plan["needs"]["sizes"].get("records")
  length = f"{records:,} records (--records changes this number)" if records else "all steps"
  return f"{plan['hours']:,.1f} hours for {length}"


def _line(label, text):
  return f"{label:{_LABEL}s} {text}".rstrip()


def _gib(size):
  return f"{size / GIB:.2f} GiB"

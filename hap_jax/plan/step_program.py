"""Traces and compiles the training step of a configuration for a machine that is not there.

`hap_jax.plan.child` calls it in a process of its own, because the compilers need environment variables.
"""

import re
import time

import jax
from jax.experimental import topologies

from hap_jax import config as config_lib
from hap_jax import run
from hap_jax.plan import h100, hlo, needs
from hap_jax.train import outline as outlines
from hap_jax.train import state as train_state
from hap_jax.train.step import make_train_step

# A fifth of the compile time. The program is slow, so its cycles mean nothing, but its memory is useful.
_PLANNING_EFFORT = -1.0
# A plan must not be too low, but a full compilation may need more memory. Measured for B/16 on a v5e: its
# program is up to 3.1 times as large, and with remat=full its temporary arrays need 0.34 GiB more, 80 %
# of the gradients.
_PROGRAM_GROWTH = 4


def analyse(recorded, sizes, machine, effort):
  """Returns the needs of a training step on a machine, as plain values.

  Args:
    recorded: the configuration as nested dicts of JSON values.
    sizes: {name: size} of a `DataSizes`.
    machine: a `machines.Machine`.
    effort: "none": only the needs that follow from shapes. "planning": also the memory of the program, from a
      fast compilation. "full": a compilation as for training, also with cycles for a TPU.
  Returns:
    the result of `needs.of_step`, with "lines" and "sizes" of the outline, "mesh", and, if the step was
    compiled, "compiled". See `compile_step`.
  Raises:
    ValueError: if the configuration does not fit the machine.
  """
  config = config_lib.finalize(config_lib.from_recorded(recorded, "the configuration"))
  mesh = run.make_mesh(config, devices=_devices(machine, compiles=effort != "none"))
  outline = _outline(config, sizes)
  kept = _outline(config_lib.replaced(config, "model.remat", "none"), sizes)
  reply = needs.of_step(outline, mesh, _trace(kept, mesh, config.seed))
  reply |= {
    "lines": list(outline.lines),
    "sizes": outline.sizes.known(),
    "mesh": {axis: int(size) for axis, size in mesh.shape.items()},
  }
  if effort != "none":
    traced, gradients = _trace(outline, mesh, config.seed), reply["device_bytes"]["gradients"]
    reply["compiled"] = compile_step(traced, machine.platform, effort, gradients)
  return reply


def _devices(machine, compiles):
  if not compiles:
    return jax.devices()[: machine.count]
  if machine.platform == "tpu":
    # By default, a host has 2 x 2 chips, so a single chip needs its own rule.
    options = {"chips_per_host_bounds": (1, 1, 1)} if machine.count == 1 else {}
    return topologies.get_topology_desc(machine.topology, "tpu", **options).devices
  options = {"topology": machine.topology, "target_config": h100.target_config()}
  return topologies.get_topology_desc(platform="cuda", **options).devices


def _outline(config, sizes):
  return config_lib.load("tasks", config.task).outline(config, outlines.DataSizes(**sizes))


def _trace(outline, mesh, seed):
  """Returns the traced training step of an outline."""
  step, progress = jax.ShapeDtypeStruct((), "int32"), jax.ShapeDtypeStruct((), "float32")
  state = train_state.abstract(outline, mesh)
  return make_train_step(outline, mesh, seed).trace(state, outline.constants, outline.batch, step, progress)


def compile_step(traced, platform, effort, gradients):
  """Compiles a traced step.

  Args:
    traced: the traced step.
    platform: "tpu" or "cuda".
    effort: "planning" or "full".
    gradients: bytes of the gradients on each device.
  Returns:
    {"needed": bytes of each device, "arguments", "temporaries", "program": parts of it,
     "allowance": part of it that the compilation did not show, but a full compilation may need,
     "collectives": see `hlo.collectives`,
     "cycles": see `hlo.cycles_by_part`; {} for a GPU and for the effort "planning",
     "cpu_seconds": CPU time of the compilation}
    or {"needed": ..., "out_of_memory": message} if the compiler found that the memory is too small.
  """
  start = time.process_time()
  # The platform must be named. Otherwise code that differs between platforms would be the code for CPUs.
  lowered = traced.lower(lowering_platforms=(platform,))
  # XLA has no such effort for GPUs.
  is_fast = effort == "planning" and platform == "tpu"
  options = {"exec_time_optimization_effort": _PLANNING_EFFORT} if is_fast else None
  try:
    compiled = lowered.compile(compiler_options=options)
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return _too_large(str(error), time.process_time() - start)
  memory = compiled.memory_analysis()
  found = list(hlo.instructions(compiled.as_text()))
  arguments, temporaries = memory.argument_size_in_bytes, memory.temp_size_in_bytes
  program = memory.generated_code_size_in_bytes
  allowance = (_PROGRAM_GROWTH - 1) * program + gradients if is_fast else 0
  own_results = memory.output_size_in_bytes - memory.alias_size_in_bytes
  return {
    "needed": arguments + temporaries + program + own_results + allowance,
    "arguments": arguments,
    "temporaries": temporaries,
    "program": program,
    "allowance": allowance,
    "collectives": hlo.collectives(found),
    "cycles": hlo.cycles_by_part(found) if effort == "full" else {},
    "cpu_seconds": round(time.process_time() - start, 1),
  }


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _too_large(message, cpu_seconds):
  """Returns the result for a program that needs more memory than the device has."""
  amount = re.search(r"Used ([\d.]+)([KMGT]?) of|\(([\d.]+)([KMGT]?)\) exceeds", message)
  number, unit = [group for group in amount.groups() if group is not None] if amount else ("0", "")
  return {
    "needed": int(float(number) * _UNITS[unit]),
    "out_of_memory": message.splitlines()[0],
    "cpu_seconds": round(cpu_seconds, 1),
  }

"""Makes the plan of a run: what its step needs on a machine, and the settings with which it fits."""

from hap_jax.plan import choose
from hap_jax.plan.machines import GIB


def make_plan(config, machine, measure, *, compiles, is_exact=False, is_full=False, images_per_s=None):
  """Returns a plan as plain values.

  Args:
    config: the finalized config.
    machine: a `machines.Machine`.
    measure: (config, effort) -> the result of `compile.analyse` for this machine.
    compiles: False: only the needs that follow from shapes.
    is_exact: True: the programs that decide are compiled as for training.
    is_full: True: the recommended step is compiled as for training, for its cycles.
    images_per_s: pictures per second of all devices together, if the user knows them.
  Returns:
    {"machine", "settings", "needs": see `needs.of_step`} and, with a compiler, {"step", "recommended",
    "largest": see `_facts`, "collectives": see `hlo.collectives`}, and, as far as they are known,
    {"cycles": see `hlo.cycles_by_part`, "pictures_per_second", "peak_share", "hours"}.
  Raises:
    ValueError: if the configuration fits with no settings.
  """
  needs = measure(config, "none")
  plan = {
    "machine": {"name": machine.name, "memory": machine.memory, "total_memory": machine.total_memory},
    "settings": choose.settings_of(config),
    "needs": needs,
  }
  estimate = None
  if compiles:
    search = choose.Search(machine, measure)
    effort = "full" if is_exact else "planning"
    plan["step"] = _facts(search, search.compile(config))
    chosen = choose.recommend(search, config)
    if is_exact or is_full:
      chosen = search.compile(chosen.config, "full")
      estimate = per_second(chosen, machine)
    plan["recommended"] = _facts(search, chosen)
    largest = search.largest(chosen.config, effort)
    plan["largest"] = largest and _facts(search, largest)
    plan["collectives"] = chosen.reply["compiled"].get("collectives", [])
    plan["cycles"] = chosen.reply["compiled"].get("cycles", {})
  else:
    _check_state(machine, needs)
  if estimate:
    plan["pictures_per_second"], plan["peak_share"] = estimate
  if rate := images_per_s or plan.get("pictures_per_second"):
    plan["hours"] = hours(config, needs["sizes"], rate)
  return plan


def _facts(search, trial):
  """Returns {"settings", "words", "rows", "fits", "needed", "arguments", ...} of a trial."""
  compiled = trial.reply["compiled"]
  kept = ("needed", "arguments", "temporaries", "program", "allowance", "cpu_seconds")
  return {
    "settings": choose.settings_of(trial.config),
    "words": choose.words_of(trial.config),
    "rows": trial.rows,
    "fits": search.fits(trial),
    "effort": trial.effort,
    **{name: compiled[name] for name in kept if name in compiled},
  }


def _check_state(machine, needs):
  """Raises ValueError if the arrays of a step alone do not fit a device."""
  found, device_bytes, mesh = sum(needs["device_bytes"].values()), needs["device_bytes"], needs["mesh"]
  if found < machine.memory:
    return
  words = (
    f"{machine.name}: parameters, moments, gradients and batch need {found / GIB:.2f} GiB on each device, "
    f"{(found - machine.memory) / GIB:.2f} GiB more than the {machine.memory / GIB:.2f} GiB that it has"
  )
  undivided = {name: size * mesh["fsdp"] for name, size in device_bytes.items()}
  fsdp = choose.fsdp_for(undivided, machine.count // mesh["tensor"], machine.memory)
  if fsdp > mesh["fsdp"]:
    raise ValueError(f"{words}: divide the parameters over {fsdp} devices, --config.mesh.fsdp={fsdp}")
  raise ValueError(f"{words}: use more devices or devices with more memory, or a smaller model.variant")


def per_second(trial, machine):
  """Returns (pictures per second of all devices, share of the peak), from the estimated cycles of a trial.

  None: there is no estimate.
  """
  cycles = sum(trial.reply["compiled"].get("cycles", {}).values())
  if not cycles or machine.clock is None:
    return None
  rate = trial.config.batch_size / (cycles / machine.clock)
  return rate, rate * trial.reply["flops"] / machine.count / machine.peak_flops


def hours(config, sizes, pictures_per_second):
  """Returns the hours of the whole run, or None if its length is not known.

  Args:
    config: the finalized config.
    sizes: {name: size}, with "records" if the number of training records is known.
    pictures_per_second: of all devices together.
  """
  if config.total_steps:
    pictures = config.total_steps * config.batch_size
  elif sizes.get("records"):
    pictures = config.total_epochs * sizes["records"]
  else:
    return None
  return pictures / pictures_per_second / 3600

"""The data sets and weights of every stage that led to a checkpoint, from its lineage.

A lineage is a list of origins, newest first: the checkpoint itself, then the checkpoints that it was
converted from or trained from. An origin is a dict of plain JSON values:
  file, family    name of the file or folder, and of its family
  licence         of the weights in it, all earlier stages included, one line
  sha256          digest of a foreign file
  task, step      of a checkpoint of this project
  data            {"name", "licence"} of the data set that a run trained on (not recorded by earlier versions)
"""

import re

from hap_jax.convert import families, licences

OWN_FAMILY = "hap_jax"
# How earlier versions worded the licence of a run that started without weights.
_FROM_SCRATCH = re.compile(r"trained from scratch on ([^:]+): (.+)", re.DOTALL)


def of_own(path, description):
  """Returns the lineage of one of this project's checkpoints.

  Args:
    path: of the checkpoint. description: its description.
  """
  origin = {"file": str(path), "family": OWN_FAMILY, "task": description["task"]}
  if "step" in description:
    origin["step"] = description["step"]
  if description.get("data"):
    origin["data"] = _data(description)
  return completed((origin, *_past(description)))


def of_file(file, sha256, family, licence, record):
  """Returns the lineage of a foreign file.

  Args:
    file: its name. sha256: its digest. family: name of its family.
    licence: what is known of its licence; used if the file records no earlier origin.
    record: the description that a conversion left in the file, {} if none.
  """
  origin, past = {"file": file, "sha256": sha256, "family": family, "licence": licence}, _past(record)
  if not past and record.get("data"):
    origin["data"] = _data(record)
  return completed((origin, *past))


def _data(description):
  return {key: description["data"].get(key, "not recorded") for key in ("name", "licence")}


def _past(description):
  """Returns a description's lineage; a conversion's recorded data goes to the run that was converted."""
  past = [dict(origin) for origin in description.get("lineage", ())]
  # Runs do not record where their pixel statistics come from, conversions do.
  is_conversion = "from" in description.get("normalization", {})
  if is_conversion and description.get("data"):
    run = next((origin for origin in past if _is_run(origin)), None)
    if run is not None:
      run.setdefault("data", _data(description))
  return tuple(past)


def _is_run(origin):
  """Whether an origin is a run of this project, or a checkpoint that was converted from one."""
  return origin["family"] == OWN_FAMILY and "step" in origin


def completed(lineage):
  """Completes the origins of earlier versions and gives each the licence that all stages up to it lead to.

  Args:
    lineage: origins, newest first; an own one may lack "licence".
  Returns:
    a tuple of origins.
  """
  *newer, oldest = lineage
  found = _FROM_SCRATCH.fullmatch(oldest.get("licence", ""))
  if oldest["family"] == OWN_FAMILY and "data" not in oldest and found:
    oldest = {**oldest, "data": {"name": found[1], "licence": found[2]}}
  result, known = [], []
  for origin in reversed([*newer, oldest]):
    is_oldest = not result
    known = licences.ordered([*_own_sources(origin, is_oldest), *known])
    is_published = is_oldest and origin["family"] != OWN_FAMILY  # its licence is not ours to derive
    result.append(origin if is_published else {**origin, "licence": licences.line(known)})
  return tuple(reversed(result))


def sources(lineage):
  """Returns all data sets and weights that a completed lineage names, as `licences.ordered` gives them."""
  last = len(lineage) - 1
  return licences.ordered(
    item for k, origin in enumerate(lineage) for item in _own_sources(origin, is_oldest=k == last)
  )


def text(origin):
  """Returns one origin as a line of text."""
  facts = [f"{key} {str(origin[key])[:12]}" for key in ("task", "step", "sha256") if key in origin]
  return f"{origin['file']} ({', '.join([origin['family'], *facts])}): {origin['licence']}"


def _own_sources(origin, is_oldest):
  """Returns the sources that one stage adds, newest first; a conversion adds none.

  Args:
    origin: the stage. is_oldest: nothing is known of a stage before it.
  """
  is_own, found = origin["family"] == OWN_FAMILY, []
  if "data" in origin:
    found.append(licences.source("data set", origin["data"]["name"], origin["data"]["licence"]))
  elif is_own and (is_oldest or "step" in origin):
    step = f", step {origin['step']}" if "step" in origin else ""
    run = f"of a run ({origin.get('task', 'task unknown')}{step})"
    found.append(licences.source("data set", run, "not recorded"))
  if is_oldest and not is_own:
    found.append(licences.source("weights", f"{origin['file']} ({origin['family']})", origin["licence"]))
    family = families.find(origin["family"])
    found.extend(licences.source(*facts) for facts in (family.made_from if family else ()))
  return found

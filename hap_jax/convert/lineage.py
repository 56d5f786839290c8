"""Computes the lineage of a checkpoint, and the data sets and weights that all its stages used.

A lineage is a list of origins, newest first. The first origin is the checkpoint itself. The next origins
are earlier checkpoints, from which it was converted or trained. An origin is a dict of plain JSON values:
  file      the name of the file or folder
  family    the name of its family
  licence   the licence of its weights in one line, with the licences of all earlier stages
  sha256    the digest (foreign files)
  task      the task (checkpoints of this project)
  step      the step (checkpoints of this project)
  data      {"name", "licence"} of the data set that a run trained on; earlier versions did not record it. For
            several data sets, there is also the key "parts", a list with "name" and "licence" of each
  body      {"name", "licence"} of the body model that a run trained with, for 3D pose
  continued the epochs that the run had done at this checkpoint. Only the first origin of a run that continues
            another run has it, see `train/continued.py`
"""

import re

from hap_jax.convert import families, licences

OWN_FAMILY = "hap_jax"
_PARTS = ("data", "body")  # parts of a run with a licence of their own
# Earlier versions recorded this text as the licence of a run that started without weights.
_FROM_SCRATCH = re.compile(r"trained from scratch on ([^:]+): (.+)", re.DOTALL)


def of_own(path, description):
  """Returns the lineage of a checkpoint in this project's own format.

  Args:
    path: the path of the checkpoint.
    description: the description of the checkpoint.
  Raises:
    ValueError: if a recorded origin lacks a text that it needs, such as its file, family or licence.
  """
  origin = {"file": str(path), "family": OWN_FAMILY, "task": description["task"]}
  if "step" in description:
    origin["step"] = description["step"]
  origin |= {key: _facts(description, key) for key in _PARTS if description.get(key)}
  for recorded in (origin, *description.get("lineage", ())):
    _check_texts(path, recorded)
  return completed((origin, *_past(description)))


def of_file(file, sha256, family, licence, record):
  """Returns the lineage of a foreign file.

  Args:
    file: the name of the file.
    sha256: the digest of the file.
    family: the name of its family.
    licence: the licence to use if the file records no earlier origin.
    record: the description that a conversion wrote into the file, or {} if there is none.
  """
  origin, past = {"file": file, "sha256": sha256, "family": family, "licence": licence}, _past(record)
  if not past and record.get("data"):
    origin["data"] = _facts(record, "data")
  return completed((origin, *past))


def _check_texts(path, origin):
  """Raises ValueError unless the values that licences are computed from are texts.

  Anyone may have written the checkpoint.
  """
  licence = origin.get("licence", "" if origin.get("family") == OWN_FAMILY else None)
  values = [origin.get("file"), origin.get("family"), licence]
  for part in (item for key in _PARTS if key in origin for item in _items(origin[key])):
    values += [part.get(key) for key in ("name", "licence")] if isinstance(part, dict) else [None]
  if not all(isinstance(value, str) for value in values):
    raise ValueError(
      f"{path}: its lineage has the origin {origin!r:.100}, expected texts for file, family and licence, and "
      "for name and licence of data and body"
    )


def _facts(description, part):
  recorded = description[part]
  parts = {"parts": recorded["parts"]} if "parts" in recorded else {}
  return {key: recorded.get(key, "not recorded") for key in ("name", "licence")} | parts


def _items(recorded):
  """Returns the record of a data set or body model and of its parts, as a list. The parts may be damaged."""
  parts = recorded.get("parts", []) if isinstance(recorded, dict) else []
  return [recorded, *(parts if isinstance(parts, list) else [parts])]


def _past(description):
  """Returns the lineage that a description records, as a tuple.

  The description of a converted file names the data set and the body model of the run that was converted.
  They are moved to the origin of that run.
  """
  past = [dict(origin) for origin in description.get("lineage", ())]
  # Only conversions record the source of the pixel statistics. So the key "from" shows a conversion.
  is_conversion = "from" in description.get("normalization", {})
  run = next((origin for origin in past if _is_run(origin)), None) if is_conversion else None
  if run is not None:
    for part in _PARTS:
      if description.get(part):
        run.setdefault(part, _facts(description, part))
  return tuple(past)


def _is_run(origin):
  """Returns True if an origin is a run of this project, or a checkpoint that was converted from a run."""
  return origin["family"] == OWN_FAMILY and "step" in origin


def completed(lineage):
  """Completes the origins that earlier versions recorded, and sets the licence of each origin.

  The licence of an origin is computed from the licences of all stages up to this origin.

  Args:
    lineage: origins, newest first. An origin of this project may have no "licence".
  Returns:
    the completed origins, as a tuple.
  """
  *newer, oldest = lineage
  # Only the oldest origin can be a run that started without weights.
  found = _FROM_SCRATCH.fullmatch(oldest.get("licence", ""))
  if oldest["family"] == OWN_FAMILY and "data" not in oldest and found:
    oldest = {**oldest, "data": {"name": found[1], "licence": found[2]}}
  result, known = [], []
  # The oldest stage is first here. The licence of each stage includes the sources of all stages before it.
  for origin in reversed([*newer, oldest]):
    is_oldest = not result
    known = licences.ordered([*_own_sources(origin, is_oldest), *known])
    # A published file has the licence that its publisher states. It is not derived from its sources.
    is_published = is_oldest and origin["family"] != OWN_FAMILY
    result.append(origin if is_published else {**origin, "licence": licences.line(known)})
  return tuple(reversed(result))


def sources(lineage):
  """Returns all data sets and weights that a completed lineage names, in the order of `licences.ordered`."""
  last = len(lineage) - 1
  return licences.ordered(
    item for k, origin in enumerate(lineage) for item in _own_sources(origin, is_oldest=k == last)
  )


def text(origin):
  """Returns one origin as a line of text."""
  facts = [f"{key} {str(origin[key])[:12]}" for key in ("task", "step", "sha256") if key in origin]
  if "continued" in origin:
    facts.append(f"continued at epoch {origin['continued']:.6g}")
  return f"{origin['file']} ({', '.join([origin['family'], *facts])}): {origin['licence']}"


def markdown(licence, made_from, lineage):
  """Returns the section "Licence and origin" of a README as lines of text.

  Args:
    licence: one line of text for the weights.
    made_from: the result of `sources`.
    lineage: origins, newest first.
  """
  return [
    "## Licence and origin",
    "",
    f"Licence of these weights: {licence}",
    "",
    "Made from, the most restrictive licence first:",
    "",
    *(f"- {licences.text(item)}" for item in made_from),
    "",
    "Earlier checkpoints, the newest first:",
    "",
    *(f"- {text(origin)}" for origin in lineage),
  ]


def _own_sources(origin, is_oldest):
  """Returns the sources that one stage adds, newest first. A conversion adds no sources.

  Args:
    origin: the stage.
    is_oldest: True if no earlier stage is known.
  """
  is_own, found = origin["family"] == OWN_FAMILY, []
  if "data" in origin:
    whole, *parts = _items(origin["data"])
    found.extend(licences.source("data set", data["name"], data["licence"]) for data in parts or [whole])
  elif is_own and (is_oldest or "step" in origin):
    # Every run uses a data set. If the data set was not recorded, its licence is "unknown", the most
    # restrictive kind.
    step = f", step {origin['step']}" if "step" in origin else ""
    run = f"of a run ({origin.get('task', 'task unknown')}{step})"
    found.append(licences.source("data set", run, "not recorded"))
  if "body" in origin:
    found.append(licences.source("body model", origin["body"]["name"], origin["body"]["licence"]))
  # A file of another project was made from data sets and weights, too. Its Family lists them.
  if is_oldest and not is_own:
    found.append(licences.source("weights", f"{origin['file']} ({origin['family']})", origin["licence"]))
    family = families.find(origin["family"])
    found.extend(licences.source(*facts) for facts in (family.made_from if family else ()))
  return found

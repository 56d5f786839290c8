"""The names of the official text-to-image ReID in the golden files, from the table of its family."""

import dataclasses
import re

from hap_jax.convert import families, names
from hap_jax.convert.weights import unflatten

MODEL = families.load("text-reid").entries
# The golden file of the text branch has the LSTM without the prefix of the official network.
BRANCH = tuple(
  dataclasses.replace(row, reference=row.reference.removeprefix("TextExtract."))
  for row in MODEL
  if row.stack in ("lstm", "projection")
)


def rows_of(entries, state):
  """Returns {official name: row} for the tensors of a state dict. A name without a row is an error."""
  known = {row.reference: row for row in entries}
  found = {}
  for name in state:
    # A number between dots is the number of a block, if the table has a row with {i} in its place.
    general = re.sub(r"\.(blocks|layer)\.\d+\.", r".\1.{i}.", name)
    row = known[general]
    found[name] = row if general == name else row.numbered(int(re.search(r"\.(\d+)\.", name)[1]))
  return found


def to_ours(entries, state):
  """Turns {official name: array} into this project's nested dicts of arrays. "bert" is the text encoder."""
  found = names.assemble(rows_of(entries, state).values(), lambda row: state[row.reference])
  return unflatten({path: leaf for flat in found.values() for path, leaf in flat.items()})

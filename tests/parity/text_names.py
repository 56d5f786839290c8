"""The name table of the official text-to-image ReID, for the small networks of the golden files."""

import dataclasses
import re

from hap_jax.convert import bert_names, names, rows
from hap_jax.convert.layouts import LINEAR, VECTOR, Layout
from hap_jax.convert.names import Entry
from hap_jax.convert.weights import unflatten

# The projection is a 1x1 convolution [F, D, 1, 1] in the official code, and a kernel [D, F] here.
CONV_1X1 = Layout("conv_1x1", lambda weight: weight[:, :, 0, 0].T, lambda kernel: kernel.T[:, :, None, None])
# The letter F is the width of the shared space. W is the width of the text encoder.
LSTM = tuple(
  Entry(f"lstm.{name}_l0{suffix}", f"lstm/{direction}_{kernel}/kernel", LINEAR, ("4D", width))
  for direction, suffix in (("forward", ""), ("backward", "_reverse"))
  for name, kernel, width in (("weight_ih", "input", "W"), ("weight_hh", "recurrent", "D"))
)
PROJECTION = (Entry("conv_1X1_2.block.0.weight", "projection/kernel", CONV_1X1, ("F", "D", "1", "1")),)
HEAD = (
  Entry("W.block.weight", "head/kernel", LINEAR, ("C", "F")),
  Entry("W.block.bias", "head/bias", VECTOR, ("C",)),
)


def _under(prefix, entries):
  return tuple(dataclasses.replace(row, reference=f"{prefix}{row.reference}") for row in entries)


MODEL = (
  *_under("ImageExtract.model.", rows.ENCODER),
  *bert_names.entries("TextExtract.text_embed.", "text_encoder/"),
  *_under("TextExtract.", LSTM),
  *PROJECTION,
  *HEAD,
)
BRANCH = (*LSTM, *PROJECTION)


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
  """Turns {official name: array} into this project's nested dicts of arrays."""
  found = rows_of(entries, state)
  return unflatten(names.assemble(found.values(), lambda row: state[row.reference])["params"])

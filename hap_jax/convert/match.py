"""Compares the names and shapes of a file's tensors with the name table of its family."""

from hap_jax.convert import detect, names
from hap_jax.convert.weights import some


def rename(source, family):
  """Returns ({name in the family's spelling: array}, {that name: name in the file}).

  The second dict also has the names of tensors that cannot be read.

  Raises:
    ValueError: if two names in the file become the same name.
  """
  state, file_names = {}, {}
  for name, file_name in source.names.items():
    renamed = family.rename(name)
    if renamed in file_names:
      raise ValueError(f"{source.path}: {file_names[renamed]} and {file_name} are the same tensor")
    file_names[renamed] = file_name
    if name in source.state:
      state[renamed] = source.state[name]
  return state, file_names


def match(source, family, state, file_names, selection):
  """Returns (rows of the family's table for this file, names in the file that are not used).

  Raises:
    ValueError: if the family does not know a name in the file, or the file has no tensor for a row.
  """
  has_decoder = any(row.stack == "decoder" and row.reference in state for row in family.entries)
  try:
    depth = names.count_blocks(family, "encoder", file_names)
    # A file with a part of a decoder must have at least one decoder block. So missing blocks are an error.
    decoder_depth = max(int(has_decoder), names.count_blocks(family, "decoder", file_names))
    depths = {stack: names.count_blocks(family, stack, file_names) for stack in names.block_stacks(family)}
  except ValueError as error:
    raise ValueError(f"{source.path}: {error}") from error
  placeholders = {item.reference for item in names.placeholders(family, depth)}
  unused = {name for name in file_names if name.startswith(family.unused) or name in placeholders}
  # A name in the table is always used, even if it has the prefix of unused names.
  unused -= {row.reference for row in family.entries}
  depths = {stack: max(1, number) for stack, number in depths.items()}
  rows = names.table(family, depth=max(1, depth), decoder_depth=decoder_depth, depths=depths)
  if selection.encoder_only:
    rows = tuple(row for row in rows if row.stack == "encoder")
  unknown = file_names.keys() - {row.reference for row in rows} - unused
  if selection.encoder_only:
    outside = {name for name in unknown if not family.is_of_encoder(name)}
    unused, unknown = unused | outside, unknown - outside
  if unknown:
    raise ValueError(f"{source.path}: {_unknown_text(family, unknown, file_names, selection)}")
  _check_present(source, family, rows, state, file_names)
  rows = tuple(row for row in rows if row.reference in state)
  return rows, tuple(file_names[name] for name in file_names if name in unused)


def _unknown_text(family, unknown, file_names, selection):
  """Returns the message about names that a family does not know."""
  listed = some(sorted(file_names[name] for name in unknown))
  text = f"expected names of the {family.name} family, found {listed}"
  if any(family.is_of_encoder(name) for name in unknown):
    return text  # without these tensors, the encoder would have other features
  return f"{text}; to read only the encoder, set {selection.option('encoder_only', True)}"


def _check_present(source, family, rows, state, file_names):
  """Raises ValueError if a file has no tensor for a row, or only a tensor that cannot be read."""
  missing = [row.reference for row in rows if row.reference not in state]
  missing = [name for name in missing if family.stand_ins.get(name) not in state]
  unread = {source.names[name]: tensor for name, tensor in source.unread.items()}
  for name in missing:
    if name in file_names:
      raise ValueError(f"{source.path}: {detect.unread_text(file_names[name], unread[file_names[name]])}")
  if missing:
    raise ValueError(f"{source.path}: missing tensors of the {family.name} family: {some(missing)}")


def check_shapes(path, rows, state, file_names):
  """Checks the shapes of all tensors. Returns {letter of the table's shapes: number}.

  A letter such as "D" gets its number from the first tensor with this letter in its shape.

  Raises:
    ValueError: if the shape of a tensor does not fit these numbers.
  """
  sizes, origin = {}, {}
  # The patch projection is checked first, and all other tensors must have its width. So an error message
  # names a tensor that does not fit the patch projection.
  for row in sorted(rows, key=lambda row: row.ours != names.PATCHES):
    shape = state[row.reference].shape
    if len(shape) == len(row.shape):
      for letter, number in zip(row.shape, shape, strict=True):
        if letter.isalpha() and letter not in sizes:
          sizes[letter], origin[letter] = number, file_names[row.reference]
    expected = tuple(names.size_of(token, sizes) for token in row.shape)
    # An empty tensor would fit any letter, but models have no empty tensors.
    if shape != expected or 0 in shape:
      named_by = sorted({origin[letter] for token in row.shape for letter in token if letter in origin})
      raise ValueError(
        f"{path}: tensor {file_names[row.reference]} has shape {shape}, expected "
        f"({', '.join(map(str, expected))})" + (f" by {', '.join(named_by)}" if named_by else "")
      )
  return sizes

"""Damages checkpoints, as a disk, a full disk or an incomplete copy does."""


def files_of(checkpoint):
  """Returns the files of a checkpoint, sorted by their paths."""
  return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def largest(checkpoint):
  """Returns the largest file of a checkpoint. It has arrays in it."""
  return max(files_of(checkpoint), key=lambda path: path.stat().st_size)


def flip(path, rng):
  """Changes one random byte of a file that is not empty. Its size stays."""
  data = bytearray(path.read_bytes())
  place = rng.integers(len(data))
  data[place] ^= rng.integers(1, 256)
  path.write_bytes(data)


def halve(path):
  """Cuts the second half of a file."""
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_any(checkpoint, rng):
  """Damages one random file of a checkpoint: flips a byte, halves the file, or removes it."""
  path = rng.choice([path for path in files_of(checkpoint) if path.stat().st_size])
  kind = rng.choice(["flip", "halve", "remove"])
  if kind == "flip":
    flip(path, rng)
  elif kind == "halve":
    halve(path)
  else:
    path.unlink()
  return f"{kind} {path.relative_to(checkpoint)}"

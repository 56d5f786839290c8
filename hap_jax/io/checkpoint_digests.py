"""The digest file of a checkpoint. It shows that the checkpoint is whole, or which file is damaged.

The file `digests.json` is the last file of a checkpoint that is written. It contains the size and the digest
of each other file, the digest of each array, and a digest of its own text. A checkpoint without this file is
unfinished, or an older version wrote it.
"""

import errno
import hashlib
import json
import os
import pathlib

import jax
import numpy as np

from hap_jax.io import regular_file, unfinished

FILE = "digests.json"
_SELF = "digest"  # the key in the file for the digest of its own text
_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


def name_arrays(tree):
  """Returns {name: array} of a pytree. A name does not depend on the types of the containers."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def digest_array(array):
  """Returns the SHA-256 digest of the type, the shape and the bits of a NumPy array, as hexadecimal text."""
  array = np.asarray(array)
  digest = hashlib.sha256(f"{array.dtype.name} {list(array.shape)}".encode())
  digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
  return digest.hexdigest()


def write(folder, arrays):
  """Adds the digest file to a checkpoint. Before that, the other files are flushed to the disk.

  Args:
    folder: pathlib.Path of the checkpoint.
    arrays: {name: digest of the array}.
  Raises:
    OSError: if a file cannot be read, or the digest file cannot be written.
  """
  files = {}
  for path in sorted(folder.rglob("*")):
    if path.is_file():
      with path.open("rb") as file:
        digest, size = hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size
        files[path.relative_to(folder).as_posix()] = [size, digest]
        # If the machine loses power or is taken away, all data that are not yet on the disk are lost.
        _flush(file.fileno())
  body = {"arrays": dict(arrays), "files": files}
  unfinished.write(folder / FILE, _text(body | {_SELF: _digest_of(body)}))
  for path in (folder / FILE, *(path for path in folder.rglob("*") if path.is_dir()), folder):
    flush(path)


def flush(path):
  """Flushes a file, or the list of names in a folder, to the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    _flush(descriptor)
  finally:
    os.close(descriptor)


def exists(folder):
  """Returns True if the checkpoint has a digest file."""
  return (folder / FILE).exists()


def find_damage(folder):
  """Compares the files of a checkpoint with its digest file.

  Args:
    folder: pathlib.Path of a checkpoint with a digest file.
  Returns:
    None if the checkpoint is whole. Otherwise a text that names the first file that differs.
  Raises:
    PermissionError: if this user may not read a file. Such a file may be whole.
  """
  try:
    files = _read(folder)["files"]
  except PermissionError:
    raise
  except (OSError, ValueError) as error:
    return f"{FILE} {_reason(error)}"
  # The sizes are compared first, because this needs no reading.
  for compare in (_compare_size, _compare_content):
    for name, (size, digest) in files.items():
      try:
        damage = compare(folder / name, size, digest)
      except PermissionError:
        raise
      except (OSError, ValueError) as error:
        damage = _reason(error)
      if damage:
        return f"{name} {damage}"
  return None


def read_arrays(folder):
  """Returns {name: digest of the array} from the digest file of a checkpoint. {}: there is no digest file.

  Raises:
    OSError, ValueError: if the digest file cannot be read or is damaged.
  """
  return _read(folder)["arrays"] if exists(folder) else {}


def _compare_size(path, size, digest):
  del digest
  found = path.stat().st_size
  return None if found == size else f"has {found:,} bytes, expected {size:,}"


def _compare_content(path, size, digest):
  del size
  with regular_file.open_regular(path) as file:
    found = hashlib.file_digest(file, "sha256").hexdigest()
  return None if found == digest else "has changed since it was written"


def _reason(error):
  if isinstance(error, (FileNotFoundError, NotADirectoryError)):
    return "is missing"
  return f"cannot be read ({getattr(error, 'strerror', None) or error})"


def _read(folder):
  """Returns the content of a digest file.

  Raises:
    OSError, ValueError: if the file cannot be read, or its text differs from the text that was written.
  """
  data = regular_file.read_bytes(folder / FILE)
  try:
    body = json.loads(data)
    # A change of white space is damage, too. So the whole text is compared, not only its values.
    is_same = _text(body).encode() == data
    is_same = body.pop(_SELF) == _digest_of(body) and is_same
    is_complete = all(_is_file(name, facts) for name, facts in body["files"].items())
    is_complete = is_complete and all(isinstance(digest, str) for digest in body["arrays"].values())
  except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
    is_same = is_complete = False
  if not (is_same and is_complete):
    raise ValueError("its own digest differs")
  return body


def _is_file(name, facts):
  """Returns True if `name` is a path inside the checkpoint, and `facts` is a list of a size and a digest."""
  path = pathlib.PurePosixPath(name)
  is_inside = not path.is_absolute() and ".." not in path.parts
  return is_inside and isinstance(facts, list) and [*map(type, facts)] == [int, str]


def _text(body):
  return json.dumps(body, indent=1, sort_keys=True) + "\n"


def _digest_of(body):
  return hashlib.sha256(_text(body).encode()).hexdigest()


def _flush(descriptor):
  try:
    os.fsync(descriptor)
  except OSError as error:
    if error.errno not in _UNSUPPORTED:  # some file systems cannot flush a folder
      raise

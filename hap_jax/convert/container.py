"""Opens the files and folders of other projects. Returns their content, without a look at the tensors."""

import dataclasses
import json
import pathlib
from typing import Any

from hap_jax.description import Description
from hap_jax.io import file_kind, npz_file, safetensors_file, torch_file

_SAFETENSORS, _BIN = "model.safetensors", "pytorch_model.bin"
_INDEX = ".index.json"  # a folder with several files of tensors has an index in place of the one file
_IN_FOLDER = (_SAFETENSORS, _BIN, f"{_SAFETENSORS}{_INDEX}", f"{_BIN}{_INDEX}")
_MAX_STAGES = 1000  # entries of a recorded lineage; real ones have far fewer
_NPZ = ".npz"
_ZIP = b"PK\x03\x04"
RECORD = "hap_jax"  # the key of the description in files that a conversion wrote


@dataclasses.dataclass(frozen=True)
class Container:
  """The content of a foreign file or folder.

  Attributes:
    path: the path as given.
    files: the files that hold the tensors.
    content: the saved object, usually nested dicts of arrays. The arrays are views of the files.
    unread: the names of classes that a pickle asks for and that were not read.
    config: the content of config.json in a Hugging Face folder, or {} for other files.
    processor: the content of preprocessor_config.json in a Hugging Face folder, or {} for other files.
    card: the front matter of README.md in a Hugging Face folder, or {} for other files.
    record: the description that a conversion wrote into the file, or {} if there is none.
  """

  path: pathlib.Path
  files: tuple[pathlib.Path, ...]
  content: Any
  unread: tuple[str, ...]
  config: dict[str, Any]
  processor: dict[str, Any]
  card: dict[str, str]
  record: dict[str, Any]


def weights_file(path):
  """Returns the file of tensors in a Hugging Face folder, or the index of several files, or None."""
  return next((path / name for name in _IN_FOLDER if (path / name).is_file()), None)


def open_container(path):
  """Opens a file of PyTorch, a .safetensors or .npz file or a Hugging Face folder. Executes no code of it.

  Returns:
    Container.
  Raises:
    UnsafePickleError: if the pickle of a file is built in a way that no writer uses.
    ValueError: if the file does not exist, is damaged, or is of another kind.
    OSError: if a file cannot be read.
  """
  path = pathlib.Path(path)
  file = weights_file(path) if path.is_dir() else path
  if file is None:
    raise ValueError(f"{path}: expected a Hugging Face folder with {' or '.join(_IN_FOLDER[:2])}")
  if not file.exists():
    raise ValueError(f"{path}: no such file or folder")
  files = (file,)
  if file.name.endswith(_INDEX):
    content, unread, record, files = _load_shards(file)
  else:
    content, unread, record = _load(file)
  folder = path if path.is_dir() else None
  return Container(
    path=path,
    files=files,
    content=content,
    unread=unread,
    config=read_json(folder and folder / "config.json"),
    processor=read_json(folder and folder / "preprocessor_config.json"),
    card=_front_matter(folder and folder / "README.md"),
    record=record,
  )


def kind_of(path):
  """Returns the format of a file or a folder as text."""
  if path.suffix == _NPZ:
    return "NumPy, npz"
  if path.is_dir():
    file = weights_file(path)
    return f"Hugging Face folder, {file.name}" if file else "Orbax"
  with path.open("rb") as file:
    head = file.read(9)
  if _is_safetensors(path, head):
    return "safetensors"
  return "PyTorch, zip" if head.startswith(_ZIP) else "PyTorch, legacy"


def _is_safetensors(path, head):
  """Returns True if a file has the suffix .safetensors, or if its first 9 bytes fit this format."""
  # The format starts with a length of 8 bytes and a JSON object. A zip file may also have "{" as its 9th
  # byte.
  return path.suffix == ".safetensors" or (head[8:] == b"{" and head[:2] != b"PK")


def _load(file):
  """Returns (content of a file, names that were not read, description that a conversion wrote, or {})."""
  if file.suffix == _NPZ:
    file_kind.check(file)
    arrays = npz_file.open_stored(file)
    return arrays, (), _json_record(file, str(arrays.pop(RECORD, "{}")))
  with file.open("rb") as opened:
    head = opened.read(9)
  if _is_safetensors(file, head):
    tensors, metadata = safetensors_file.load(file)
    return tensors, (), _json_record(file, metadata.get(RECORD, "{}"))
  opened = torch_file.open_file(file)
  record = opened.content.get(RECORD, {}) if isinstance(opened.content, dict) else {}
  return opened.content, opened.unread, _checked_record(file, record)


def _load_shards(index):
  """Returns the same as `_load` for the files that an index names, and the tuple of these files.

  Raises:
    ValueError: if the index has another form, if a file is missing, or if the files hold other tensors than
      the index says.
  """
  places = read_json(index).get("weight_map")
  if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
    raise ValueError(f"{index}: expected an object `weight_map` with the file of each tensor")
  names = sorted(set(places.values()))
  # Anyone may have written the index, so it must not name files outside of its folder.
  outside = [name for name in names if pathlib.PurePath(name).name != name or name in ("", ".", "..")]
  if outside or not names:
    raise ValueError(
      f"{index}: expected names of files in its folder, found {outside[0] if outside else 'none'!r}"
    )
  files = tuple(index.parent / name for name in names)
  missing = [file.name for file in files if not file.is_file()]
  if missing:
    raise ValueError(f"{index}: {', '.join(missing[:3])} is missing: {len(missing)} of {len(files)} files")
  content, unread, records = {}, [], []
  for file in files:
    tensors, more, record = _load(file)
    wanted = {name for name, place in places.items() if place == file.name}
    if not isinstance(tensors, dict) or tensors.keys() - {RECORD} != wanted:
      raise ValueError(f"{file}: expected the {len(wanted)} tensors that {index.name} names, found others")
    content |= tensors
    unread += more
    records.append(record)
  return content, tuple(dict.fromkeys(unread)), next(filter(None, records), {}), files


def _json_record(file, text):
  """Returns the record in a text of JSON, after a check of its form."""
  try:
    record = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{file}: expected JSON in its metadata {RECORD!r} ({error})") from error
  return _checked_record(file, record)


def _checked_record(file, record):
  """Returns a record after a check of its form. The check is needed because the file may come from anyone.

  Raises:
    ValueError: if the record does not have the form that a conversion writes.
  """
  if record == {}:
    return record
  # Only values that this project uses later are checked.
  try:
    grid, decoder = record["model"]["grid"], record["model"].get("decoder") or {}
    mean, std = (record["normalization"][key] for key in ("mean", "std"))
    lineage, data = record["lineage"], [record["data"]] if "data" in record else []
    data += [origin["data"] for origin in lineage if "data" in origin]
    data += [part for entry in data for part in entry.get("parts", [])]
    origins = [origin[key] for origin in lineage for key in ("file", "family", "licence")]
    origins += [entry[key] for entry in data for key in ("name", "licence")]
    is_good = (
      len(lineage) <= _MAX_STAGES
      and all(isinstance(value, str) for value in (record["family"], *origins))
      and len(grid) == 2
      and all(type(side) is int and side > 0 for side in grid)
      and len(mean) == len(std) == 3
      and all(isinstance(value, float) for value in (*mean, *std))
      and isinstance(decoder.get("num_heads"), int | None)
      and Description.from_json(record) is not None
    )
  except (AttributeError, KeyError, TypeError, ValueError):
    is_good = False
  if not is_good:
    raise ValueError(f"{file}: its entry {RECORD!r} is not a description that a conversion wrote")
  return record


def read_json(path):
  """Returns the JSON object of a file as a dict, or {} if `path` is None or there is no such file."""
  if path is None or not path.is_file():
    return {}
  try:
    content = json.loads(path.read_text())
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path}: expected JSON ({error})") from error
  if not isinstance(content, dict):
    raise ValueError(f"{path}: expected a JSON object, found a {type(content).__name__}")
  return content


def _front_matter(path):
  """Returns {key: value} from the lines `key: value` between the first two lines `---` of a model card."""
  lines = path.read_text(errors="replace").splitlines() if path is not None and path.is_file() else []
  if not lines or lines[0] != "---" or "---" not in lines[1:]:
    return {}
  # Only simple lines are needed, so no YAML reader is required. Lists and nested values are ignored.
  pairs = (line.partition(":") for line in lines[1 : lines.index("---", 1)])
  return {
    key.strip(): _unquoted(value.strip())
    for key, colon, value in pairs
    if colon and not key.startswith((" ", "-"))
  }


def _unquoted(value):
  """Returns a YAML scalar without its quotes."""
  is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
  return value[1:-1] if is_quoted else value

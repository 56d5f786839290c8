"""Opens files of other projects. Returns their tensors under names without the prefixes of wrappers."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from hap_jax.convert import families
from hap_jax.convert.weights import some
from hap_jax.description import Description
from hap_jax.io import safetensors_file, torch_file

# Keys under which training scripts store the weights, next to optimizer and epoch. Used for all families.
_NESTS = ("model", "state_dict")
_WRAPPERS = ("module.",)  # prefixes that wrapper modules put before every name
_IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
_MAX_STAGES = 1000  # entries of a recorded lineage; real ones have far fewer
RECORD = "hap_jax"  # the key of the description in files that a conversion wrote


@dataclasses.dataclass(frozen=True)
class Source:
  """One foreign file.

  Attributes:
    path: the path as given.
    file: the file that holds the tensors.
    state: {name: array} without the prefixes of wrappers. The arrays are views of the file.
    names: {name: name in the file}.
    beside: numbers and texts that the file stores next to the weights.
    is_nested: True if the file stores the weights under a key, such as "model".
    is_backbone: True if the names in the file have the prefix of a backbone.
    config: the content of config.json in a Hugging Face folder, or {} for other files.
    processor: the content of preprocessor_config.json in a Hugging Face folder, or {} for other files.
    card: the front matter of README.md in a Hugging Face folder, or {} for other files.
    record: the description that a conversion wrote into the file, or {} if there is none.
  """

  path: pathlib.Path
  file: pathlib.Path
  state: dict[str, np.ndarray]
  names: dict[str, str]
  beside: dict[str, Any]
  is_nested: bool
  is_backbone: bool
  config: dict[str, Any]
  processor: dict[str, Any]
  card: dict[str, str]
  record: dict[str, Any]


def weights_file(path):
  """Returns the file of tensors in a Hugging Face folder, or None if the folder has no such file."""
  return next((path / name for name in _IN_FOLDER if (path / name).is_file()), None)


def open_source(path):
  """Opens a file of PyTorch, a .safetensors file or a Hugging Face folder. Executes no code of it.

  Returns:
    Source.
  Raises:
    UnsafePickleError: if the file asks to run code.
    ValueError: if the file does not exist, is damaged, or has no named tensors.
    OSError: if the file cannot be read.
  """
  path = pathlib.Path(path)
  file = weights_file(path) if path.is_dir() else path
  if file is None:
    raise ValueError(f"{path}: expected a Hugging Face folder with {' or '.join(_IN_FOLDER)}")
  if not file.exists():
    raise ValueError(f"{path}: no such file or folder")
  content, record = _load(file)
  state, is_nested = _find_state(path, content)
  names = {name: name for name in state}
  # A prefix belongs to a wrapper only if every name has it. Otherwise it is the name of a module.
  for prefix in (*_WRAPPERS, *_of_families(lambda family: family.wrappers)):
    if all(name.startswith(prefix) for name in names):
      names = {name.removeprefix(prefix): full for name, full in names.items()}
  # Not all names have the prefix of a backbone, but the name of the patch projection always has it.
  backbones = ((prefix, family.patches) for family in families.load_all() for prefix in family.backbones)
  backbone = next((prefix for prefix, patches in backbones if f"{prefix}{patches}" in names), "")
  stripped = {name.removeprefix(backbone): full for name, full in names.items()}
  if len(stripped) != len(names):
    raise ValueError(f"{path}: expected each name once, found names both with and without {backbone!r}")
  folder = path if path.is_dir() else None
  return Source(
    path=path,
    file=file,
    state={name: state[full] for name, full in stripped.items()},
    names=stripped,
    beside={k: v for k, v in content.items() if type(v) in (str, int, float)} if is_nested else {},
    is_nested=is_nested,
    is_backbone=bool(backbone),
    config=read_json(folder and folder / "config.json"),
    processor=read_json(folder and folder / "preprocessor_config.json"),
    card=_front_matter(folder and folder / "README.md"),
    record=record,
  )


def _of_families(field):
  """Returns the values that all families list in a field, each value once.

  The values of all families are needed, because the family of the file is not known yet.
  """
  return dict.fromkeys(value for family in families.load_all() for value in field(family))


def is_safetensors(path, head):
  """Returns True if a file has the suffix .safetensors, or if its first 9 bytes fit this format."""
  # The format starts with a length of 8 bytes and a JSON object. A zip file may also have "{" as its 9th
  # byte.
  return path.suffix == ".safetensors" or (head[8:] == b"{" and head[:2] != b"PK")


def _load(file):
  """Returns (content of the file, description that a conversion wrote into the file, or {})."""
  with file.open("rb") as opened:
    head = opened.read(9)
  if is_safetensors(file, head):
    tensors, metadata = safetensors_file.load(file)
    try:
      record = json.loads(metadata.get(RECORD, "{}"))
    except ValueError as error:
      raise ValueError(f"{file}: expected JSON in its metadata {RECORD!r} ({error})") from error
    return tensors, _checked_record(file, record)
  content = torch_file.load(file)
  record = content.get(RECORD, {}) if isinstance(content, dict) else {}
  return content, _checked_record(file, record)


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


def _find_state(path, content):
  """Returns ({name: array} of the weights, True if the file stores them under a key)."""
  # The weights may be several levels deep, such as in {"model": {"state_dict": ...}}.
  state, is_nested = content, False
  siblings = {key: other for family in families.load_all() for key, other in family.siblings.items()}
  for nest in (*_NESTS, *_of_families(lambda family: family.nests)):
    if isinstance(state, dict) and isinstance(state.get(nest), dict):
      more, is_nested = state.get(siblings.get(nest)), True
      state = state[nest] if not isinstance(more, dict) else _joined(path, state[nest], more)
  if not isinstance(state, dict) or not state:
    raise ValueError(f"{path}: holds a {type(state).__name__}, not a state dict with names")
  for name, value in state.items():
    if type(name) is not str or not isinstance(value, np.ndarray):
      raise ValueError(
        f"{path}: expected a state dict, or one under {' or '.join(map(repr, _NESTS))}; {name!r} is a "
        f"{type(value).__name__}, not a tensor; other names: {some([str(n) for n in state if n != name])}"
      )
  return state, is_nested


def _joined(path, one, other):
  """Returns the entries of both dicts. A key in both is an error."""
  twice = [str(name) for name in one if name in other]
  if twice:
    raise ValueError(f"{path}: expected each tensor once, found in two entries: {some(twice)}")
  return {**one, **other}


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

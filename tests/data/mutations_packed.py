"""Makes damaged copies of a packed data set. The same seed gives the same copies."""

import io
import json
import os
import random
import shutil
import zipfile

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

_VALUES = (
  *(None, True, -1, 0, 1, 7, 2**31, 2**63, 10**30, "5", "-1", 1e308, float("nan"), "", "x", [], {}, [1, "a"]),
  *("../x", "/etc/hostname", "~/x", "file:///etc/hostname", "a\0b", "\ud800", "x" * 100_000, "{" * 300),
  *(
    "{DATASET}",
    "{SPLIT}.{FILEFORMAT}",
    "{X}",
    "{0.__class__}",
    "evil.Tensor",
    "os.system",
    "string",
    "object",
  ),
  *(
    "tensorflow_datasets.core.features.video_feature.Video",
    "tensorflow_datasets.core.features.scalar.Scalar",
  ),
)
_CHUNKS = (
  b"\xff" * 8,
  b"\0" * 8,
  b"\xff\xff\xff\x7f",
  b"\x80",
  b"[" * 50_000,
  b'{"a":' * 20_000,
  b"1" * 9_000,
)


def cases(folder, work, count, seed):
  """Yields `count` damaged copies of a packed data set.

  Args:
    folder: a small data set, <root>/<name>/<version> as `prepare` writes it.
    work: folder in which the copies are made. A copy is removed before the next one is made.
    count: number of copies.
    seed: seed of the damage.

  Yields:
    (text that names the copy, folder of the copy). One file of a copy differs from the original.
  """
  names = sorted(os.listdir(folder))
  shards = [name for name in names if ".array_record-" in name]
  tables = [name for name in names if name.endswith(".npz")]
  kinds = (
    *(("features.json", _damage_json),) * 3,
    *(("dataset_info.json", _damage_json),) * 3,
    *(("metadata.json", _damage_json),) * 2,
    *((tables, _damage_table),) * 2,
    *((shards, _damage_bytes), (shards, _damage_records)),
  )
  for number in range(count):
    rng = random.Random(f"{seed} {number}")
    choice, damage = rng.choice(kinds)
    target = choice if isinstance(choice, str) else rng.choice(choice)
    copy = os.path.join(work, f"case-{number}")
    os.mkdir(copy)
    for name in names:
      if name != target:
        os.link(os.path.join(folder, name), os.path.join(copy, name))
    damage(rng, os.path.join(folder, target), os.path.join(copy, target))
    yield f"seed {seed}, case {number}: {target}", copy
    shutil.rmtree(copy)


def _damage_bytes(rng, source, target):
  """Copies a file and changes, removes, repeats or inserts some of its bytes."""
  with open(source, "rb") as file:
    data = bytearray(file.read())
  used = [
    start for start in range(0, len(data), 64) if any(data[start : start + 64])
  ]  # shards are mostly zeros
  for _ in range(rng.choice((1, 1, 1, 2, 5))):
    start = min(rng.choice(used) + rng.randrange(64), max(len(data) - 1, 0))
    length = rng.choice((1, 2, 8, 40, 200))
    match rng.randrange(6):
      case 0:
        data[start : start + 1] = bytes([rng.randrange(256)])
      case 1:
        data[start : start + length] = rng.randbytes(length)
      case 2:
        del data[start : start + length]
      case 3:
        data[start:start] = rng.choice(_CHUNKS)
      case 4:
        data[start:start] = data[start : start + length]
      case _:
        del data[start:]
  with open(target, "wb") as file:
    file.write(data)


def _damage_json(rng, source, target):
  """Copies a JSON file and changes its bytes, or a few of its values, keys and texts."""
  if rng.random() < 0.3:
    _damage_bytes(rng, source, target)
    return
  with open(source, encoding="utf-8") as file:
    root = [json.load(file)]
  for _ in range(rng.choice((1, 1, 2, 4))):
    parent, key = rng.choice(list(_places(root)))
    match rng.randrange(5):
      case 0 | 1:
        parent[key] = rng.choice(_VALUES)
      case 2:
        other, other_key = rng.choice(list(_places(root)))
        parent[key] = json.loads(json.dumps(other[other_key]))
      case 3 if isinstance(parent, dict):
        parent[str(rng.choice(_VALUES))] = parent.pop(key)
      case _:
        parent[key] = [parent[key]] * rng.choice((0, 1, 2, 20))
  with open(target, "w", encoding="utf-8") as file:
    json.dump(root[0], file)


def _places(value):
  """Yields (containing object or list, key) for every value inside `value`."""
  for key in list(value) if isinstance(value, dict) else range(len(value)):
    yield value, key
    if isinstance(value[key], (dict, list)):
      yield from _places(value[key])


def _damage_table(rng, source, target):
  """Copies an .npz file and changes its bytes, or the shape, type, header or compression of an array."""
  if rng.random() < 0.4:
    _damage_bytes(rng, source, target)
    return
  with np.load(source) as file:
    arrays = {name: file[name] for name in file.files}
  name = rng.choice(sorted(arrays))
  data = {key: _npy(array) for key, array in arrays.items()}
  compression = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
  array = arrays[name]
  match rng.randrange(8):
    case 0:
      data[name] = _npy(array[rng.randrange(len(array)) :])
    case 1:
      data[name] = _npy(np.repeat(array, 2, axis=rng.randrange(array.ndim)))
    case 2:
      types = ("O", "S3", "U2", "c16", "f8", "i8", "u1", "M8[s]", "i4,i4", ">i4", "f2")
      data[name] = _npy(np.ones(array.shape, rng.choice(types)))
    case 3:
      del data[name]
    case 4:
      data[rng.choice(("other", "../x", "", name + "/", "\ud7ff"))] = data[name]
    case 5:
      shape = rng.choice(("(99999999999,)", "(-1,)", "()", "(3,)", "(" * 40, "-" * 5000 + "1", "9" * 5000))
      header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
      data[name] = b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + array.tobytes()
    case 6:
      data[name] = b"\x93NUMPY" + rng.randbytes(6) + data[name][12:]
    case _:
      data[name] = data[name] + bytes(rng.choice((1, 10_000, 20_000_000)))
      compression = zipfile.ZIP_DEFLATED
  with zipfile.ZipFile(target, "w", compression) as archive:
    for key, content in data.items():
      archive.writestr(f"{key}.npy", content)


def _npy(array):
  file = io.BytesIO()
  np.lib.format.write_array(file, array)
  return file.getvalue()


def _damage_records(rng, source, target):
  """Writes a shard with damaged records, or with another number of records."""
  reader = ArrayRecordReader(source)
  records = [bytearray(reader.read([i])[0]) for i in range(reader.num_records())]
  reader.close()
  if rng.random() < 0.2:
    records = records[1:] if rng.random() < 0.5 else records + [bytearray(record) for record in records]
  for record in records:
    start = rng.randrange(len(record))
    match rng.randrange(5):
      case 0:
        del record[start:]
      case 1:
        record[start] = rng.randrange(256)
      case 2:
        record[start : start + 4] = rng.choice(_CHUNKS)[:20]
      case 3:
        record[:] = rng.randbytes(rng.randrange(50))
      case _:
        record[:] = record.replace(rng.choice((b"pid", b"image", b"name", b"box")), b"xyz", 1)
  writer = ArrayRecordWriter(target, "group_size:1,uncompressed")
  for record in records:
    writer.write(bytes(record))
  writer.close()

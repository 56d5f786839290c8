"""Makes damaged and hostile checkpoints from small ones. The same seed gives the same files."""

import functools
import io
import json
import pickle
import pickletools
import struct
import zipfile

import numpy as np

from tests.convert.reference_state import encoder_state, family_state
from tests.io import torch_bytes

_COUNTS = (0, 1, 2, 4, 7, 8, 255, 2**16 - 1, 2**16, 2**20, 2**28, 2**31 - 1, 2**31, 2**32 - 8, 2**32 - 1)
_OPCODES = bytes(range(0x28, 0x98))
_STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x10tQ"
# Opcodes that ask for code, claim huge sizes, copy data or nest it. Each leaves one value on the stack.
PAYLOADS = (
  b"cos\nsystem\nX\x04\x00\x00\x00true\x85R",
  b"cposix\nsystem\nX\x04\x00\x00\x00true\x85R",
  b"cbuiltins\neval\nX\x03\x00\x00\x001+1\x85R",
  b"cbuiltins\nexec\nX\x04\x00\x00\x00pass\x85R",
  b"c__builtin__\n__import__\nX\x06\x00\x00\x00socket\x85R",
  b"csubprocess\nPopen\n]X\x04\x00\x00\x00truea\x85R",
  b"cbuiltins\ngetattr\ncos\nX\x06\x00\x00\x00system\x86R",
  b"coperator\nattrgetter\nX\x06\x00\x00\x00system\x85Rcos\n\x85R",
  b"cpathlib\nPosixPath\nX\x04\x00\x00\x00/tmp\x85R}b",
  b"cnumpy\nmemmap\nX\x0b\x00\x00\x00/etc/passwd\x85R",
  b"ctorch\nload\nX\x0b\x00\x00\x00/etc/passwd\x85R",
  b"ctorch.storage\n_load_from_bytes\nC\x00\x85R",
  b"ctorch.nn.modules.linear\nLinear\n)\x81}X\x07\x00\x00\x00forwardcos\nsystem\nsb",
  b"(ios\nsystem\n",
  b"(cos\nsystem\nX\x04\x00\x00\x00trueo",
  b"cos\nsystem\n)}\x92",
  b"\x82\xf0",
  b"X\x02\x00\x00\x00os\x8c\x06system\x93X\x04\x00\x00\x00true\x85R",
  b"ccollections\ndefaultdict\ncos\nsystem\n\x85R",
  b"ccollections\nCounter\n}X\x01\x00\x00\x00aK\x03s\x85R",
  b"ccollections\nOrderedDict\n]R",
  b"cargparse\nNamespace\n)\x81}X\x01\x00\x00\x00acos\nsystem\nsb",
  b"\x8e" + struct.pack("<Q", 2**62),
  b"\x96" + struct.pack("<Q", 2**40),
  b"cbuiltins\nbytearray\n\x8a\x07" + bytes(6) + b"\x10\x85R",
  b"cbuiltins\nrange\n\x8a\x07" + bytes(6) + b"\x10\x85R",
  b")" + b"\x85" * 3000,
  b"]" * 3000 + b"a" * 2999,
  b"}" + b")" + b"\x85" * 3000 + b"K\x01s",
  b"Nr\xff\xff\xff\x7f",
  b"ctorch._utils\n_rebuild_tensor_v2\n("
  + _STORAGE
  + b"K\x00\x8a\x05"
  + b"\xff" * 4
  + b"\x00\x85K\x00\x85\x89NtR",
  b"ctorch._utils\n_rebuild_tensor_v2\n(" + _STORAGE + b"K\x00K\x04\x85J\xff\xff\xff\xff\x85\x89NtR",
  b"ctorch._utils\n_rebuild_tensor_v3\n(" + _STORAGE + b"K\x00K\x04\x85K\x01\x85\x89Nctorch\nuint64\ntR",
  b"ctorch._utils\n_rebuild_sparse_tensor\n(K\x01" + _STORAGE + b"tR",
  b"ctorch._utils\n_rebuild_parameter_with_state\n(N\x88Ncos\nsystem\ntR",
  b"(X\x07\x00\x00\x00storageX\x05\x00\x00\x00ctypeX\x01\x00\x00\x000NK\x01tQ",
  b"(X\x07\x00\x00\x00storagecos\nsystem\nX\x01\x00\x00\x000NK\x01tQ",
)


def base_files():
  """Returns {suffix: small checkpoints as bytes}, the files that are damaged."""
  state = encoder_state(grid=(3, 3), width=4, depth=1, patch=2)
  averaged = {name: array + np.float32(1) for name, array in state.items()}
  rich = {
    "epoch": 3,
    "arch": "vit_base_patch16_224",
    "args": torch_bytes.Raw(
      b"cargparse\nNamespace\n)\x81}X\x03\x00\x00\x00outcpathlib\nPosixPath\nX\x01\x00\x00\x00a\x85Rsb"
    ),
    "seen": torch_bytes.Raw(b"ccollections\nCounter\n}X\x01\x00\x00\x00aK\x03s\x85R"),
    "optimizer": {"state": {0: {"exp_avg": state["norm.bias"]}}},
    "student": {f"module.backbone.{name}": array for name, array in averaged.items()},
    "teacher": {f"backbone.{name}": array for name, array in state.items()},
  }
  plain = {"state_dict": {f"module._orig_mod.{name}": array for name, array in state.items()}}
  found = [
    (".pth", make(content))
    for make in (torch_bytes.zip_file, torch_bytes.legacy_file)
    for content in (plain, rich)
  ]
  hf = family_state("hf-vit", grid=(2, 2), width=4, depth=1, patch=2)
  google = family_state("google-vit", grid=(2, 2), width=4, depth=1, patch=2)
  file = io.BytesIO()
  np.savez(file, **google)
  return [*found, (".npz", file.getvalue()), (".safetensors", _safetensors(hf))]


def _safetensors(state):
  """Returns the bytes of a .safetensors file, written without the package that reads it."""
  header, body = {}, b""
  for name, array in state.items():
    data = array.astype("<f4").tobytes()
    header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [len(body), len(body) + len(data)]}
    body += data
  text = json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + body


def cases(count, seed):
  """Yields (suffix, bytes) of `count` damaged files.

  A third of the files has a payload inside an undamaged pickle. In another third the pickle is damaged, but
  not the zip file around it. In the others, any byte may be damaged.
  """
  rng = np.random.default_rng(seed)
  files = base_files()
  for number in range(count):
    suffix, data = files[number % len(files)]
    kind = rng.integers(3)
    if suffix != ".pth" or kind == 0:
      yield suffix, bytes(_damage(bytearray(data), rng))
      continue
    program = program_of(data)
    if kind == 1:
      payload = PAYLOADS[rng.integers(len(PAYLOADS))]
      place = int(rng.choice(_boundaries(program)))
      # The opcode 0 removes the value again, so the rest of the pickle stays whole.
      payload += b"0" if rng.random() < 0.7 else b""
      yield suffix, with_program(data, program[:place] + payload + program[place:])
    else:
      yield suffix, with_program(data, bytes(_damage(bytearray(program), rng)))


@functools.cache
def _boundaries(program):
  """Returns the places between two opcodes of a pickle, as a tuple."""
  return tuple(place for _, _, place in pickletools.genops(program))[1:]


def program_of(data):
  """Returns the pickle with the tensors of a file, of a zip file or of the legacy format."""
  if data[:2] == b"PK":
    return zipfile.ZipFile(io.BytesIO(data)).read("archive/data.pkl")
  begin, end = _legacy_bounds(data)
  return data[begin:end]


def with_program(data, program):
  """Returns a file with another pickle, and with the same storages."""
  if data[:2] != b"PK":
    begin, end = _legacy_bounds(data)
    return data[:begin] + program + data[end:]
  source, file = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    for name in source.namelist():
      archive.writestr(name, program if name.endswith("/data.pkl") else source.read(name))
  return file.getvalue()


@functools.cache
def _legacy_bounds(data):
  """Returns the first and the last place of the pickle with the tensors in a file of the legacy format."""
  file = io.BytesIO(data)
  for _ in range(3):  # the magic number, the protocol, and facts about the machine
    pickle.load(file)
  begin = file.tell()
  *_, (_, _, stop) = pickletools.genops(file)
  return begin, stop + 1


def _damage(data, rng):
  """Damages bytes one to three times, in place, and returns them."""
  for _ in range(rng.integers(1, 4)):
    if len(data) <= 8:
      break
    start, stop = sorted(rng.integers(0, len(data), 2).tolist())
    word = int(rng.integers(len(data) - 4))
    kind = rng.integers(7)
    # 0 to 2 change a byte, 3 a 32-bit number, 4 deletes bytes, 5 copies or moves them, 6 adds a payload.
    # payload.
    if kind == 0:
      data[start] ^= 1 << int(rng.integers(8))
    elif kind == 1:
      data[start] = int(rng.integers(256))
    elif kind == 2:
      data[start] = _OPCODES[rng.integers(len(_OPCODES))]
    elif kind == 3:
      struct.pack_into("<I", data, word, int(rng.choice(_COUNTS)))
    elif kind == 4:
      del data[start : stop if rng.random() < 0.3 else start + int(rng.integers(1, 9))]
    elif kind == 5:
      chunk, where = data[start:stop], int(rng.integers(len(data)))
      data[where : where + (len(chunk) if rng.random() < 0.5 else 0)] = chunk
    else:
      data[start:start] = PAYLOADS[rng.integers(len(PAYLOADS))]
  return data

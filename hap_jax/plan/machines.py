"""The machines that `hap plan` knows."""

import dataclasses
import math
import re

GIB = 2**30
_GPUS_PER_HOST = 8
# Share of the memory that jax takes from a GPU at its start, if XLA_PYTHON_CLIENT_MEM_FRACTION is not set.
GPU_SHARE = 0.75


@dataclasses.dataclass(frozen=True)
class Machine:
  """A number of equal devices.

  Attributes:
    name: words for the user.
    platform: "tpu" or "cuda". "": no compiler knows the device.
    topology: the name of the arrangement of the devices for the compiler. "": no compiler knows it.
    count: number of devices.
    num_hosts: number of hosts. Each has the same number of devices.
    memory: bytes of each device that a program can use.
    total_memory: all bytes of each device.
    peak_flops: bfloat16 FLOP/s of each device in the datasheet. None: not known.
    clock: cycles per second of a TPU. None: not known.
  """

  name: str
  platform: str
  topology: str
  count: int
  num_hosts: int
  memory: int
  total_memory: int
  peak_flops: float | None = None
  clock: float | None = None


@dataclasses.dataclass(frozen=True)
class _Tpu:
  """A kind of TPU.

  Attributes:
    memory: usable bytes of a chip, from the messages of libtpu 0.0.42 about programs that are too large.
    total_memory: all bytes of a chip.
    peak_flops: bfloat16 FLOP/s of a chip (Cloud TPU's documentation).
    clock: cycles per second: peak_flops divided by the FLOPs that all matrix units do in a cycle.
    sizes: arrangements of the chips that Cloud TPU offers.
  """

  memory: int
  total_memory: int
  peak_flops: float
  clock: float
  sizes: tuple[str, ...]


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16")
_TPUS = {
  # A v5e has 4 matrix units of 128 x 128, a v5p 8 of them, and a v6e 4 of 256 x 256.
  "v5e": _Tpu(int(15.75 * GIB), 16 * GIB, 197e12, 1.50e9, _FLAT),
  "v5p": _Tpu(int(95.74 * GIB), 96 * GIB, 459e12, 1.75e9, _CUBES),
  "v6e": _Tpu(int(31.25 * GIB), 32 * GIB, 918e12, 1.75e9, _FLAT),
}
_TPU_CHIPS_PER_HOST = 4
H100_MEMORY = 84_942_979_072  # bytes, as XLA's description of an H100 SXM says
_H100_PEAK = 989.5e12


def topologies():
  """Returns the names of the known arrangements of TPU chips, such as "v5e:4x4"."""
  return [f"{kind}:{size}" for kind, tpu in _TPUS.items() for size in tpu.sizes]


def tpu(topology):
  """Returns the `Machine` of a TPU slice.

  Raises:
    ValueError: if the topology is not known. The message lists the known ones.
  """
  if topology not in topologies():
    listed = "; ".join(f"{kind}: {', '.join(tpu.sizes)}" for kind, tpu in _TPUS.items())
    raise ValueError(f"--topology={topology}: expected KIND:SIZE, such as v5e:4x4, of one of {listed}")
  kind, _, size = topology.partition(":")
  facts, count = _TPUS[kind], math.prod(int(side) for side in re.findall(r"\d+", size))
  return Machine(
    name=f"{topology}, {count} x TPU {kind}",
    platform="tpu",
    topology=topology,
    count=count,
    num_hosts=max(1, count // _TPU_CHIPS_PER_HOST),
    memory=facts.memory,
    total_memory=facts.total_memory,
    peak_flops=facts.peak_flops,
    clock=facts.clock,
  )


def h100(count, share=GPU_SHARE):
  """Returns the `Machine` of a number of H100 GPUs, 8 per host.

  Args:
    count: number of GPUs.
    share: share of the memory that jax takes.
  Raises:
    ValueError: if there are several hosts and `count` is not a multiple of 8.
  """
  if count > _GPUS_PER_HOST and count % _GPUS_PER_HOST:
    raise ValueError(
      f"--devices={count}: expected at most {_GPUS_PER_HOST}, or a multiple of {_GPUS_PER_HOST}, "
      "the number of GPUs of a host"
    )
  hosts = max(1, count // _GPUS_PER_HOST)
  return Machine(
    name=f"{count} x H100",
    platform="cuda",
    topology=f"1x{hosts}x{count // hosts}",
    count=count,
    num_hosts=hosts,
    memory=int(H100_MEMORY * share),
    total_memory=H100_MEMORY,
    peak_flops=_H100_PEAK,
  )


def other(count, gigabytes, share=GPU_SHARE):
  """Returns the `Machine` of a number of devices that no compiler knows.

  Args:
    count: number of devices.
    gigabytes: memory of each device, in 10^9 bytes.
    share: share of the memory that jax takes.
  """
  total = int(gigabytes * 1e9)
  return Machine(
    name=f"{count} devices of {gigabytes:g} GB",
    platform="",
    topology="",
    count=count,
    num_hosts=1,
    memory=int(total * share),
    total_memory=total,
  )

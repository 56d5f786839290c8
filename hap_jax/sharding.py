"""The device mesh and what lies where on it. The only file that names mesh axes."""

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")


def join_processes(coordinator_address, num_processes, process_id):
  """Joins the processes of a run; does nothing if none of the three is given.

  To be called before anything else of jax. Processes are told of each other by hand here.

  Args:
    coordinator_address: "host:port" of the first process. num_processes, process_id: of this run.
  Raises:
    ValueError: if some are given and some are not, or they contradict each other.
  """
  given = (coordinator_address, num_processes, process_id)
  if all(value is None for value in given):
    return
  if any(value is None for value in given) or process_id >= num_processes:
    raise ValueError(
      f"--coordinator_address={coordinator_address}, --num_processes={num_processes}, "
      f"--process_id={process_id}: expected all three, with process_id from 0 to num_processes - 1"
    )
  jax.distributed.initialize(coordinator_address, num_processes, process_id)


def make_mesh(data=-1, fsdp=1, tensor=1, *, devices=None):
  """Builds the mesh.

  Args:
    data: devices over which a batch is split; -1 takes all that are left. fsdp, tensor: must be 1.
    devices: the devices to use; None: all.
  Raises:
    ValueError: if the axes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  for axis, size in (("fsdp", fsdp), ("tensor", tensor)):
    if size != 1:
      raise ValueError(
        f"config.mesh.{axis}={size}: parameters are replicated in this version; set it to 1 and split the "
        "batch instead (config.mesh.data)"
      )
  data = len(devices) if data == -1 else data
  if data != len(devices):
    raise ValueError(
      f"config.mesh.data={data} does not match the {len(devices)} devices present; use {len(devices)} or -1"
    )
  # Auto axes are stated because the default changed to Explicit, under which Linen's layers do not trace.
  return jax.make_mesh((data, fsdp, tensor), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def replicated(mesh):
  """The sharding of parameters, optimizer state and scalars: a copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_split(mesh):
  """The sharding of a batch: rows over the data axes, in order."""
  return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def check_batch_size(batch_size, mesh, key="config.batch_size"):
  """Raises ValueError unless a global batch divides over the devices, and names sizes that do."""
  count = int(np.prod([mesh.shape[axis] for axis in ("data", "fsdp")]))
  if batch_size % count:
    lower = batch_size // count * count
    nearest = f"{lower} or {lower + count}" if lower else f"{count}"
    raise ValueError(f'{key}={batch_size} does not divide over {count} devices on axis "data"; use {nearest}')


def put_batch(batch, mesh):
  """Puts this process's rows {name: [b, ...]} on its devices as parts of the global batch."""
  return {name: _put(rows, batch_split(mesh)) for name, rows in batch.items()}


def put_replicated(tree, mesh):
  """Puts host arrays, the same in every process, on every device."""
  return jax.tree.map(lambda x: _put(np.asarray(x), replicated(mesh)), tree)


def put_scalar(value, dtype, mesh):
  """Puts a Python number on every device as a scalar of a type."""
  return put_replicated(np.asarray(value, dtype), mesh)


def _put(rows, place):
  # Stated, not implicit; but with several processes jax counts it as one that slipped in.
  with jax.transfer_guard_host_to_device("allow"):
    return jax.make_array_from_process_local_data(place, rows)

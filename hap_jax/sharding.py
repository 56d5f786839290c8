"""The device mesh and the placement of arrays on it. No other file names mesh axes.

A batch is split over `data` and `fsdp`. Parameters, the moments of the optimizer and the moving average
of the parameters are split over `fsdp` and `tensor`. So `fsdp` divides both the work and the memory. The
Python code is the same for every mesh, because the compiler adds the communication that the shardings need.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")
_BATCH = ("data", "fsdp")

# (end of the parameter path, mesh axes of its last two dimensions); the first match wins. Every device has a
# full copy of all other parameters. `tensor` splits the outputs of the first matrix of a branch (qkv or fc1)
# and the inputs of the second matrix (proj or fc2). So each device computes a part of the hidden features.
_PLACES = (
  (r"(qkv|fc1)/kernel", ("fsdp", "tensor")),
  (r"(proj|fc2)/kernel", ("tensor", "fsdp")),
  (r"[^/]+/kernel", ("fsdp", None)),
)


def make_mesh(data=-1, fsdp=1, tensor=1, *, devices=None):
  """Builds the mesh. One of the three sizes may be -1: it is computed from the number of devices.

  Args:
    data: number of devices that split a batch. Each of these devices has all parameters.
    fsdp: number of devices that split a batch and also the parameters.
    tensor: number of devices that split only the parameters.
    devices: the devices to use. None: all devices.
  Raises:
    ValueError: if a size is neither -1 nor at least 1, if several sizes are -1, if the product of the sizes
      is not the number of devices, or if a group of devices along `tensor` belongs to several processes.
  """
  devices = jax.devices() if devices is None else devices
  sizes, given = [data, fsdp, tensor], f"config.mesh: data={data}, fsdp={fsdp}, tensor={tensor}"
  if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
    raise ValueError(
      f"{given}: expected numbers of devices of at least 1; one of them may be -1, for all remaining devices"
    )
  known = int(np.prod([size for size in sizes if size != -1]))
  if -1 in sizes and len(devices) % known == 0:
    sizes[sizes.index(-1)] = len(devices) // known
  if np.prod(sizes) != len(devices):
    raise ValueError(
      f"{given} do not multiply to the {len(devices)} devices present; set one of them to -1 for all "
      "remaining devices; the product of the others must divide the number of devices"
    )
  # Auto must be given, because newer versions of jax use Explicit by default. Linen layers fail with
  # Explicit.
  mesh = jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
  check_rows([[device.process_index for device in shared] for shared in mesh.devices.reshape(-1, sizes[2])])
  return mesh


def check_rows(processes):
  """Raises ValueError if devices that work on the same rows of a batch belong to different processes.

  Each process loads its own rows, so such devices would work on different pictures.

  Args:
    processes: a list of the groups along `tensor`. Each group is a list of the process numbers of its
      devices.
  """
  if any(len(set(group)) > 1 for group in processes):
    raise ValueError(
      f"config.mesh.tensor={len(processes[0])}: devices of several processes would share the rows of a "
      f"batch, but each process loads its own rows: start one process per {len(processes[0])} devices, or "
      "use config.mesh.fsdp"
    )


def replicated(mesh):
  """Returns the sharding of scalars and small arrays: a full copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_split(mesh):
  """Returns the sharding of a batch: its rows are split over `data` and `fsdp`, in order."""
  return NamedSharding(mesh, PartitionSpec(_BATCH))


def places(tree, mesh):
  """Returns the sharding of each array of parameters or of a training state.

  In a training state, the path of a moment or an average ends with the path of its parameter, so the same
  rules apply. Matrices follow `_PLACES`. A dimension is not split if its length is not a multiple of the size
  of its mesh axis. Biases, scales, tokens and position tables together are less than 1 % of a ViT, so every
  device has a full copy.

  Args:
    tree: pytree of arrays or shapes.
    mesh: from `make_mesh`.
  """

  def find(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    axes = next((axes for pattern, axes in _PLACES if re.fullmatch(f"(.*/)?{pattern}", name)), ())
    # The leading dimensions are not split: the block axis of stacked blocks, or the window of a convolution.
    axes = (*[None] * (len(leaf.shape) - len(axes)), *axes)
    fits = [a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, leaf.shape, strict=True)]
    return NamedSharding(mesh, PartitionSpec(*fits))

  return jax.tree_util.tree_map_with_path(find, tree)


def check_batch_size(batch_size, mesh, key="config.batch_size", parts=1):
  """Raises ValueError unless the devices can share each part of a batch equally.

  The message names the nearest valid batch sizes.

  Args:
    batch_size: rows of the global batch.
    mesh: from `make_mesh`.
    key: the configuration key or flag to name in the message.
    parts: number of parts of the batch, config.accumulate.
  """
  count = int(np.prod([mesh.shape[axis] for axis in _BATCH])) * parts
  if batch_size % count:
    lower = batch_size // count * count
    nearest = f"{lower} or {lower + count}" if lower else f"{count}"
    over = f"{count // parts} devices" + (f" in {parts} parts (config.accumulate)" if parts > 1 else "")
    raise ValueError(f"{key}={batch_size} does not divide over {over}; use {nearest}")


def put_batch(batch, mesh):
  """Puts the rows {name: [b, ...]} of this process on its devices, as parts of the global batch."""
  # This transfer is intended, so it is allowed here. With several processes, jax would report it as an error,
  # because it counts as an implicit transfer.
  with jax.transfer_guard_host_to_device("allow"):
    place = batch_split(mesh)
    return {name: jax.make_array_from_process_local_data(place, rows) for name, rows in batch.items()}


def put(tree, shardings):
  """Puts host arrays on the devices. Each process must pass the same full arrays.

  Args:
    tree: pytree of host arrays.
    shardings: a pytree of the same structure with the sharding of each array.
  """

  def one(x, place):
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, place, lambda index: x[index])

  with jax.transfer_guard_host_to_device("allow"):
    return jax.tree.map(one, tree, shardings)


def put_replicated(tree, mesh):
  """Puts a full copy of host arrays on every device. Each process must pass the same arrays."""
  return put(tree, jax.tree.map(lambda _: replicated(mesh), tree))


def put_scalar(value, dtype, mesh):
  """Puts a Python number on every device as a scalar of the given dtype."""
  return put_replicated(np.asarray(value, dtype), mesh)


def fetch(tree):
  """Returns the full host arrays of a pytree of global arrays. All processes must call `fetch` together."""

  def one(x):
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
      return multihost_utils.process_allgather(x, tiled=True)
    return jax.device_get(x)

  return jax.tree.map(one, tree)


def on(mesh):
  """Returns a context that sets the mesh for traced code. `split_rows` and `against_whole_batch` use it."""
  return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def split_rows(x, axis=0):
  """Makes the compiler split a traced array over the devices along `axis`, the axis of the batch rows.

  Outside of the context `on`, `x` is returned unchanged.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return lax.with_sharding_constraint(x, PartitionSpec(*[None] * axis, _BATCH))


def micro_batches(batch, count):
  """Cuts a traced batch {name: [B, ...]} into consecutive parts: {name: [count, B / count, ...]}.

  The rows of a part do not depend on the mesh. Each part is again split over all devices.
  """
  return jax.tree.map(lambda x: split_rows(x.reshape(count, -1, *x.shape[1:]), axis=1), batch)


def against_whole_batch(function, rows, whole):
  """Compares the rows of a batch with the whole batch. Each device computes only its own rows.

  shard_map calls `function` on each device. So no device needs the memory for the intermediate results of all
  rows, such as a [B, B] matrix of logits.

  Args:
    function: (b rows of this device [b, ...], whole batch [B, ...], int32 index of the first of these b rows)
      -> [b, ...].
    rows: [B, ...], split over the devices. Each device passes its own rows as the first argument.
    whole: [B, ...], split over the devices. Each device gathers it and passes it as the second argument.
  Returns:
    [B, ...], split over the devices in the same way.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return function(rows, whole, jnp.int32(0))

  def on_device(rows, own):
    gathered = lax.all_gather(own, _BATCH, tiled=True)
    return function(rows, gathered, lax.axis_index(_BATCH) * len(rows))

  spec = PartitionSpec(_BATCH)
  return jax.shard_map(on_device, in_specs=(spec, spec), out_specs=spec)(rows, whole)

"""The device mesh and the placement of arrays on it. No other file names mesh axes.

A batch is split over `data` and `fsdp`. Parameters, their moments and their moving average are split over
`fsdp` and `tensor`. So `fsdp` divides both the work and the memory. The source program is the same for any
mesh: the compiler adds the communication that the shardings need.
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

# (end of the parameter path, mesh axes of its last two dimensions); the first match wins. All other
# parameters have a full copy on every device. The two matrices of a branch are split along opposite
# dimensions, so each `tensor` device computes a part of the hidden features.
_PLACES = (
  (r"(qkv|fc1)/kernel", ("fsdp", "tensor")),
  (r"(proj|fc2)/kernel", ("tensor", "fsdp")),
  (r"[^/]+/kernel", ("fsdp", None)),
)


def make_mesh(data=-1, fsdp=1, tensor=1, *, devices=None):
  """Builds the mesh. One of the three sizes may be -1: it is then computed from the number of devices.

  Args:
    data: number of devices that split a batch; each of them has all parameters.
    fsdp: number of devices that split a batch and also the parameters.
    tensor: number of devices that split only the parameters.
    devices: the devices to use. None: all devices.
  Raises:
    ValueError: if the product of the sizes is not the number of devices, or if devices of several processes
      share a group along `tensor`.
  """
  devices = jax.devices() if devices is None else devices
  sizes, given = [data, fsdp, tensor], f"config.mesh: data={data}, fsdp={fsdp}, tensor={tensor}"
  if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
    raise ValueError(
      f"{given}: expected numbers of devices from 1 on; one of them may be -1, for all remaining devices"
    )
  known = int(np.prod([size for size in sizes if size != -1]))
  if -1 in sizes and len(devices) % known == 0:
    sizes[sizes.index(-1)] = len(devices) // known
  if np.prod(sizes) != len(devices):
    raise ValueError(
      f"{given} do not multiply to the {len(devices)} devices present; set one of them to -1 for all "
      "remaining devices, and let the product of the others divide the number of devices"
    )
  # Auto is stated explicitly, because jax changed its default to Explicit, and Linen layers fail with it.
  mesh = jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
  check_rows([[device.process_index for device in shared] for shared in mesh.devices.reshape(-1, sizes[2])])
  return mesh


def check_rows(processes):
  """Raises ValueError if devices that work on the same rows of a batch belong to different processes.

  Each process loads its own rows, so such devices would work on different pictures.

  Args:
    processes: [groups along `tensor`][devices], the process number of each device.
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
  """Returns the sharding of a batch: its rows are split over the data axes, in order."""
  return NamedSharding(mesh, PartitionSpec(_BATCH))


def places(tree, mesh):
  """Returns the sharding of each array of parameters or of a training state.

  The paths of a training state end like the paths of its parameters, so the same rules apply. Matrices follow
  `_PLACES`. A dimension that is not a multiple of its mesh axis is not split. Biases, scales, tokens and
  tables are less than 1 % of a ViT, so every device has a full copy.

  Args:
    tree: pytree of arrays or shapes.
    mesh: from `make_mesh`.
  """

  def find(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    axes = next((axes for pattern, axes in _PLACES if re.fullmatch(f"(.*/)?{pattern}", name)), ())
    # Leading dimensions stay whole: the block axis of stacked blocks, or the window of a convolution.
    axes = (*[None] * (len(leaf.shape) - len(axes)), *axes)
    fits = [a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, leaf.shape, strict=True)]
    return NamedSharding(mesh, PartitionSpec(*fits))

  return jax.tree_util.tree_map_with_path(find, tree)


def check_batch_size(batch_size, mesh, key="config.batch_size", parts=1):
  """Raises ValueError unless each part of a batch divides over the devices. The message names better sizes.

  Args:
    batch_size: rows of the global batch.
    mesh: from `make_mesh`.
    key: the configuration key or flag to name in the message.
    parts: number of parts of the batch.
  """
  count = int(np.prod([mesh.shape[axis] for axis in _BATCH])) * parts
  if batch_size % count:
    lower = batch_size // count * count
    nearest = f"{lower} or {lower + count}" if lower else f"{count}"
    over = f"{count // parts} devices" + (f" in {parts} parts (config.accumulate)" if parts > 1 else "")
    raise ValueError(f"{key}={batch_size} does not divide over {over}; use {nearest}")


def put_batch(batch, mesh):
  """Puts the rows {name: [b, ...]} of this process on its devices, as parts of the global batch."""
  # This transfer is intended. With several processes, jax reports it as an implicit one, so it is allowed.
  with jax.transfer_guard_host_to_device("allow"):
    place = batch_split(mesh)
    return {name: jax.make_array_from_process_local_data(place, rows) for name, rows in batch.items()}


def put(tree, shardings):
  """Puts host arrays on the devices. Each process must pass the same full arrays.

  Args:
    tree: pytree of host arrays.
    shardings: the same pytree with a sharding for each array.
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
  """Returns the full host arrays of a pytree of global arrays. All processes must call it together."""

  def one(x):
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
      return multihost_utils.process_allgather(x, tiled=True)
    return jax.device_get(x)

  return jax.tree.map(one, tree)


def on(mesh):
  """Returns a context that sets the mesh for traced code. `split_rows` and `against_whole_batch` use it."""
  return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def split_rows(x, axis=0):
  """Constrains an axis of a traced array, the rows of a batch, to be split over the devices.

  Outside of the context `on`, returns `x` unchanged.
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
  """Runs function(own rows, whole batch, number of the first own row) on each device.

  It uses shard_map, so that each device computes only its own rows. No device ever holds the intermediate
  results of all rows, such as a [B, B] table of logits.

  Args:
    function: ([b, ...], [B, ...], int32) -> [b, ...].
    rows: [B, ...], split over the devices.
    whole: [B, ...], split over the devices.
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

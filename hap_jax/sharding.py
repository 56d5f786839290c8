"""The device mesh and what lies where on it. The only file that names mesh axes.

A batch is split over `data` and `fsdp`; parameters, their moments and their average over `fsdp` and `tensor`,
so that `fsdp` divides both the work and the memory. What is compiled is the same program for any mesh: the
compiler adds the communication that the stated places ask for.
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

# Where a matrix lies, by the end of its path; the first match wins, everything else is whole on every device.
# The two matrices of a branch are cut across each other: `tensor` devices share its hidden features.
_PLACES = (
  (r"(qkv|fc1)/kernel", ("fsdp", "tensor")),
  (r"(proj|fc2)/kernel", ("tensor", "fsdp")),
  (r"[^/]+/kernel", ("fsdp", None)),
)


def make_mesh(data=-1, fsdp=1, tensor=1, *, devices=None):
  """Builds the mesh.

  Args:
    data: devices over which only a batch is split. fsdp: over which a batch and the parameters are.
    tensor: over which the parameters alone are. One of the three may be -1: all devices that are left.
    devices: the devices to use; None: all.
  Raises:
    ValueError: if the axes do not multiply to the number of devices, or `tensor` spans processes.
  """
  devices = jax.devices() if devices is None else devices
  sizes, told = [data, fsdp, tensor], f"config.mesh: data={data}, fsdp={fsdp}, tensor={tensor}"
  if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
    raise ValueError(f"{told}: expected numbers of devices, at most one of them -1 for all that are left")
  known = int(np.prod([size for size in sizes if size != -1]))
  if -1 in sizes and len(devices) % known == 0:
    sizes[sizes.index(-1)] = len(devices) // known
  if np.prod(sizes) != len(devices):
    raise ValueError(
      f"{told} do not multiply to the {len(devices)} devices present; set one of them to -1 to take what is "
      "left, which the others must divide"
    )
  # Auto axes are stated because the default changed to Explicit, under which Linen's layers do not trace.
  mesh = jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
  check_rows([[device.process_index for device in shared] for shared in mesh.devices.reshape(-1, sizes[2])])
  return mesh


def check_rows(processes):
  """Raises ValueError if devices that work on the same rows of a batch belong to several processes.

  Each process loads rows of its own, so they would work on different pictures.

  Args:
    processes: [groups along `tensor`][devices], the process of each device.
  """
  if any(len(set(group)) > 1 for group in processes):
    raise ValueError(
      f"config.mesh.tensor={len(processes[0])}: devices of several processes would share the rows of a "
      "batch, of which each process loads its own: start one process for so many devices, or use "
      "config.mesh.fsdp"
    )


def replicated(mesh):
  """The sharding of scalars and of what is small: a copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_split(mesh):
  """The sharding of a batch: rows over the data axes, in order."""
  return NamedSharding(mesh, PartitionSpec(_BATCH))


def places(tree, mesh):
  """Returns the sharding of each array of parameters, or of a state whose paths end as parameters' do.

  Matrices follow `_PLACES`; an axis of the mesh that does not divide its dimension leaves it whole. Biases,
  scales, tokens and tables, under 1 % of a ViT, are on every device.

  Args:
    tree: pytree with shapes. mesh: from `make_mesh`.
  """

  def find(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    axes = next((axes for pattern, axes in _PLACES if re.fullmatch(f"(.*/)?{pattern}", name)), ())
    axes = (*[None] * (len(leaf.shape) - len(axes)), *axes)  # of a convolution: over its channels
    fits = [a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, leaf.shape, strict=True)]
    return NamedSharding(mesh, PartitionSpec(*fits))

  return jax.tree_util.tree_map_with_path(find, tree)


def check_batch_size(batch_size, mesh, key="config.batch_size", parts=1):
  """Raises ValueError, naming better sizes, unless each of `parts` of a batch divides over the devices."""
  count = int(np.prod([mesh.shape[axis] for axis in _BATCH])) * parts
  if batch_size % count:
    lower = batch_size // count * count
    nearest = f"{lower} or {lower + count}" if lower else f"{count}"
    over = f"{count // parts} devices" + (f" in {parts} parts (config.accumulate)" if parts > 1 else "")
    raise ValueError(f"{key}={batch_size} does not divide over {over}; use {nearest}")


def put_batch(batch, mesh):
  """Puts this process's rows {name: [b, ...]} on its devices as parts of the global batch."""
  # Stated, not implicit; but with several processes jax counts it as one that slipped in.
  with jax.transfer_guard_host_to_device("allow"):
    place = batch_split(mesh)
    return {name: jax.make_array_from_process_local_data(place, rows) for name, rows in batch.items()}


def put(tree, shardings):
  """Puts host arrays, whole and the same in every process, where a tree of shardings says."""

  def one(x, place):
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, place, lambda index: x[index])

  with jax.transfer_guard_host_to_device("allow"):
    return jax.tree.map(one, tree, shardings)


def put_replicated(tree, mesh):
  """Puts host arrays, the same in every process, on every device."""
  return put(tree, jax.tree.map(lambda _: replicated(mesh), tree))


def put_scalar(value, dtype, mesh):
  """Puts a Python number on every device as a scalar of a type."""
  return put_replicated(np.asarray(value, dtype), mesh)


def fetch(tree):
  """Returns host arrays of a pytree of global arrays, whole, in every process; all of them must call it."""

  def one(x):
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
      return multihost_utils.process_allgather(x, tiled=True)
    return jax.device_get(x)

  return jax.tree.map(one, tree)


def on(mesh):
  """Context in which traced code is of a mesh: `split_rows` and `against_whole_batch` see it."""
  return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def split_rows(x, axis=0):
  """States that an axis of a traced array, a batch's rows, is split over the devices; no-op outside `on`."""
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return lax.with_sharding_constraint(x, PartitionSpec(*[None] * axis, _BATCH))


def micro_batches(batch, count):
  """Cuts a traced batch {name: [B, ...]} into consecutive parts: {name: [count, B / count, ...]}.

  Which rows make up a part does not depend on the mesh; each part is split over all devices again.
  """
  return jax.tree.map(lambda x: split_rows(x.reshape(count, -1, *x.shape[1:]), axis=1), batch)


def against_whole_batch(function, rows, whole):
  """Runs function(own rows, whole batch, number of the first own row) on each device.

  A shard_map, because the point is that no device does the work of another: what the function makes of its
  own rows and the whole batch never exists for all rows in one place.

  Args:
    function: ([b, ...], [B, ...], int32) -> [b, ...]. rows, whole: [B, ...], both split over the devices.
  Returns:
    [B, ...], split likewise.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return function(rows, whole, jnp.int32(0))

  def on_device(rows, own):
    gathered = lax.all_gather(own, _BATCH, tiled=True)
    return function(rows, gathered, lax.axis_index(_BATCH) * len(rows))

  spec = PartitionSpec(_BATCH)
  return jax.shard_map(on_device, in_specs=(spec, spec), out_specs=spec)(rows, whole)

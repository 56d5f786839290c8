"""Several processes of one run: how they find each other, agree, and end together.

Only the standard library and NumPy are imported at the top: the training command needs this file before jax.
"""

import glob
import importlib.util
import json
import os
import sys

import numpy as np

# Launchers that set these in each of the processes that they start: (number of processes, the others).
_LAUNCHERS = {
  "SLURM": ("SLURM_NTASKS", ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")),
  "Open MPI": ("OMPI_COMM_WORLD_SIZE", ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_RANK")),
}


def join_processes(coordinator_address=None, num_processes=None, process_id=None):
  """Joins the processes of a run, told by hand or found out; does nothing for a process that is alone.

  To be called before anything else of jax. Found out are processes started by srun or mpirun, on the hosts of
  a TPU slice, and by an indexed job of Kubernetes (which needs `jax[k8s]`).

  Args:
    coordinator_address: "host:port" of the first process. num_processes, process_id: of this run.
  Raises:
    ValueError: if some are given and some are not, or they contradict each other.
  """
  import jax

  given = (coordinator_address, num_processes, process_id)
  if all(value is None for value in given):
    if launcher(os.environ) is not None:
      jax.distributed.initialize()
    return
  if any(value is None for value in given) or process_id >= num_processes:
    raise ValueError(
      f"--coordinator_address={coordinator_address}, --num_processes={num_processes}, "
      f"--process_id={process_id}: expected all three, with process_id from 0 to num_processes - 1"
    )
  jax.distributed.initialize(coordinator_address, num_processes, process_id)


def launcher(environment):
  """Names what started this process as one of several, by its environment; None: it is alone."""
  for name, (count, others) in _LAUNCHERS.items():
    if all(variable in environment for variable in (count, *others)):
      return name if int(environment[count]) > 1 else None
  if {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= set(environment):
    return "Kubernetes"
  has_tpu = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
  if has_tpu and importlib.util.find_spec("libtpu") and environment.get("JAX_PLATFORMS", "tpu") == "tpu":
    return "Cloud TPU"  # of one host, too: there jax finds one process
  return None


def is_one_of_several():
  """Returns whether this process runs together with others; False before it has joined them."""
  jax = sys.modules.get("jax")  # a wrong flag is an error before jax is imported
  return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def leave(text):
  """Ends this process of several at once: jax would wait minutes for the others, which wait for this one."""
  print(text, file=sys.stderr, flush=True)
  os._exit(1)


def from_first_process(value):
  """Returns the JSON value of process 0 in every process; JSON keeps every bit of a float."""
  import jax
  from jax.experimental import multihost_utils

  if jax.process_count() == 1:
    return value
  encoded = np.frombuffer(json.dumps(value).encode(), np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(encoded))))
  received = multihost_utils.broadcast_one_to_all(np.resize(encoded, size))
  return json.loads(np.asarray(received, np.uint8).tobytes())

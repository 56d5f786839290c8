"""Functions for a run with several processes: connect them, send values between them, end a process.

The top of this file imports only the standard library and NumPy, because the training command imports this
file before jax.
"""

import contextlib
import glob
import importlib.util
import json
import os
import sys

import numpy as np

# Environment variables that a launcher sets in each of its processes:
# {launcher: (variable with the number of processes, other variables)}.
_LAUNCHERS = {
  "SLURM": ("SLURM_NTASKS", ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")),
  "Open MPI": ("OMPI_COMM_WORLD_SIZE", ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_RANK")),
}


def join_processes(coordinator_address=None, num_processes=None, process_id=None):
  """Connects this process with the other processes of its run. Does nothing if there is only one process.

  Call this function before any function of jax. Without arguments, it finds the other processes if they were
  started by srun, by mpirun, on the hosts of a TPU slice, or by an indexed job of Kubernetes. Kubernetes
  needs the package `jax[k8s]`.

  Args:
    coordinator_address: "host:port" of the first process.
    num_processes: number of processes of the run.
    process_id: number of this process, from 0.
  Raises:
    ValueError: if only some arguments are given, or they contradict each other.
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
  """Returns the name of the launcher that started this process, or None if the run has only one process.

  Args:
    environment: the environment variables of the process.
  """
  for name, (count, others) in _LAUNCHERS.items():
    if all(variable in environment for variable in (count, *others)):
      return name if int(environment[count]) > 1 else None
  if {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= set(environment):
    return "Kubernetes"
  has_tpu = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
  if has_tpu and importlib.util.find_spec("libtpu") and environment.get("JAX_PLATFORMS", "tpu") == "tpu":
    return "Cloud TPU"  # also for one TPU host: jax then finds that there is one process
  return None


def is_one_of_several():
  """Returns True if this process is connected with other processes, and False before `join_processes`."""
  jax = sys.modules.get("jax")  # no import here: errors in flags are reported before jax is imported
  return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def is_first_process():
  """Returns True in process 0, and in a process that is not connected with other processes."""
  return not is_one_of_several() or sys.modules["jax"].process_index() == 0


def leave(text):
  """Prints a text and ends this process immediately.

  At a normal exit, jax waits minutes for the other processes, and the other processes wait for this process.
  """
  print(text, file=sys.stderr, flush=True)
  os._exit(1)


@contextlib.contextmanager
def entered_by_first_process(context):
  """Context manager: process 0 enters and leaves another context manager. The other processes wait for it.

  Args:
    context: the other context manager.
  Raises:
    ValueError: in every process, if process 0 cannot enter `context` because of a ValueError or an OSError.
  """
  with contextlib.ExitStack() as stack:
    problem = None
    if is_first_process():
      try:
        stack.enter_context(context)
      except (ValueError, OSError) as error:
        problem = str(error)
    problem = from_first_process(problem)
    if problem is not None:
      raise ValueError(problem)
    yield


def from_first_process(value):
  """Returns the JSON value that process 0 passed, in every process. All processes must call it together.

  Args:
    value: a JSON value. JSON keeps every bit of a float. The values of the other processes are ignored.
  """
  import jax
  from jax.experimental import multihost_utils

  if jax.process_count() == 1:
    return value
  encoded = np.frombuffer(json.dumps(value).encode(), np.uint8)
  # All processes must pass arrays of the same shape, so the length is sent first.
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(encoded))))
  received = multihost_utils.broadcast_one_to_all(np.resize(encoded, size))
  return json.loads(np.asarray(received, np.uint8).tobytes())

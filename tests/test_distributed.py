"""Which environments say that a process is one of several."""

import pytest

from hap_jax import distributed

SLURM = {
  "SLURM_JOB_ID": "7",
  "SLURM_STEP_NODELIST": "node[1-2]",
  "SLURM_NTASKS": "4",
  "SLURM_PROCID": "3",
  "SLURM_LOCALID": "1",
}
OPEN_MPI = {
  "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1",
  "OMPI_COMM_WORLD_SIZE": "2",
  "OMPI_COMM_WORLD_RANK": "0",
}


@pytest.mark.parametrize(
  ("environment", "name"),
  [
    ({}, None),
    (SLURM, "SLURM"),
    ({**SLURM, "SLURM_NTASKS": "1"}, None),
    ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, None),  # a batch script itself, not under srun
    (OPEN_MPI, "Open MPI"),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "Kubernetes"),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # a notebook in a cluster
  ],
)
def test_processes_are_found_out(environment, name):
  assert distributed.launcher(environment) == name


def test_jax_reads_what_slurm_says_as_we_do(monkeypatch):
  """The environment that `launcher` takes for SLURM's is one in which jax finds address, count and number."""
  from jax._src.clusters import ClusterEnv

  for variable, value in SLURM.items():
    monkeypatch.setenv(variable, value)
  address, count, number, devices = ClusterEnv.auto_detect_unset_distributed_params(
    None, None, None, None, None, None
  )
  assert address.startswith("node1:")
  assert (count, number, devices) == (4, 3, [1])

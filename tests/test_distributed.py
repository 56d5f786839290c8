"""Detection of several processes from the environment variables of a launcher."""

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
    (
      {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"},
      None,
    ),  # a batch script, whose commands do not run under srun
    (OPEN_MPI, "Open MPI"),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "Kubernetes"),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # a notebook in a cluster is not an indexed job
  ],
)
def test_the_launcher_of_a_process_is_detected(environment, name):
  assert distributed.launcher(environment) == name


def test_jax_detects_the_same_slurm_environment(monkeypatch):
  """In the environment that `launcher` detects as SLURM, jax finds address, count and process number."""
  from jax._src.clusters import ClusterEnv

  for variable, value in SLURM.items():
    monkeypatch.setenv(variable, value)
  address, count, number, devices = ClusterEnv.auto_detect_unset_distributed_params(
    None, None, None, None, None, None
  )
  assert address.startswith("node1:")
  assert (count, number, devices) == (4, 3, [1])

"""The known machines, and the errors for other ones."""

import pytest

from hap_jax.plan import h100, machines


def test_a_slice_has_its_chips_and_hosts():
  machine = machines.tpu("v5e:4x4")
  assert (machine.count, machine.num_hosts, machine.topology) == (16, 4, "v5e:4x4")
  assert machines.tpu("v5e:1x1").num_hosts == 1
  assert machines.tpu("v5p:2x2x2").count == 8


def test_the_clock_of_a_tpu_gives_its_peak():
  """Units x side x side x 2 FLOPs per cycle."""
  for topology, units, side in (("v5e:1x1", 4, 128), ("v5p:2x2x1", 8, 128), ("v6e:1x1", 4, 256)):
    machine = machines.tpu(topology)
    assert machine.clock * units * side * side * 2 == pytest.approx(machine.peak_flops, rel=0.003)


@pytest.mark.parametrize("topology", ["v5e", "v5e:3x3", "v9:2x2", "v5p:2x2", "4x4", ""])
def test_an_unknown_topology_is_an_error_with_the_known_ones(topology):
  with pytest.raises(ValueError, match=r"expected KIND:SIZE.*v5e: 1x1, 2x2.*v5p: 2x2x1.*v6e: 1x1"):
    machines.tpu(topology)


def test_gpus_have_eight_per_host():
  assert machines.h100(16).topology == "1x2x8"
  assert machines.h100(1).memory == pytest.approx(0.75 * 79.1 * machines.GIB, rel=0.001)
  with pytest.raises(ValueError, match="--devices=12: expected at most 8, or a multiple of 8"):
    machines.h100(12)


def test_the_description_of_an_h100_has_its_memory():
  assert f"device_memory_size: {machines.H100_MEMORY}" in h100.target_config()

"""XLA's description of an H100 SXM, with which the CUDA compiler needs no GPU.

The numbers are from XLA's own description of this GPU. No kernel is timed during such a compilation. So the
memory of the program is useful, but its kernels may differ from the kernels on a real GPU.
"""

from hap_jax.plan.machines import H100_MEMORY

_NAME = "NVIDIA H100 80GB HBM3"
_MODEL = f"sm_9.0a with {H100_MEMORY}B RAM, 132 cores, 1980000KHz clock, 2619000KHz mem clock, 52428800B L2$"
_CLOCK = 1.98  # GHz
_MATRIX_CLOCK = 1.8295201  # GHz
# (number of a data type in XLA, units per core, operations per clock)
_SCALAR_RATES = ((4, 64, 1), (8, 64, 1), (10, 128, 2), (11, 128, 1), (12, 64, 1), (16, 128, 2))
# (number of a data type in XLA, operations per clock of a matrix unit)
_MATRIX_RATES = (
  *((2, 1024), (6, 1024), (10, 512), (11, 256), (12, 32), (16, 512), (19, 1024), (20, 1024)),
  *((23, 1024), (24, 1024), (25, 1024), (28, 1024), (29, 1024), (33, 1024), (35, 1024), (36, 1024)),
)
_FLOAT64 = 12


def target_config():
  """Returns the text for the argument `target_config` of `jax.experimental.topologies.get_topology_desc`."""
  scalar = " ".join(_rate(kind, _CLOCK, units, ops) for kind, units, ops in _SCALAR_RATES)
  matrix = " ".join(
    _rate(kind, _CLOCK if kind == _FLOAT64 else _MATRIX_CLOCK, 4, ops) for kind, ops in _MATRIX_RATES
  )
  return f"""gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: {_CLOCK}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: {H100_MEMORY}
  pcie_bandwidth: 34359738368 ecc_enabled: true device_address_bits: 64
  cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
  scalar_unit_description {{ {scalar} }}
  matrix_unit_description {{ {matrix} }}
  device_vendor: "NVIDIA Corporation" platform_version: "Compute Capability 9.0a" name: "{_NAME}"
  model_str: "{_MODEL}"
  driver_version: "13.0.0" runtime_version: "12.8.0" compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0" cub_version: "3.1.2" device_interconnect_info {{ active_links: 18 }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{_NAME}"
"""


def _rate(kind, clock, units, ops):
  rate = f"clock_rate_ghz: {clock} units_per_core: {units} ops_per_clock: {ops}"
  return f"rate_infos {{ key: {kind} value {{ {rate} }} }}"

"""What XLA's GPU compiler asks of a GPU that is not there, in its own words (GpuTargetConfigProto).

Limits of a multiprocessor: CUDA C++ Programming Guide, table of compute capabilities 9.0 and 10.0. Numbers of
multiprocessors and L2: NVIDIA's H100 and Blackwell architecture papers (132 and 50 MB on H100 and H200, 148 and
126 MB on B200).
"""

import importlib.util
from typing import Any

from latents.plan.chips import CHIPS

# generation -> (name, compute capability, multiprocessors, clock in GHz, L2 in MB)
GPUS = {
  "h100": ("NVIDIA H100 80GB HBM3", 9, 132, 1.98, 50),
  "h200": ("NVIDIA H200", 9, 132, 1.98, 50),
  "b200": ("NVIDIA B200", 10, 148, 1.965, 126),
}

# A GPU is needed to try kernels out. Without it XLA takes its defaults; those of its own matrix products it may not
# be able to tile, so these are the library's (cuBLAS).
OPTIONS: dict[str, Any] = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}


def compiler() -> bool:
  """Whether XLA's GPU compiler is installed (wheels jax-cuda13-plugin and jax-cuda13-pjrt)."""
  return all(importlib.util.find_spec(name) for name in ("jax_cuda13_plugin", "jax_plugins"))


def target(generation: str) -> str:
  """The description of one GPU as a text protocol buffer."""
  name, capability, cores, clock, cache = GPUS[generation]
  chip = CHIPS[generation]
  device = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "threads_per_core_limit": 2048,
    "shared_memory_per_block": 48 << 10,
    "shared_memory_per_block_optin": 227 << 10,
    "shared_memory_per_core": 228 << 10,
    "registers_per_block_limit": 1 << 16,
    "registers_per_core_limit": 1 << 16,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 2**16 - 1,
    "block_dim_limit_z": 2**16 - 1,
    "core_count": cores,
    "fpus_per_core": 128,
    "clock_rate_ghz": clock,
    "l2_cache_size": cache << 20,
    "device_memory_size": int(chip.hbm),
    "memory_bandwidth": int(chip.bandwidth),
  }
  lines = [f"  {key}: {value}" for key, value in device.items()]
  return "\n".join([
    "gpu_device_info {", *lines, f"  cuda_compute_capability {{ major: {capability} minor: 0 }}", "}",
    'platform_name: "CUDA"', "dnn_version_info { major: 9 minor: 10 patch: 0 }", f'device_description_str: "{name}"',
  ])  # fmt: skip

"""The statistics of all quantisers are those of the global batch: on eight devices what they are on one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from latents.bottlenecks import VQReg
from tests.members.bottlenecks import BOTTLENECKS

ROOT = Path(__file__).parent.parent


def differences() -> dict[str, float]:
  """Name of a discrete member -> the largest difference of a training pass on eight devices from that on one, over
  values, terms, logs and state; in a process that has eight."""
  mesh = Mesh(np.array(jax.devices()), ("data",))
  rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
  found = {}
  for name, make, shape in BOTTLENECKS:
    module, rngs = make(), {"params": jax.random.key(0), "bottleneck": jax.random.key(1)}
    if (module.vocab is None and not isinstance(module, VQReg)) or "nested" in name:
      continue
    h = 2.0 * jax.random.normal(jax.random.key(2), (16, *shape))
    variables = jax.jit(lambda h, m=module, r=rngs: m.init(r, h, train=True))(h)
    step = jax.jit(lambda v, h, m=module, r=rngs: m.apply(v, h, train=True, mutable=["codebook"], rngs=r))
    one = step(variables, h)
    eight = step(jax.device_put(variables, whole), jax.device_put(h, rows))
    assert len(eight[0].z.sharding.device_set) == 8
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True)
    gaps = [jnp.abs(jax.device_get(a) - jax.device_get(b)).max() for a, b in pairs if a.dtype != bool]
    found[name] = float(max(gaps))
  return found


def test_one_device_equals_eight():
  script = "import json\nfrom tests import test_bottlenecks_devices as t\nprint(json.dumps(t.differences()))"
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
  env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
  done = subprocess.run([sys.executable, "-c", script], env=env, cwd=ROOT, capture_output=True, text=True, timeout=900)
  assert done.returncode == 0, done.stderr[-3000:]
  found = json.loads(done.stdout.splitlines()[-1])
  assert len(found) > 15
  assert all(gap < 1e-4 for gap in found.values()), found

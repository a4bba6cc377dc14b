"""Mean and standard deviation of the latents by channel, element or of all, measured once when stage 1 is done."""

from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from latents.errors import UserError
from latents.frozen import Frozen
from latents.machine import hosts
from latents.train.build_step import InMesh, once, units
from latents.train.sharding import place_batch
from latents.types import Batch, to_signal

EXAMPLES = 10_000  # Yao & Wang 2025 (2501.01423) normalise by as many


def measure(
  frozen: Frozen,
  variables: Any,
  batches: Iterator[Batch],
  size: int,
  mesh: jax.sharding.Mesh,
  normalise: Literal["channel", "element", "scalar", "none"] = "channel",
) -> dict[str, Any]:
  """Sums over the given training batches -> {"mean", "std": [D], [*s,D] or [], "count": vectors, "how": str}.

  batches: this process's rows of global batches of `size`. normalise: see `Stage1`; "none" reads no batch.
  count: what was averaged over: vectors (channel), examples (element), numbers (scalar).

  Of draws of the posterior, since the prior is trained on draws. Sums of each batch are in float32
  about the first batch's mean, the sums of batches in float64.
  """

  if normalise == "none":
    return {"mean": 0.0, "std": 1.0, "count": 0, "how": "not normalised"}

  def add(variables: Any, x: jax.Array, centre: jax.Array, key: jax.Array) -> tuple:
    arrays = {"variables": variables, "mean": centre, "std": jnp.ones_like(centre)}
    z: Any = frozen.encode(arrays, to_signal(x), key=key, train=True).z
    flat = z.reshape(-1, *centre.shape).astype(jnp.float32)
    return flat.shape[0], flat.sum(0), (flat**2).sum(0)

  sums = InMesh(mesh, jax.jit(add, out_shardings=NamedSharding(mesh, PartitionSpec()), compiler_options=once(mesh)))
  count, first, second = 0, np.float64(0), np.float64(0)
  centre: Any = None
  for number, batch in enumerate(batches):
    x = place_batch({"x": batch["x"]}, size, mesh)["x"]
    key = jax.random.fold_in(jax.random.key(0), number)
    if centre is None:
      n, one, _ = hosts.gather(sums(variables, x, np.zeros(_units(frozen, variables, x, normalise), np.float32), key))
      centre = np.asarray(one / n, np.float32)
    n, one, two = hosts.gather(sums(variables, x, centre, key))
    count, first, second = count + int(n), first + np.float64(one), second + np.float64(two)
  if centre is None or not count:
    raise ValueError("no batches to measure the latents on")
  if not np.isfinite(first + second).all():
    raise UserError(f"the latents of the training data are not finite (nan or infinite){frozen.overflow('encoder')}")
  offset = first / count
  std = np.sqrt(np.maximum(second / count - offset**2, 1e-12))
  return {
    "mean": (np.asarray(centre, np.float64) + offset).tolist(),
    "std": np.asarray(std).tolist(),
    "count": count,
    "how": "draws of the posterior, training split, augmented"
    + ("" if normalise == "channel" else f", by {normalise}"),
  }


def _units(frozen: Frozen, variables: Any, x: Any, normalise: str) -> tuple[int, ...]:
  signal = jax.ShapeDtypeStruct(x.shape, jnp.float32)
  latent = jax.eval_shape(lambda v, x: frozen.autoencoder.apply(v, x, method="encode"), variables, signal)
  return units(latent.z.shape[1:], normalise)

"""The frozen stage 1 as stage 2 sees it: normalised encode and decode, and the only stop_gradient."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.autoencoders import Autoencoder, Stacked
from latents.data.cache import SIDE
from latents.errors import UserError
from latents.nn.streams import streams
from latents.types import Array, Batch, Encoded, Latent, Stored


@dataclasses.dataclass(frozen=True)
class Frozen:
  """A trained autoencoder; its arrays come as an argument, so that they can be sharded.

  The argument `frozen` is {"variables": the module's collections, "mean", "std": [D], [*s,D] or []}: the
  statistics of z over the training set (`Stage1.normalise`), measured once and stored in the stage-1
  artefact. A prior sees (z - mean) / std only. UserError for z on another grid than statistics of elements.
  """

  autoencoder: Autoencoder | Stacked

  def encode(self, frozen: dict, x: Array, *, key: Array, train: bool) -> Latent:
    """x [B,*S,C] in [-1,1] -> normalised Latent without gradient."""
    return self.recall(frozen, self.store(frozen, x), key=key, train=train)

  def store(self, frozen: dict, x: Array) -> Stored:
    """x [B,*S,C] -> what a latent cache keeps."""
    return jax.lax.stop_gradient(self.autoencoder.apply(frozen["variables"], x, method="store"))

  def recall(self, frozen: dict, stored: Stored, *, key: Array, train: bool) -> Latent:
    """What `store` gave -> normalised Latent; `train` draws from the posterior."""
    latent: Any = self.autoencoder.apply(frozen["variables"], stored, train=train, method="recall", rngs=streams(key))
    check_units(frozen["mean"].shape, latent.z.shape[1:])
    latent = latent.replace(z=(latent.z - frozen["mean"]) / frozen["std"])
    return jax.lax.stop_gradient(latent)

  def restore_scale(self, frozen: dict, latent: Latent) -> Latent:
    """Normalised Latent -> the decoder's own units."""
    if latent.z is None:
      return latent
    check_units(frozen["mean"].shape, latent.z.shape[1:])
    return latent.replace(z=latent.z * frozen["std"] + frozen["mean"])

  def decode(self, frozen: dict, latent: Latent, *, key: Array, steps: int | None = None) -> Array:
    """Normalised Latent (z, or codes alone) -> x [B,*S,C]."""
    latent = self.restore_scale(frozen, latent)
    return self.autoencoder.apply(frozen["variables"], latent, steps=steps, method="decode", rngs=streams(key))

  def overflow(self, part: str) -> str:
    """What may be the cause where the numbers of the "encoder" or "decoder" are not finite, to end a message."""
    model: Any = self.autoencoder
    if "float16" not in _dtypes(getattr(model, part, None)):
      return ""
    return (
      f": the {part} computes in float16, which ends at 65504; in bfloat16 or float32 it does not overflow "
      f"(--stage1.model.{part}.dtype)"
    )

  def shape(self, frozen: dict, signal: tuple[int, ...]) -> Latent:
    """Abstract Latent of one example: fields are ShapeDtypeStructs without the batch axis."""
    x = jax.ShapeDtypeStruct((1, *signal), jnp.float32)
    latent = jax.eval_shape(lambda f, x: self.encode(f, x, key=jax.random.key(0), train=False), frozen, x)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), latent)


def _dtypes(part: Any) -> set[str]:
  """The words of all fields `dtype` of a module and those within it."""
  if not isinstance(part, nn.Module):
    return set()
  fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part) if field.name != "parent"}
  return {fields.get("dtype", "float32")}.union(*map(_dtypes, fields.values()))


def check_units(units: tuple[int, ...], z: tuple[int, ...]) -> None:
  """Raises UserError where statistics of shape `units` are not those of z [*s,D]."""
  if len(units) > 1 and units != z:
    raise UserError(
      f"the latents are normalised element by element on {units}, so {z} has no statistics: keep the size"
    )
  if len(units) == 1 and units[0] != z[-1]:
    raise UserError(f"the statistics are of {units[0]} channels, but the latents have {z[-1]}")


def to_batch(stored: Stored) -> Batch:
  """What `store` gave -> the arrays of a batch: "stored", and "side/NAME" for each that stands beside it."""
  if not isinstance(stored, Encoded):
    return {"stored": stored}
  return {"stored": stored.h, **{f"{SIDE}{name}": array for name, array in stored.side.items()}}


def from_batch(batch: Batch) -> Stored:
  """The inverse of `to_batch`; other keys are not read."""
  side = {name.removeprefix(SIDE): array for name, array in batch.items() if name.startswith(SIDE)}
  return Encoded(h=batch["stored"], side=side) if side else batch["stored"]

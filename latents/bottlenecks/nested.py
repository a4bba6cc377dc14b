"""Nested dropout: prefixes of a token sequence that decode on their own (Rippel et al. 2014, arXiv:1402.0915)."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from latents.bottlenecks.base import Bottleneck
from latents.errors import UserError
from latents.types import Array, Latent


class NestedDropout(Bottleneck):
  """The latent of `inner`, with a mask [B,*s] that keeps the first k of its N tokens (raster order).

  train: k ~ U{minimum..N} for every sample (rng "bottleneck"); else everything is kept (mask None). The tokens are
  not zeroed: the decoder must honour the mask. The inner terms count all tokens, as in One-D-Piece's "tail token
  drop" (arXiv:2501.10064), which however draws one k per batch.
  variants: the prefixes of N/4 and N/2 tokens beside the whole.
  """

  inner: Bottleneck
  minimum: int = 1

  @property
  def vocab(self) -> int | tuple[int, ...] | None:
    """The inner bottleneck's."""
    return self.inner.vocab

  def layout(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The inner bottleneck's."""
    return self.inner.layout(shape)

  def settle(self, latent: Latent) -> Latent:
    """The inner bottleneck's."""
    return self.inner.settle(latent)

  def __call__(self, h: Array, *, train: bool) -> Latent:
    """[B,*s,E] -> the inner Latent with its mask."""
    latent = self.inner(h, train=train)
    if not train:
      return latent
    shape = token_shape(latent)
    tokens = math.prod(shape[1:])
    if not 1 <= self.minimum <= tokens:
      raise UserError(f"NestedDropout keeps at least {self.minimum} tokens, but the latent has {tokens}")
    keep = jax.random.randint(self.make_rng("bottleneck"), (shape[0],), self.minimum, tokens + 1)
    return dataclasses.replace(latent, mask=prefix_mask(keep, shape))

  def embed(self, codes: Array) -> Array:
    """codes [B,*s] or [B,*s,G] -> z [B,*s,D]."""
    return self.inner.embed(codes)

  def store(self, h: Array) -> Array:
    """What the inner bottleneck stores."""
    return self.inner.store(h)

  def recall(self, stored: Array, *, train: bool) -> Latent:
    """The inner Latent, whole: a prior models all tokens."""
    return self.inner.recall(stored, train=train)

  def posterior(self, stored: Array) -> tuple[Array, Array] | None:
    """The inner bottleneck's."""
    return self.inner.posterior(stored)

  def variants(self, latent: Latent) -> dict[str, Latent]:
    """{"": whole, "n tokens": prefix}, for n = N/4 and N/2."""
    shape = token_shape(latent)
    tokens = math.prod(shape[1:])
    found = {"": latent}
    for n in sorted({max(tokens // 4, self.minimum), max(tokens // 2, self.minimum)} - {tokens}):
      found[f"{n} tokens"] = dataclasses.replace(latent, mask=prefix_mask(jnp.full(shape[0], n), shape))
    return found


def token_shape(latent: Latent) -> tuple[int, ...]:
  """(B,*s) of the latent's z, or a UserError where only codes are given."""
  if latent.z is None:
    raise UserError("a prefix is cut from z: embed the codes first (bottleneck.embed)")
  return latent.z.shape[:-1]


def prefix_mask(keep: Array, shape: tuple[int, ...]) -> Array:
  """keep [B] int32, shape (B,*s) -> [B,*s] bool: True for the first keep[b] tokens in raster order."""
  return (jnp.arange(math.prod(shape[1:])) < keep[:, None]).reshape(shape)


# -- the same over the depth of a residual quantiser: a module of `quantizers` stages and a `dropout` in [0, 1]


def check_stages(module: Any) -> None:
  """UserError where the module's fields are no stages."""
  if module.quantizers < 1:
    raise UserError(f"{type(module).__name__} has at least one quantizer, not {module.quantizers}")
  if not 0 <= module.dropout <= 1:
    raise UserError(f"the dropout of {type(module).__name__} is a share in [0, 1], not {module.dropout}")


def stages_kept(module: Any, batch: int, train: bool) -> Array | None:
  """-> [B] int32: n ~ U{1..G} for a share `dropout` of the examples, G for others (rng "bottleneck"); None = all G."""
  if not train or not module.dropout:
    return None
  some, many = jax.random.split(module.make_rng("bottleneck"))
  n = jax.random.randint(many, (batch,), 1, module.quantizers + 1)
  return jnp.where(jax.random.bernoulli(some, module.dropout, (batch,)), n, module.quantizers)


def stage_prefixes(module: Any, latent: Latent) -> dict[str, Latent]:
  """{"": whole, "n stages": z of the first n}, for n = G/4 and G/2, of a module that was trained on prefixes."""
  found = {"": latent}
  if module.dropout and latent.codes is not None:
    for n in sorted({max(module.quantizers // 4, 1), max(module.quantizers // 2, 1)} - {module.quantizers}):
      found[f"{n} stages"] = dataclasses.replace(latent, z=module.embed(latent.codes[..., :n]))
  return found

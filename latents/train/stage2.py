"""The pass of stage 2: the prior on latents of the frozen stage 1."""

from typing import Any

import jax

from latents.declare import Stage2
from latents.errors import UserError
from latents.frozen import Frozen, from_batch
from latents.nn.streams import streams
from latents.recodes import latent as merged
from latents.train import step as steps
from latents.types import Array, Batch, Cond, Latent, Seen, to_signal


def latents_of(stage: Stage2, frozen: Frozen, arrays: dict[str, Any], batch: Batch, key: Array) -> Latent:
  """The normalised latents of a batch, from the cache ("stored") or encoded now ("x"); merged tokens where the stage
  has a recode, and those are "stored" always."""
  if stage.recode is not None:
    stored = from_batch(batch)
    return merged(stored.h, stored.side["places"])
  if "stored" in batch:
    return frozen.recall(arrays, from_batch(batch), key=key, train=True)
  return frozen.encode(arrays, to_signal(batch["x"]), key=key, train=True)


def code_grid(frozen: Frozen, arrays: dict[str, Any], signal: tuple[int, ...]) -> tuple[int, ...]:
  """[*s] of the codes of a signal [*S,C], which a recode merges. UserError where there is more than one at a place."""
  latent = frozen.shape(arrays, signal)
  if latent.z is not None and latent.codes.shape != latent.z.shape[:-1]:
    raise UserError(
      f"a recode merges one code a place, but the bottleneck gives codes of {latent.codes.shape} for z of "
      f"{latent.z.shape}: several groups or grids"
    )
  return latent.codes.shape


def condition(stage: Stage2, batch: Batch) -> Cond | None:
  """What the prior is told of a batch; None for a prior that reads nothing."""
  return stage.conditioner(batch) if stage.prior.conditions else None


def passing(stage: Stage2, model: Frozen) -> steps.Passing:
  """latent, condition -> the prior's terms; no gradient reaches stage 1's arrays."""

  def run(variables: dict, frozen: steps.Frozen, batch: Batch, key: Array, **options: Any) -> tuple:
    key, key_encode = jax.random.split(key)
    latent, cond = latents_of(stage, model, frozen, batch, key_encode), condition(stage, batch)
    out: Any = stage.prior.apply(variables, latent, cond, train=True, method="loss", rngs=streams(key), **options)
    terms, changed = out
    signal = to_signal(batch["x"]) if "x" in batch else None
    return dict(terms), {}, Seen(signal, None, None, latent.z, latent.codes, latent.mask, {}, None), {}, changed

  def first(key: Array, frozen: steps.Frozen, batch: Batch) -> dict[str, Any]:
    latent = latents_of(stage, model, frozen, batch, key)
    rngs = {"params": jax.random.fold_in(key, 0), **streams(jax.random.fold_in(key, 1))}
    return dict(stage.prior.init(rngs, latent, condition(stage, batch), train=True, method="loss"))

  return steps.Passing("prior", 2**31 - 2, run, first, lambda where: (where,))

"""The pass of stage 1: a signal through the autoencoder."""

from typing import Any

import jax
import jax.numpy as jnp

from latents.autoencoders import Autoencoder, Stacked
from latents.declare import Stage1
from latents.errors import UserError
from latents.nn.streams import streams
from latents.train import step as steps
from latents.types import Array, Batch, Seen, to_signal


def passing(stage: Stage1) -> steps.Passing:
  """x -> (latent, decoded)."""

  def run(variables: dict, frozen: steps.Frozen, batch: Batch, key: Array, **options: Any) -> tuple:
    x = to_signal(batch["x"])
    given = stage.conditioner(batch) if stage.model.conditions else None
    out: Any = stage.model.apply(variables, x, train=True, given=given, rngs=streams(key), **options)
    (latent, decoded), changed = out
    target = x if decoded.target is None else jax.lax.stop_gradient(decoded.target)
    if decoded.x.shape != target.shape and jnp.issubdtype(target.dtype, jnp.floating):  # a loss would broadcast them
      raise UserError(f"the decoder gives signals of {decoded.x.shape[1:]}, the data have {target.shape[1:]}")
    rest = Seen(x, target, None, None, latent.codes, latent.mask, {}, None, others(batch))
    return {**latent.terms, **decoded.terms}, {"x_hat": decoded.x, "z": latent.z}, rest, latent.logs, changed

  def first(key: Array, frozen: steps.Frozen, batch: Batch) -> dict[str, Any]:
    return first_variables(stage.model, key, to_signal(batch["x"]))

  return steps.Passing("ae", 2**31 - 1, run, first, stage.model.last)


def others(batch: Batch) -> Batch:
  """The entries of a batch besides the signal and its number."""
  return {name: array for name, array in batch.items() if name not in ("x", "index")}


def first_variables(model: Autoencoder | Stacked, key: Array, x: Array) -> dict[str, Any]:
  """The autoencoder's first collections of variables; x [B,*S,C] gives shapes alone."""
  rngs = {"params": jax.random.fold_in(key, 0), **streams(jax.random.fold_in(key, 1))}
  return dict(model.init(rngs, x, train=True))

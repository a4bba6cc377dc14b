"""The step of stage 2: the prior on latents of the frozen stage 1."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from latents.experiment import Stage2
from latents.frozen import Frozen, streams
from latents.train.accumulate import accumulate
from latents.train.state import State, average, descend, fresh, guard
from latents.types import Array, Batch, Latent, to_signal


def latents_of(frozen: Frozen, arrays: dict[str, Any], batch: Batch, key: Array) -> Latent:
  """The normalised latents of a batch, from the cache ("stored") or encoded now ("x")."""
  if "stored" in batch:
    return frozen.recall(arrays, batch["stored"], key=key, train=True)
  return frozen.encode(arrays, to_signal(batch["x"]), key=key, train=True)


def init(stage: Stage2, frozen: Frozen, seed: int, arrays: dict[str, Any], batch: Batch) -> State:
  """State at step 0. The batch gives shapes alone."""
  key = jax.random.fold_in(jax.random.key(seed), 2**31 - 2)  # apart from stage 1 and from every step
  latent = latents_of(frozen, arrays, batch, key)
  rngs = {"params": jax.random.fold_in(key, 0), **streams(jax.random.fold_in(key, 1))}
  variables = dict(stage.prior.init(rngs, latent, batch.get("label"), train=True, method="loss"))
  params = {"prior": variables.pop("params", {})}
  opt = {"prior": stage.optimizer.make(stage.steps).init(params["prior"])}
  return fresh(params, opt, "prior", variables)


def step(
  stage: Stage2, frozen: Frozen, seed: int, state: State, arrays: dict[str, Any], batch: Batch
) -> tuple[State, dict]:
  """One update of the prior. `arrays` are stage 1's: no gradient reaches them."""

  def gradients(variables: Any, part: Batch, key: Array) -> tuple[tuple[Any, dict], Any]:
    key, key_encode = jax.random.split(key)
    latent = latents_of(frozen, arrays, part, key_encode)

    def objective(prior: Any) -> tuple[Array, dict]:
      everything, rngs = {"params": prior, **variables}, streams(key)
      terms: Any = stage.prior.apply(everything, latent, part.get("label"), train=True, method="loss", rngs=rngs)
      value = sum(terms.values(), jnp.float32(0))
      return value, {"total": value, **terms}

    grads, logs = jax.grad(objective, has_aux=True)(state.params["prior"])
    return (grads, logs), variables

  key = jax.random.fold_in(jax.random.key(seed), state.step)
  (grads, logs), _ = accumulate(gradients, state.extra["variables"], batch, stage.microbatches, key)
  norm = optax.tree.norm(grads)
  params, opt = descend(stage.optimizer.make(stage.steps), grads, state.opt["prior"], state.params["prior"])
  ema = average(state.ema, params, state.extra["variables"], stage.ema, state.step)
  new = State(step=state.step + 1, params={"prior": params}, opt={"prior": opt}, ema=ema, extra=state.extra)
  finite = jnp.isfinite(logs["total"]) & jnp.isfinite(norm)
  return guard(finite, new, state), {**logs, "grad_prior": norm}

"""The step of stage 1: autoencoder and discriminator, two explicit gradients in one function."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from latents import objective
from latents.autoencoder import Autoencoder
from latents.errors import UserError
from latents.experiment import Stage1
from latents.frozen import streams
from latents.losses import Adversarial
from latents.train.accumulate import accumulate
from latents.train.state import State, average, descend, fresh, guard
from latents.types import Array, Batch, to_signal


def init(stage: Stage1, seed: int, batch: Batch) -> State:
  """State at step 0. The batch gives shapes alone; under jit its forward pass is never run."""
  key = jax.random.fold_in(jax.random.key(seed), 2**31 - 1)  # apart from the key of every step
  x = to_signal(batch["x"])
  made = first_variables(stage.model, key, x)
  params = {"ae": made.pop("params", {})}
  opt = {"ae": stage.optimizer.make(stage.steps).init(params["ae"])}
  gan = objective.adversarial(stage.losses)
  if gan:
    _, loss = gan
    params["disc"] = loss.discriminator.init(jax.random.fold_in(key, 2), x, train=True)["params"]
    opt["disc"] = loss.optimizer.make(stage.steps).init(params["disc"])
  return fresh(params, opt, "ae", made)


def first_variables(model: Autoencoder, key: Array, x: Array) -> dict[str, Any]:
  """The autoencoder's first collections of variables; x [B,*S,C] gives shapes alone."""
  rngs = {"params": jax.random.fold_in(key, 0), **streams(jax.random.fold_in(key, 1))}
  return dict(model.init(rngs, x, train=True))


def step(stage: Stage1, seed: int, state: State, frozen: dict[str, Any], batch: Batch) -> tuple[State, dict]:
  """One update of the autoencoder and, from its start on, of the discriminator.

  frozen: parameters of the losses' networks by the loss's name. Returns the new state and scalars
  by name. The discriminator sees a stop_gradient of x_hat; each side changes its own params only.
  """
  key = jax.random.fold_in(jax.random.key(seed), state.step)
  find = functools.partial(_gradients, stage, state, frozen)
  (grads, logs), variables = accumulate(find, state.extra["variables"], batch, stage.microbatches, key)
  params, opt = dict(state.params), dict(state.opt)
  norms = {name: optax.tree.norm(of) for name, of in grads.items()}
  tx = stage.optimizer.make(stage.steps)
  params["ae"], opt["ae"] = descend(tx, grads["ae"], opt["ae"], params["ae"])
  gan = objective.adversarial(stage.losses)
  if gan:
    tx = gan[1].optimizer.make(stage.steps)
    wait = lambda _, opt, disc: (disc, opt)  # noqa: E731
    params["disc"], opt["disc"] = jax.lax.cond(
      gan[1].disc_gate(state.step) > 0, functools.partial(descend, tx), wait, grads["disc"], opt["disc"], params["disc"]
    )
  ema = average(state.ema, params["ae"], variables, stage.ema, state.step)
  new = State(step=state.step + 1, params=params, opt=opt, ema=ema, extra={**state.extra, "variables": variables})
  finite = jnp.isfinite(logs["total"]) & jnp.isfinite(sum(norms.values()))
  return guard(finite, new, state), logs | {f"grad_{name}": norm for name, norm in norms.items()}


def _gradients(
  stage: Stage1, state: State, frozen: dict[str, Any], variables: dict, batch: Batch, key: Array
) -> tuple[tuple[dict, dict], dict]:
  """((gradients {"ae", "disc"}, scalars to log), the model's variables after this batch)."""
  x = to_signal(batch["x"])
  gan = objective.adversarial(stage.losses)

  def forward(ae: Any) -> tuple[tuple, tuple]:
    out: Any = stage.model.apply({"params": ae, **variables}, x, train=True, rngs=streams(key), mutable=list(variables))
    (latent, decoded), changed = out
    if decoded.x.shape != x.shape:  # a loss would broadcast them
      raise UserError(f"the decoder gives signals of {decoded.x.shape[1:]}, the data have {x.shape[1:]}")
    return ({**latent.terms, **decoded.terms}, decoded.x), (latent.logs, {**variables, **changed})

  (own, x_hat), pull, (logs, changed) = jax.vjp(forward, state.params["ae"], has_aux=True)

  def regression(own: dict, x_hat: Array) -> tuple[Array, dict]:
    terms = dict(own)
    for name, loss in objective.signal_losses(stage.losses).items():
      terms[name] = loss(x, x_hat, aux=frozen.get(name))
    return objective.total(terms, objective.without_adversarial(stage.losses), state.step), terms

  # Every network behind a loss is differentiated once, at x_hat; the gradients meet there and go back together.
  (value, terms), (push_own, push) = jax.value_and_grad(regression, argnums=(0, 1), has_aux=True)(own, x_hat)
  grads = {}
  if gan:
    pull_x = lambda ct: pull((jax.tree.map(jnp.zeros_like, own), ct))[0]  # noqa: E731
    terms[gan[0]], push_gan, extra = _fool(stage, gan[1], state, x_hat, push, pull_x)
    strength = gan[1].weight * gan[1].gate(state.step)
    value, push = value + strength * terms[gan[0]], push + strength * push_gan
    grads["disc"], more = _discriminate(gan[1], state, x, jax.lax.stop_gradient(x_hat))
    logs = logs | extra | more
  (grads["ae"],) = pull((push_own, push))
  return (grads, {**logs, "total": value, **terms}), changed


def _fool(
  stage: Stage1, loss: Adversarial, state: State, x_hat: Array, push: Array, pull: Callable
) -> tuple[Array, Array, dict]:
  """The generator's adversarial term [], its gradient at x_hat, both with the adaptive weight, and what to log.

  push: the gradient of the losses on the signal at x_hat. pull: cotangent of x_hat -> gradient of the
  autoencoder's params.
  """
  if loss.adaptive and not objective.signal_losses(stage.losses):
    raise UserError("an adaptive GAN weight needs a loss on the signal to compare with; set adaptive=False")
  gate = loss.gate(state.step)  # the caller multiplies by it; here it says whether to compute at all

  def adversary(x_hat: Array) -> Array:
    logits = loss.discriminator.apply({"params": state.params["disc"]}, x_hat, train=True)
    return loss.generator(logits)

  def at_last(push: Array) -> Array:
    # The gradient at the decoder's last kernel (Esser et al. 2020, eq. 7). All else that `pull` gives is
    # dead code to the compiler: no second forward pass, and a backward pass through one layer.
    return traverse_util.flatten_dict(pull(push))[("decoder", *stage.model.decoder.last)]

  def weighed(x_hat: Array, push: Array) -> tuple[Array, Array, Array]:
    value, fooling = jax.value_and_grad(adversary)(x_hat)
    ratio = loss.adaptive_weight(at_last(push), at_last(fooling)) if loss.adaptive else jnp.ones(())
    return ratio * value, ratio * fooling, ratio

  nothing = lambda x_hat, _: (jnp.zeros(()), jnp.zeros_like(x_hat), jnp.zeros(()))  # noqa: E731
  value, fooling, ratio = jax.lax.cond(gate > 0, weighed, nothing, x_hat, push)
  return value, fooling, {"gan_gate": gate, **({"gan_adaptive": ratio} if loss.adaptive else {})}


def _discriminate(loss: Adversarial, state: State, x: Array, x_hat: Array) -> tuple[Any, dict]:
  """The discriminator's gradient (zero before its start) and logs."""

  def objective_of(disc: Any) -> tuple[Array, dict]:
    real = loss.discriminator.apply({"params": disc}, x, train=True)
    fake = loss.discriminator.apply({"params": disc}, x_hat, train=True)
    value, logs = loss.discriminate(real, fake)
    return value, {"disc": value, **logs}

  find = jax.grad(objective_of, has_aux=True)
  shapes = jax.eval_shape(find, state.params["disc"])
  rest = lambda _: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)  # noqa: E731
  return jax.lax.cond(loss.disc_gate(state.step) > 0, find, rest, state.params["disc"])

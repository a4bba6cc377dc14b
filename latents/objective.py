"""The sum of named terms. A term without a weight, or a weight without a term, is an error."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from latents.errors import UserError, nearest
from latents.losses import Adversarial, Loss, Weight
from latents.types import Array, Terms


def check_names(terms: Terms, losses: Mapping[str, Loss]) -> None:
  """Each term needs a weight and each weight a term: UserError naming the first that has no partner."""
  for name in sorted(set(terms) - set(losses)):
    raise UserError(f"the model gives a term '{name}' that no loss weighs{nearest(name, losses)}")
  for name in sorted(set(losses) - set(terms)):
    raise UserError(f"the loss '{name}' weighs a term that the model does not give{nearest(name, terms)}")


def total(terms: Terms, losses: Mapping[str, Loss], step: Array) -> Array:
  """Sum of weight * term over all names [] float32; each with its loss's weight and gate (0 before `start`)."""
  check_names(terms, losses)
  parts = [
    losses[name].weight * losses[name].gate(step) * jnp.asarray(term, jnp.float32) for name, term in terms.items()
  ]
  return sum(parts, jnp.float32(0))


def signal_losses(losses: Mapping[str, Loss]) -> dict[str, Loss]:
  """The losses that compare x with x_hat: all but the weights of the model's own terms and the GAN."""
  return {n: loss for n, loss in losses.items() if not isinstance(loss, Weight | Adversarial)}


def without_adversarial(losses: Mapping[str, Loss]) -> dict[str, Loss]:
  """All but the GAN."""
  return {n: loss for n, loss in losses.items() if not isinstance(loss, Adversarial)}


def adversarial(losses: Mapping[str, Loss]) -> tuple[str, Adversarial] | None:
  """The (name, loss) of the adversarial term; at most one."""
  found = [(n, loss) for n, loss in losses.items() if isinstance(loss, Adversarial)]
  if len(found) > 1:
    raise UserError(f"one adversarial loss a stage, not {len(found)}: {', '.join(n for n, _ in found)}")
  return found[0] if found else None


def load_frozen(losses: Mapping[str, Loss]) -> dict[str, Array]:
  """name -> parameters of the frozen networks that the losses need, read now (fails at the start)."""
  loaded = {name: loss.load() for name, loss in losses.items()}
  return {name: params for name, params in loaded.items() if params is not None}


def abstract_frozen(losses: Mapping[str, Loss]) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of `load_frozen` without reading a file."""
  shapes = {name: loss.abstract() for name, loss in losses.items()}
  return {name: tree for name, tree in shapes.items() if tree is not None}

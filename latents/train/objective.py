"""The sum of named terms. A term without a weight, or a weight without a term, is an error."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from latents.errors import UserError, nearest
from latents.losses import Loss, Weight
from latents.losses.balancer import Rule
from latents.types import Array, Terms


def check_names(terms: Terms, losses: Mapping[str, Loss]) -> None:
  """Each term needs a weight and each weight a term: UserError naming the first that has no partner."""
  for name in sorted(set(terms) - set(losses)):
    raise UserError(f"the model gives a term '{name}' that no loss weighs{nearest(name, losses)}")
  for name in sorted(set(losses) - set(terms)):
    raise UserError(f"the loss '{name}' weighs a term that the model does not give{nearest(name, terms)}")


def total(terms: Terms, losses: Mapping[str, Loss], step: Array) -> Array:
  """Sum of weight * term over all names [] float32; each with its loss's weight and gate (0 before `start`), as far as
  the loss counts it (`Weight.counted`)."""
  parts = []
  for name, term in terms.items():
    loss, term = losses[name], jnp.asarray(term, jnp.float32)
    parts.append(loss.weight * loss.gate(step) * (loss.counted(term, step) if isinstance(loss, Weight) else term))
  return sum(parts, jnp.float32(0))


def measured(losses: Mapping[str, Loss]) -> dict[str, Loss]:
  """All losses but the weights of the model's own terms; those that adaptive weights compare with come first."""
  found = {n: loss for n, loss in losses.items() if not isinstance(loss, Weight)}
  return dict(sorted(found.items(), key=lambda item: not item[1].reference))


def reads(losses: Mapping[str, Loss]) -> frozenset[str]:
  """Paths of the parts of the model whose outputs some loss reads."""
  return frozenset(path for loss in losses.values() for path in loss.reads)


def group(name: str, loss: Loss) -> str:
  """The name of a loss's own network among the trained ones: its own; "disc" for the judge that is named "gan"."""
  return loss.group if name == "gan" and loss.group else name


def check_balance(losses: Mapping[str, Loss], balancer: Rule | None = None) -> None:
  """UserError where a weight is adaptive and nothing is there to compare with, or balanced besides, or two networks
  have one name."""
  found = measured(losses)
  if balancer:
    balancer.check(list(found))
  for name, loss in found.items():
    if name in ("ae", "prior", "balancer") or (name == "disc" and "gan" in found):
      raise UserError(f"a loss cannot be named '{name}': another part of the training has that name")
    if balancer and loss.at:
      raise UserError(f"the loss '{name}' has an adaptive weight beside a balancer; set adaptive=False")
  if any(loss.at for loss in found.values()) and not any(loss.reference for loss in found.values()):
    raise UserError("an adaptive weight needs a loss on the signal to compare with; set adaptive=False")


def load_frozen(losses: Mapping[str, Loss]) -> dict[str, Array]:
  """name -> parameters of the frozen networks that the losses need, read now (fails at the start)."""
  loaded = {name: loss.load() for name, loss in losses.items()}
  return {name: params for name, params in loaded.items() if params is not None}


def abstract_frozen(losses: Mapping[str, Loss]) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of `load_frozen` without reading a file."""
  shapes = {name: loss.abstract() for name, loss in losses.items()}
  return {name: tree for name, tree in shapes.items() if tree is not None}

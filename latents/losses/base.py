"""The contract of a loss: a named term that reads one training pass, with a network of its own if it needs one."""

import abc
import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from latents.nn.ramp import risen
from latents.optim import Optimizer
from latents.types import Array, Seen, Terms, later

Tree = Any


class Term(NamedTuple):
  """What a loss makes of a pass. value: [] float32, unweighted, mean over batch and elements. logs: scalars by name.
  state: the collections of the loss's own network that changed ({} = none)."""

  value: Array
  logs: Terms = {}  # noqa: RUF012
  state: Tree = {}  # noqa: RUF012


@dataclasses.dataclass(frozen=True)
class Loss(abc.ABC):
  """A term of the objective; frozen, so it can be declared, stored and hashed.

  weight: factor in the objective (the term itself is logged unweighted). start: first step that counts.
  A loss may own a network (a projection, a small prior, a discriminator): `init` makes its variables, which are
  trained beside the model and are not part of it. A loss may be balanced against the reconstruction losses.
  """

  weight: float = 1.0
  start: int = 0

  reference = False  # whether adaptive weights compare with it
  group: ClassVar[str] = ""  # the name of its network among the trained ones; "" = the loss's own name
  clamp = 1e4  # of the adaptive weight; not annotated: a ClassVar would give a subclass's field of that name its place

  def measure(self, seen: Seen, own: Tree, *, aux: Tree, key: Array) -> Term:
    """One pass -> its term. own: variables of the loss's network. aux: what `load` gave. key: for random numbers."""
    raise TypeError(f"{type(self).__name__} computes nothing: it weighs a term of the model")

  def init(self, key: Array, seen: Seen, *, aux: Tree) -> Tree:
    """Variables of the loss's own network ({"params": ..., other collections}); {} = it has none."""
    return {}

  @property
  def reads(self) -> tuple[str, ...]:
    """Paths of the model's parts whose outputs the loss wants in `seen.taps`."""
    return ()

  @property
  def at(self) -> str:
    """ "encoder" or "decoder": the weight is adaptive, measured at the last kernel there; "" = constant."""
    return ""

  @property
  def stage(self) -> Any:
    """A stage 1 that is trained first, whose variables the loss is given as `aux` in place of `load`'s; or None."""
    return None

  @property
  def waits(self) -> bool:
    """Whether the loss is not computed at all before its start (what it logs is 0 then)."""
    return self.start > 0 and bool(self.at)

  @property
  def optimizer_of(self) -> Optimizer | None:
    """Of the loss's own network; None = the stage's."""
    return None

  def updates(self, steps: int) -> int:
    """How often its own network is updated in a run of so many steps: what its optimiser's schedule is over."""
    return max(steps - max(self.start, 0), 0)

  def adaptive_weight(self, grad_rec: Tree, grad_own: Tree) -> Array:
    """Gradients of the reconstruction losses and of this one at a kernel -> [], a constant (VQGAN, eq. 7).

    |grad_rec| / (|grad_own| + 1e-4), clipped to [0, clamp].
    """
    ratio = optax.tree.norm(grad_rec) / (optax.tree.norm(grad_own) + 1e-4)
    return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, self.clamp))

  def load(self) -> Tree:
    """Weights of frozen networks, or None. Raises UserError at the start when they are missing."""
    return None

  def abstract(self) -> Tree:
    """The tree of `load` as ShapeDtypeStructs, or None; needs no file (planning at paper scale)."""
    return None

  def gate(self, step: Array) -> Array:
    """step [] int -> [] float32: 0 before `start`, 1 from then on (a constant where that is always so)."""
    return jnp.asarray(step >= self.start, jnp.float32) if self.start > 0 else jnp.ones(())


@dataclasses.dataclass(frozen=True)
class Reconstruction(Loss):
  """A pure comparison of x_hat with its target; together they are what adaptive weights are measured against."""

  reference = True

  @abc.abstractmethod
  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """x, x_hat [B,*S,C] in [-1,1] -> [] float32, mean over batch and elements. aux: what `load` gave."""

  def measure(self, seen: Seen, own: Tree, *, aux: Tree, key: Array) -> Term:
    """The comparison of the pass's x_hat with its target."""
    return Term(self(seen.target, seen.x_hat, aux=aux))


@dataclasses.dataclass(frozen=True)
class Rival(Loss):
  """A loss whose network has an objective of its own: a discriminator, or a prior that must not pull at the latent.

  The model feels `measure`, whose gradient does not reach the network; the network follows `learn`, on a pass
  without gradient.
  """

  @abc.abstractmethod
  def learn(self, seen: Seen, own: Tree, *, aux: Tree, key: Array) -> Term:
    """The network's own objective."""

  @property
  def waits(self) -> bool:
    """Always: a judge that has not begun is not asked."""
    return True

  def learn_gate(self, step: Array) -> Array:
    """step [] int -> [] float32: 0 while the network waits."""
    return self.gate(step)


@dataclasses.dataclass(frozen=True)
class Weight(Loss):
  """The weight of a term that a bottleneck or a decoder makes itself (kl, commit, flow).

  It is weight * f, f going from `first` to 1 within `over` steps from `start` on, on a line or in half a cosine (0: 1
  throughout). Gumbel's KL in DALL-E: first 0, 5000 steps, cosine; the entropies of BSQ: first 3, 2000 steps, linear.
  """

  first: float = later(1.0)
  over: int = later(0)
  shape: Literal["linear", "cosine"] = later("linear")

  def counted(self, term: Array, step: Array) -> Array:
    """What of a term [] enters the objective at a step [] int, before its weight: f times the term."""
    if self.over <= 0:
      return term
    risen_by = risen(step - self.start, self.over, self.shape)
    return (self.first + (1.0 - self.first) * risen_by) * term

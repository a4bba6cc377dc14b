"""What all priors have in common: the contract, dropping and doubling of conditions, and one random key per sample."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latents.diffusion.guidance import guide
from latents.errors import UserError
from latents.types import Array, Cond, Latent, Terms

LEVELS = (-4, -2, 0, 2, 4)  # log-SNR, from noise to detail: nearly all that latents of deviation 1 have to learn


class Guided(NamedTuple):
  """What a network is told where samples are guided, and how: both conditions as one batch of 2 B, or one of them.

  scale: 0 = without the condition, 1 = with it. cond: of B, or of 2 B where `double`: without it, then with it.
  """

  scale: float
  cond: Cond | None
  double: bool

  def twice(self, x: Array) -> Array:
    """[B,...] of the samples -> the batch that goes with `cond`."""
    return jnp.concatenate([x, x]) if self.double else x

  def halves(self, x: Array) -> tuple[Array | None, Array]:
    """What the network made of that batch -> [B,...] without the condition (None where it was not asked), and with."""
    return tuple(jnp.split(x, 2)) if self.double else (None, x)  # pyright: ignore[reportReturnType]

  def mixed(self, x: Array, scale: float | None = None) -> Array:
    """The same -> the guided [B,...]; scale: another one."""
    u, c = self.halves(x)
    return c if u is None else guide(u, c, self.scale if scale is None else scale)


class Prior(nn.Module):
  """A generative model of latents. Reads latent.z (normalised per channel) or, if `discrete`, latent.codes."""

  discrete = False
  guidance = 1.0  # scale of a sample's guidance where nobody asks for another; not annotated: a field would come first
  likelihood = False  # whether `nll` is there
  prompts = False  # whether `sample` takes a prompt
  together = 1  # codes that stand beside each other and are drawn at once, so that a prompt has all of them or none

  @property
  def classes(self) -> int:
    """How many labels it reads; 0 = none."""
    return self.backbone.classes  # pyright: ignore[reportAttributeAccessIssue]

  @property
  def vocabs(self) -> tuple[int, ...]:
    """How many codes a `discrete` prior knows, of one grid after the other; () = it reads z."""
    return self.backbone.vocabs if self.discrete else ()  # pyright: ignore[reportAttributeAccessIssue]

  @property
  def vocab_of_tokens(self) -> int | np.ndarray:
    """How many codes there are; of each token [N] where grids have their own."""
    return max(self.vocabs)

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition; () = unconditional."""
    return self.backbone.conditions  # pyright: ignore[reportAttributeAccessIssue]

  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """latent, cond (None: nothing is known) -> terms of weight 1, e.g. {"flow": []}; rng streams "prior", "dropout"."""
    raise TypeError(f"{type(self).__name__} has no loss")

  def levels(self, latent: Latent, cond: Cond | None) -> Terms:
    """latent, cond -> {"data_error_at_L": []}: mean squared error of the data as estimated at log-SNR L, of a prior
    that denoises (else {}); rng stream "prior"."""
    return {}

  def nll(self, latent: Latent, cond: Cond | None) -> Array:
    """latent, cond -> [B] nats of each example's whole latent; deterministic up to stream "prior"."""
    raise TypeError(f"{type(self).__name__} has no likelihood")

  def sample(
    self, cond: Cond | None, *, shape: tuple[int, ...], guidance: float | None = None, count: int = 1
  ) -> Latent:
    """cond of B examples, or None for `count` of which nothing is known -> Latent of B samples; rng stream "prior".

    shape: of one sample (z's or codes' without the batch). guidance: None = the prior's own; 1 = conditional. Where
    there are `prompts`, also prompt: int32 codes [B,*shape] that are given, -1 where they are to be drawn.
    """
    raise TypeError(f"{type(self).__name__} has no sample")

  def guided(self, cond: Cond | None, guidance: float | None, batch: int) -> Guided:
    """cond and guidance as of `sample` -> what the network is told. UserError for guidance without conditions."""
    scale = self.guidance if guidance is None else guidance
    check_guidance(scale, self.conditions)
    cond = cond if self.conditions else None
    if scale not in (0.0, 1.0):
      return Guided(scale, doubled(cond, batch), True)
    return Guided(scale, cond if scale else without(cond, batch), False)


def drop(key: Array, cond: Cond, rate: float) -> Cond:
  """The same condition, each row dropped with probability `rate`; those that are dropped already stay so."""
  return {**cond, "drop": cond.get("drop", False) | jax.random.bernoulli(key, rate, (rows(cond),))}


def rows(cond: Cond) -> int:
  """The number of examples that a condition is of."""
  return next(iter(cond.values())).shape[0]


def without(cond: Cond | None, batch: int) -> Cond | None:
  """The condition of examples of which nothing is known, with the entries of `cond`."""
  return None if cond is None else {**cond, "drop": jnp.ones(batch, bool)}


def doubled(cond: Cond | None, batch: int) -> Cond | None:
  """[B] -> [2 B]: the examples without their condition, then with it."""
  if cond is None:
    return None
  halves = without(cond, batch), {"drop": jnp.zeros(batch, bool), **cond}
  return {name: jnp.concatenate([half[name] for half in halves]) for name in halves[0]}  # pyright: ignore


def check_guidance(guidance: float, conditions: tuple[str, ...]) -> None:
  """Raises UserError where guidance is asked of a prior that reads no condition."""
  if guidance != 1.0 and not conditions:
    raise UserError(f"guidance {guidance} needs a backbone with classes > 0; this one is unconditional")

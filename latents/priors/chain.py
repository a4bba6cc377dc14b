"""Priors of several grids of codes, one after the other (VQ-VAE-2: Razavi et al. 2019, arXiv:1906.00446, alg. 2)."""

import math

import jax.numpy as jnp
import numpy as np

from latents.errors import UserError
from latents.priors.autoregressive import AutoregressivePrior
from latents.priors.base import Prior, check_guidance
from latents.types import Array, Cond, Latent, Terms, aside


class ChainPrior(Prior):
  """Reads latent.codes [B,N] of several grids (`Hierarchy`'s): p(top) p(next | top) ...

  priors: one for each grid, coarse to fine; each reads what it is told of the condition and, but for the first, the
  codes of all grids before it as "above" [B,n]. grids: their shapes. The networks share nothing, so that they are those
  that the paper trains apart, but for the norm at which an optimiser clips. guidance: of all of them, in place of their
  own. Other options of sampling, and the share of labels that is dropped, are each prior's own.
  """

  priors: tuple[AutoregressivePrior, ...]
  grids: tuple[tuple[int, ...], ...]
  guidance: float = aside(1.0)

  discrete = True
  likelihood = True
  prompts = True

  @property
  def vocabs(self) -> tuple[int, ...]:
    """The number of codes of each grid."""
    return tuple(vocab for prior in self.priors for vocab in prior.vocabs)

  @property
  def vocab_of_tokens(self) -> np.ndarray:
    """See `Prior.vocab_of_tokens`."""
    return np.repeat(self.vocabs, [math.prod(grid) for grid in self.grids])

  @property
  def classes(self) -> int:
    """How many labels they read; 0 = none."""
    return max((prior.classes for prior in self.priors), default=0)

  @property
  def conditions(self) -> tuple[str, ...]:
    """What is read of a condition from outside: "above" is told here."""
    return tuple(dict.fromkeys(name for prior in self.priors for name in prior.conditions if name != "above"))

  @property
  def label_drop(self) -> float:
    """The least of theirs: with 0 none may be drawn without a label."""
    return min((prior.label_drop for prior in self.priors), default=0.0)

  @property
  def temperature(self) -> tuple[float, ...]:
    """Of each prior."""
    return tuple(prior.temperature for prior in self.priors)

  @property
  def top_k(self) -> tuple[int, ...]:
    """Of each prior."""
    return tuple(prior.top_k for prior in self.priors)

  @property
  def top_p(self) -> tuple[float, ...]:
    """Of each prior."""
    return tuple(prior.top_p for prior in self.priors)

  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """{"nll_HxW": nats a token of the grid H x W, mean over batch and tokens}: as many terms as grids, of weight 1."""
    found = {}
    for prior, grid, part, told in self._each(latent, cond):
      found[f"nll_{'x'.join(map(str, grid))}"] = prior.loss(part, told, train=train)["nll"]
    return found

  def nll(self, latent: Latent, cond: Cond | None) -> Array:
    """See `Prior.nll`: the sum over the grids."""
    return jnp.stack([prior.nll(part, told) for prior, _, part, told in self._each(latent, cond)]).sum(0)

  def sample(
    self, cond: Cond | None, *, shape: tuple[int, ...], guidance: float | None = None, count: int = 1,
    prompt: Array | None = None,
  ) -> Latent:  # fmt: skip
    """See `Prior.sample`; codes [B,N]."""
    self._check(shape)
    scale = self.guidance if guidance is None else guidance
    check_guidance(scale, self.conditions)
    batch = count if cond is None else next(iter(cond.values())).shape[0]
    above = jnp.zeros((batch, 0), jnp.int32)
    for prior, grid in zip(self.priors, self.grids, strict=True):
      own = scale if "label" in prior.conditions else 1.0
      part = None if prompt is None else prompt[:, above.shape[1] :][:, : math.prod(grid)]
      drawn = prior.sample(self._told(prior, cond, above), shape=grid, guidance=own, count=batch, prompt=part)
      above = jnp.concatenate([above, drawn.codes.reshape(batch, -1)], 1)
    return Latent(codes=above)

  def _check(self, shape: tuple[int, ...]) -> None:
    sizes = [math.prod(grid) for grid in self.grids]
    if len(self.priors) != len(self.grids) or len(set(self.grids)) < len(self.grids):
      raise UserError(f"a chain has one prior for each of several grids, not {len(self.priors)} for {self.grids}")
    if shape != (sum(sizes),):
      raise UserError(f"grids of {self.grids} are {sum(sizes)} codes in one sequence, but codes are {shape} a sample")

  def _each(self, latent: Latent, cond: Cond | None) -> list[tuple[AutoregressivePrior, tuple[int, ...], Latent, Cond]]:
    """(prior, its grid, its part of the codes, what it is told) of each."""
    codes = latent.codes
    if codes is None:
      raise UserError("a chain of priors needs codes, but this bottleneck is continuous")
    if latent.mask is not None:
      raise UserError("a chain of priors models all codes of a latent: this one says that some are left out")
    self._check(codes.shape[1:])
    ends = np.cumsum([math.prod(grid) for grid in self.grids])
    found = []
    for prior, grid, end in zip(self.priors, self.grids, ends, strict=True):
      start = end - math.prod(grid)
      part = Latent(codes=codes[:, start:end].reshape(-1, *grid))
      found.append((prior, grid, part, self._told(prior, cond, codes[:, :start])))
    return found

  def _told(self, prior: AutoregressivePrior, cond: Cond | None, above: Array) -> Cond | None:
    """The condition of one prior: what is known, and the codes above it where there are any."""
    if not above.shape[1]:
      return cond
    if cond is None and prior.classes:  # "above" is known where nothing else is
      nothing = jnp.zeros(above.shape[0], jnp.int32)
      cond = {"label": nothing, "drop": jnp.ones_like(nothing, bool)}
    return {**(cond or {}), "above": above}

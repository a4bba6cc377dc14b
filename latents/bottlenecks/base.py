"""The defaults of a bottleneck, and what the discrete ones share."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.core import Tracer

from latents.errors import UserError
from latents.nn.conv import uniform_fan_in
from latents.nn.linear import Dense
from latents.types import Array, Latent, Terms

COUNTED = 2**18  # codes of the largest table of counts in a training step


class Bottleneck(nn.Module):
  """Defaults for a continuous latent whose store is z itself; see the room's contract in `__init__.py`."""

  @property
  def vocab(self) -> int | tuple[int, ...] | None:
    """The number of codes V of one token (and group), one a grid where the layout has several; None = continuous."""
    return None

  def layout(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """*s of z -> the grids of its codes, coarse to fine. One grid: codes [B,*s] or [B,*s,G]; else they are [B,N], N
    the sum of the grids' sizes. Needs no params."""
    return (tuple(shape),)

  def settle(self, latent: Latent) -> Latent:
    """A latent that need not come from an encoder -> what the decoder reads: codes are embedded where z is None."""
    return latent if latent.z is not None else latent.replace(z=self.embed(latent.codes))

  def __call__(self, h: Array, *, train: bool) -> Latent:
    """[B,*s,E] -> Latent."""
    return self.recall(self.store(h), train=train)

  def embed(self, codes: Array) -> Array:
    """codes [B,*s], [B,*s,G] or [B,N] (see `layout`) int32 -> z [B,*s,D]; an error for continuous latents."""
    raise UserError(f"{type(self).__name__} is continuous: it has no codes to embed ({codes.shape})")

  def store(self, h: Array) -> Array:
    """[B,*s,E] -> what a latent cache keeps of h."""
    return h.astype(jnp.float32)

  def recall(self, stored: Array, *, train: bool) -> Latent:
    """What `store` gave -> Latent without terms; z equals that of __call__ where train is False."""
    return Latent(z=stored.astype(jnp.float32))

  def posterior(self, stored: Array) -> tuple[Array, Array] | None:
    """What `store` gave -> (mean, std) of a Gaussian posterior, or None for other latents; needs no params."""
    return None

  def variants(self, latent: Latent) -> dict[str, Latent]:
    """Named ways to decode this latent in an evaluation; "" is the plain one."""
    return {"": latent}


class Discrete(Bottleneck):
  """Defaults for latents that are stored as their codes."""

  def store(self, h: Array) -> Array:
    """[B,*s,E] -> codes [B,*s] or [B,*s,G] int32."""
    return self(h, train=False).codes

  def recall(self, stored: Array, *, train: bool) -> Latent:
    """codes -> Latent(z = embed(codes), codes)."""
    codes = stored.astype(jnp.int32)
    return Latent(z=self.embed(codes), codes=codes)


@jax.custom_jvp
def straight_through(h: Array, q: Array) -> Array:
  """h, q [...] -> q, exactly, with the derivative of h (Bengio et al. 2013, arXiv:1308.3432); q gets none.

  `h + stop_gradient(q - h)` has the same derivative, but its value is q only up to rounding.
  """
  return q


@straight_through.defjvp
def _straight_through_jvp(primals, tangents):
  return primals[1], tangents[0]


def pointwise(dim: int, bias_init: Callable = nn.initializers.zeros) -> nn.Dense:
  """The 1x1 convolution E -> dim in front of a quantiser, in float32, with PyTorch's initial weights."""
  return Dense(dim, kernel_init=uniform_fan_in, bias_init=bias_init)


def enter(module: Any, h: Array, width: int) -> Array:
  """[B,*s,E] -> [B,*s,width] float32 by the `projection` of a module with a field `project`; UserError where that is
  False and E is not the width."""
  h = h.astype(jnp.float32)
  if module.project:
    return module.projection(h)
  if h.shape[-1] != width:
    raise UserError(f"{type(module).__name__} with project=False takes {width}, got {h.shape[-1]} channels")
  return h


def check_field(module: Any, name: str, least: float = 0, below: float = math.inf) -> None:
  """UserError where a number that a module is declared with is not in [least, below)."""
  value = getattr(module, name)
  if not least <= value < below:
    told = f"at least {least}" if below == math.inf else f"in [{least}, {below})"
    raise UserError(f"{name} of {type(module).__name__} is {told}, not {value}")


def check_codes(codes: Array, vocab: int, least: int = 0) -> Array:
  """codes [...] int -> the same, or a UserError where one is not in [least, vocab). Within jit they are not known, and
  whoever lets codes in from outside has looked (use/given.py)."""
  if not isinstance(codes, Tracer) and codes.size:
    low, high = int(codes.min()), int(codes.max())
    if low < least or high >= vocab:
      raise UserError(f"codes are {least} to {vocab - 1}, got {low if low < least else high}")
  return codes


def count_codes(codes: Array, vocab: int, weight: Array | None = None) -> Array:
  """codes [...] int32 (weight [...] each, or 1) -> [V] float32: how often each occurs in the (global) batch."""
  ones = 1.0 if weight is None else weight.reshape(-1)
  return jnp.zeros(vocab, jnp.float32).at[codes.reshape(-1)].add(ones)


def count_few(codes: Array) -> Array:
  """codes [n] -> [n] float32: how often each code >= 0 that occurs does, and zeros; no table of all codes is made."""
  ordered = jnp.sort(codes.reshape(-1))
  first = jnp.concatenate([jnp.zeros(1, jnp.int32), (ordered[1:] != ordered[:-1]).astype(jnp.int32)])
  return count_codes(jnp.cumsum(first), ordered.size, (ordered >= 0).astype(jnp.float32))


def code_logs(codes: Array, vocab: int, groups: int | None = None) -> Terms:
  """codes [B,*s] (or [B,*s,G] with `groups`) -> {"usage", "perplexity"} of this batch; means over the groups.

  usage: distinct codes / V. perplexity: exp of the entropy of the batch's histogram, in [1, V]. Both are bounded
  by the number of tokens n: a uniform code uses an expected 1 - (1 - 1/V)^n of the codebook. -1, a stage left out, is
  no code and no token; of a stage that all leave out they are 0 and 1.
  """
  split = [codes] if groups is None else [codes[..., g] for g in range(groups)]
  kept = [(c >= 0).astype(jnp.float32) for c in split]
  count = count_codes if vocab <= COUNTED else lambda c, *_: count_few(c)
  p = jnp.stack([count(c, vocab, k) / jnp.maximum(k.sum(), 1.0) for c, k in zip(split, kept, strict=True)])
  perplexity = jnp.exp(jax.scipy.special.entr(p).sum(-1))
  return {"usage": (p > 0).sum() / (len(split) * float(vocab)), "perplexity": perplexity.mean()}

"""Autoregression over elements that are more than one token: pixels of three values, real-valued latents.

PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517) and GIVT (Tschannen et al. 2023, arXiv:2312.02116) differ in
what stands at a position (`heads`) and in the network that looks back.
"""

from typing import Any

import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.nn.streams import sample_keys
from latents.priors.base import drop, rows
from latents.priors.elements import OfElements
from latents.priors.heads import Head
from latents.types import Array, Cond, Latent, Terms, aside


class AutoregressiveVectors(OfElements):
  """Positions *s in raster order, one element of `head` each.

  backbone: `__call__(x [B,L,dim], cond, *, train) -> [B,L,out]`, row i of elements before i; `cache`, `step` as of a
  backbone on tokens; its fields `length` (L) and `out` (the head's) say what it models.
  label_drop: share of conditions dropped in training. temperature, guidance: what the head makes of them; guidance runs
  both conditions as one batch of 2 B.
  """

  backbone: Any
  head: Head
  label_drop: float = 0.1
  temperature: float = aside(1.0)
  guidance: float = aside(1.0)

  @property
  def together(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
    """The codes of an element."""
    return self.head.dim

  @property
  def prompts(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
    """Those of codes."""
    return self.head.discrete

  @property
  def likelihood(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
    """Whether the head's loss is one."""
    return self.head.likelihood

  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """{"nll": nats an element, mean over batch and positions}."""
    if train and cond is not None and self.conditions:
      cond = drop(self.make_rng("prior"), cond, self.label_drop)
    return {"nll": self._elements(latent, cond, train).mean()}

  def nll(self, latent: Latent, cond: Cond | None) -> Array:
    """See `Prior.nll`."""
    return self._elements(latent, cond, False).sum(1)

  def _elements(self, latent: Latent, cond: Cond | None, train: bool) -> Array:
    """[B,L] of each element."""
    if latent.mask is not None:
      raise UserError("this prior models all elements of a latent: this one says that some are left out")
    x = self.head.read(latent)
    self._check(x.shape[1:-1])
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    return self.head.nll(self.backbone(x, cond, train=train), x)

  def sample(
    self, cond: Cond | None, *, shape: tuple[int, ...], guidance: float | None = None, count: int = 1,
    prompt: Array | None = None,
  ) -> Latent:  # fmt: skip
    """See `Prior.sample`."""
    grid = self._grid(shape)
    batch = count if cond is None else rows(cond)
    told = self.guided(cond, guidance, batch)
    keys = sample_keys(self.make_rng("prior"), batch)
    backbone, variables = self.backbone.unbind()
    head, learned = self.head.unbind()
    known = kept = None
    if prompt is not None:
      sizes = batch, self.backbone.length, self.head.dim
      known = self.head.read(Latent(codes=jnp.maximum(prompt, 0))).reshape(sizes)
      kept = jnp.all(prompt.reshape(sizes) >= 0, -1, keepdims=True)

    def step(carry: tuple, index: Array) -> tuple:
      x, cache = carry
      given, cache = backbone.apply(variables, told.twice(x), told.cond, index, cache, method="step")
      other, given = told.halves(given)
      now = jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
      x: Any = head.apply(learned, now, given, other, told.scale, self.temperature, method="draw")
      if known is not None and kept is not None:
        x = jnp.where(kept[:, index], known[:, index], x)
      return (x, cache), x

    cache = backbone.apply(variables, 2 * batch if told.double else batch, told.cond, method="cache")
    start = jnp.zeros((batch, self.head.dim)), cache
    drawn = jax.lax.scan(step, start, jnp.arange(self.backbone.length))[1]
    return self.head.write(jnp.swapaxes(drawn, 0, 1).reshape(batch, *grid, self.head.dim))

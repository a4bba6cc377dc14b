"""Autoregressive prior on codes: next-token cross-entropy, sampling with a key-value cache.

Esser et al. 2021, arXiv:2012.09841 (VQGAN's second stage); guidance as in LlamaGen, arXiv:2406.06525.
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from latents.errors import UserError
from latents.nn.streams import sample_keys
from latents.priors.base import Prior, drop, rows
from latents.priors.heads.base import COLD
from latents.types import Array, Cond, Latent, Terms, aside, later


def keep_top_k(logits: Array, k: int) -> Array:
  """[...,V] logits -> float32: all but the k largest at -inf, of equal ones the first; 0 = all."""
  logits = logits.astype(jnp.float32)
  if not 0 < k < logits.shape[-1]:
    return logits
  return _keep(logits, jax.lax.top_k(logits, k)[0], jnp.full((*logits.shape[:-1], 1), k))


def keep_top_p(logits: Array, p: float) -> Array:
  """[...,V] logits -> float32: only the smallest set of tokens whose probabilities reach p (Holtzman et al. 2020), of
  equal ones the first, and always the likeliest."""
  logits = logits.astype(jnp.float32)
  if p >= 1.0:
    return logits
  ordered = -jnp.sort(-logits, -1)
  chances = jax.nn.softmax(ordered, -1)
  needed = jnp.cumsum(chances, -1) - chances < p  # the mass BEFORE a token is short of p
  return _keep(logits, ordered, jnp.maximum(needed.sum(-1, keepdims=True), 1))


def _keep(logits: Array, ordered: Array, count: Array) -> Array:
  """The `count` [...,1] largest logits, of equal ones the first; all others at -inf. ordered: from the largest on."""
  least = jnp.take_along_axis(ordered, count - 1, -1)
  above, equal = logits > least, logits == least
  room = count - above.sum(-1, keepdims=True)
  return jnp.where(above | (equal & (jnp.cumsum(equal, -1) <= room)), logits, -jnp.inf)


def choose(keys: Array, logits: Array, temperature: float, top_k: int, top_p: float) -> Array:
  """keys [B], logits [B,...,V] -> [B,...] int32: temperature (0 = the likeliest), then top_k, then top_p."""
  if temperature < COLD:
    return jnp.argmax(logits, -1).astype(jnp.int32)
  logits = keep_top_p(keep_top_k(logits / temperature, top_k), top_p)
  return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


class AutoregressivePrior(Prior):
  """Reads latent.codes [B,*s] or [B,*s,G], flattened in raster order with the levels G innermost, or [B,N] of several
  grids (the backbone's `layout`). mean over tokens: every token counts the same, whatever its grid.

  backbone: a network on tokens (`latents.backbones`). label_drop: share of conditions that are dropped in training.
  corrupt: share of the tokens that the network reads in training that are others, drawn evenly (1 - taming's pkeep);
  what it is to foretell stays. order: "random": each example in an order of its own, in training and in sampling (the
  backbone is `told` places); the likelihood is that of raster order.
  Sampling: guidance u + s (c - u) on logits, then temperature (0 = the likeliest), then top_k (0 = all), then top_p
  (1 = all); all in float32. Of a prompt, what is given stands in the place of draws: in raster order those after it are
  told of it; in a random one it comes first, and all are.
  """

  backbone: Any
  label_drop: float = 0.1
  temperature: float = aside(1.0)
  top_k: int = aside(0)
  top_p: float = aside(1.0)
  guidance: float = aside(1.0)
  corrupt: float = later(0.0)
  order: Literal["raster", "random"] = later("raster")

  discrete = True
  likelihood = True
  prompts = True

  def _check(self, shape: tuple[int, ...], ragged: bool = False) -> None:
    groups = self.backbone.groups
    for name, least, most in (("corrupt", 0, 1), ("temperature", 0, math.inf), ("top_k", 0, math.inf)):
      if not least <= getattr(self, name) <= most:
        raise UserError(
          f"{name} is {getattr(self, name)}, but it must be at least {least}" + ", at most 1" * (most == 1)
        )
    if not 0 < self.top_p <= 1:
      raise UserError(f"top_p is {self.top_p}, but it must be in (0, 1]")
    if self.order == "random" and ragged:
      raise UserError("a random order is of all tokens of a latent: this one says that some are left out")
    if self.order == "random" and not getattr(self.backbone, "told", False):
      raise UserError("a random order needs a backbone that is `told` the places of its tokens")
    if groups > 1 and shape[-1] != groups:
      raise UserError(f"the transformer has {groups} levels of codes, but the codes are {shape} a sample")
    if (grid := getattr(self.backbone, "grid", ())) and shape not in (grid, (*grid, groups), (math.prod(grid),)):
      raise UserError(f"the transformer's tokens are a grid of {grid}, but codes are {shape} a sample")
    if math.prod(shape) != self.backbone.length:
      raise UserError(
        f"the transformer models {self.backbone.length} tokens, but codes of {shape} are {math.prod(shape)}"
      )

  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """{"nll": nats a token, mean over batch and tokens (mask: over kept positions)}."""
    if train and cond is not None and self.conditions:
      cond = drop(self.make_rng("prior"), cond, self.label_drop)
    nll, mask = self._tokens(latent, cond, train)
    return {"nll": nll.mean() if mask is None else jnp.sum(nll * mask) / jnp.maximum(mask.sum(), 1)}

  def nll(self, latent: Latent, cond: Cond | None) -> Array:
    """See `Prior.nll`: the sum over an example's (kept) tokens."""
    nll, mask = self._tokens(latent, cond, False)
    return (nll if mask is None else nll * mask).sum(1)

  def _tokens(self, latent: Latent, cond: Cond | None, train: bool) -> tuple[Array, Array | None]:
    """[B,N] nats of each token, and which of them are kept (None: all)."""
    codes = latent.codes
    if codes is None:
      raise UserError("an autoregressive prior needs codes, but this bottleneck is continuous")
    self._check(codes.shape[1:], latent.mask is not None)
    tokens = codes.reshape(codes.shape[0], -1)
    told = {"places": latent.side.get("places")} if self.backbone.places else {}
    if getattr(self.backbone, "told", False):
      places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
      if train and self.order == "random":
        places = jax.random.permutation(self.make_rng("prior"), places, 1, independent=True)
        tokens = jnp.take_along_axis(tokens, places, 1)
      told = {"places": places}
    read = tokens
    if train and self.corrupt:
      other, which = jax.random.split(self.make_rng("prior"))
      drawn = jax.random.randint(other, tokens.shape, 0, self.vocab_of_tokens)
      read = jnp.where(jax.random.bernoulli(which, self.corrupt, tokens.shape), drawn, tokens)
    chances = jax.nn.log_softmax(self.backbone(read, cond, train=train, **told))
    nll = -jnp.take_along_axis(chances, tokens[..., None], -1)[..., 0]
    if latent.mask is None:
      return nll, None
    return nll, jnp.repeat(latent.mask.reshape(codes.shape[0], -1), self.backbone.groups, 1)

  @property
  def vocab_of_tokens(self) -> int | np.ndarray:
    """See `Prior.vocab_of_tokens`."""
    if len(vocabs := self.backbone.vocabs) == 1:
      return vocabs[0]
    return np.repeat(vocabs, [math.prod(grid) for grid in self.backbone.layout])

  def sample(
    self, cond: Cond | None, *, shape: tuple[int, ...], guidance: float | None = None, count: int = 1,
    walk: Any = None, prompt: Array | None = None,
  ) -> Latent:  # fmt: skip
    """See `Prior.sample`; codes [B,*shape]. Guidance runs both conditions as one batch of 2 B with one cache. walk: how
    tokens find their places, for a backbone that reads them: start(B) -> state, step(state, token [B]) -> (state, the
    next one's place [B])."""
    self._check(shape)
    batch = count if cond is None else rows(cond)
    told = self.guided(cond, guidance, batch)
    keys = sample_keys(self.make_rng("prior"), batch)
    prompt = None if prompt is None else prompt.reshape(batch, -1)
    places = self._places(keys, prompt)
    if prompt is not None and places is not None:
      prompt = jnp.take_along_axis(prompt, places, 1)
    backbone, variables = self.backbone.unbind()

    def draw(logits: Array, index: Array) -> Array:
      now = jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
      return choose(now, logits, self.temperature, self.top_k, self.top_p)

    def step(carry: tuple, index: Array) -> tuple:
      token, cache, state, place = carry
      if places is not None:
        place = jnp.stack([places[:, jnp.maximum(index - 1, 0)], places[:, index]], -1)
      given, where = told.twice(token), told.twice(place)
      logits, cache = backbone.apply(variables, given, told.cond, index, cache, where, method="step")
      token = draw(told.mixed(logits.astype(jnp.float32)), index)
      if prompt is not None:
        token = jnp.where(prompt[:, index] < 0, token, prompt[:, index])
      if walk is not None:
        state, place = walk.step(state, token)
      return (token, cache, state, place), token

    zeros = jnp.zeros(batch, jnp.int32)
    state = None if walk is None else walk.start(batch)
    place = zeros if places is None else places[:, :2]
    cache = backbone.apply(variables, 2 * batch if told.double else batch, told.cond, method="cache")
    start = zeros, cache, state, place
    tokens = jax.lax.scan(step, start, jnp.arange(self.backbone.length))[1].T
    if places is not None:
      tokens = jnp.zeros_like(tokens).at[jnp.arange(batch)[:, None], places].set(tokens)
    return Latent(codes=tokens.reshape(batch, *shape))

  def _places(self, keys: Array, prompt: Array | None) -> Array | None:
    """[B,L]: the order in which each sample's tokens are drawn, where the backbone is told it; a random one begins with
    those that are given."""
    if not getattr(self.backbone, "told", False):
      return None
    places = jnp.broadcast_to(jnp.arange(self.backbone.length), (len(keys), self.backbone.length))
    if self.order == "raster":
      return places
    places = jax.vmap(lambda key, row: jax.random.permutation(jax.random.fold_in(key, self.backbone.length), row))(
      keys, places
    )
    if prompt is None:
      return places
    last = jnp.take_along_axis(prompt, places, 1) < 0
    return jnp.take_along_axis(places, jnp.argsort(last, 1, stable=True), 1)

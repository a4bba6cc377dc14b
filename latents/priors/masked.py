"""Codes that are filled in a few steps, many at a time. MaskGIT: Chang et al. 2022, arXiv:2202.04200."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from latents.backbones.masked_transformer import MaskedTransformer
from latents.errors import UserError
from latents.nn.streams import sample_keys
from latents.priors.autoregressive import choose
from latents.priors.base import Prior, drop, rows
from latents.types import Array, Cond, Latent, Terms, aside


def left_masked(tokens: int, steps: int) -> np.ndarray:
  """[steps] int: how many tokens are masked after step t = 1..steps: floor(tokens cos(pi t / 2 steps)), but one less
  than before at least and never none, until the last step leaves none (section 3.2, the cosine schedule).

  UserError unless 1 <= steps <= tokens.
  """
  if not 1 <= steps <= tokens:
    raise UserError(f"{tokens} tokens are filled in 1 to {tokens} steps, not {steps}")
  left = [tokens]
  for t in range(1, steps):
    left.append(max(min(math.floor(tokens * math.cos(math.pi * t / (2 * steps))), left[-1] - 1), 1))
  return np.array([*left[1:], 0])


def masked_count(share: Array, tokens: int) -> Array:
  """share in [0,1) -> ceil(cos(pi share / 2) tokens), int32: the number that is masked in training (section 3.1)."""
  return jnp.maximum(jnp.ceil(jnp.cos(jnp.pi / 2 * share) * tokens), 1).astype(jnp.int32)


def ranks(x: Array) -> Array:
  """[B,N] -> [B,N] int32: the place of each element in ascending order, of equal ones the first before."""
  return jnp.argsort(jnp.argsort(x, -1), -1).astype(jnp.int32)


def remask(tokens: Array, drawn: Array, confidence: Array, left: Array, mask: int) -> tuple[Array, Array]:
  """tokens [B,N,G] of which some are `mask`, drawn [B,N,G] for those, confidence [B,N] in what was drawn -> (the
  tokens of the next step, `left` [] or [B,1] of them masked, those of the least confidence; all as drawn). Known tokens
  stay."""
  unknown = tokens[..., 0] == mask
  filled = jnp.where(unknown[..., None], drawn, tokens)
  again = ranks(jnp.where(unknown, confidence, jnp.inf)) < left
  return jnp.where(again[..., None], mask, filled), filled


class MaskedPrior(Prior):
  """Reads latent.codes [B,*s], or [B,*s,G] with G groups (the backbone's), as N places in raster order.

  Training: of each example ceil(cos(pi r / 2) N) places are masked, all codes of a place together, r ~ U(0,1), and
  {"masked": the cross-entropy of their codes against (1 - smoothing) of the true one and smoothing / V of each, mean
  over masked codes}. It is no likelihood: what is masked is told apart place by place.
  Sampling in `steps` from all masked: codes of all masked places are drawn at once, and those stay in which the
  confidence is largest: log p of the drawn codes of a place (summed over groups) + choice (1 - t / steps) Gumbel noise;
  `left_masked` of them are masked again. The order then depends on what was drawn, so that the samples are not those of
  the conditionals even if these are exact and steps = N, unless `choice` is so large that the order is random; choice 0
  takes the surest, and loses variety.
  label_drop: share of labels that become null in training. temperature, top_k, top_p, guidance: of each draw, see
  `AutoregressivePrior`; guidance is the same at all steps.
  """

  backbone: MaskedTransformer
  label_drop: float = 0.1
  smoothing: float = 0.1
  steps: int = aside(8)
  choice: float = aside(4.5)
  temperature: float = aside(1.0)
  top_k: int = aside(0)
  top_p: float = aside(1.0)
  guidance: float = aside(1.0)

  discrete = True
  prompts = True

  @property
  def together(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
    """The codes of a place."""
    return self.backbone.groups

  def _check(self, shape: tuple[int, ...]) -> int:
    """Shape of a sample's codes -> N."""
    groups, length = self.backbone.groups, self.backbone.length
    if groups > 1 and shape[-1] != groups:
      raise UserError(f"the transformer has {groups} codes a place, but the codes are {shape} a sample")
    if math.prod(shape) != length:
      raise UserError(f"the transformer models {length} tokens, but codes of {shape} are {math.prod(shape)}")
    return length // groups

  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """See the class; random places."""
    codes = latent.codes
    if codes is None:
      raise UserError("a masked prior needs codes, but this bottleneck is continuous")
    if latent.mask is not None:
      raise UserError("a masked prior models all tokens of a latent: this one says that some are left out")
    places = self._check(codes.shape[1:])
    key = self.make_rng("prior")
    if train and cond is not None and self.conditions:
      cond = drop(self.make_rng("prior"), cond, self.label_drop)
    batch, vocab = len(codes), self.backbone.vocab
    count = masked_count(jax.random.uniform(key, (batch,)), places)
    hidden = ranks(jax.random.uniform(jax.random.fold_in(key, 1), (batch, places))) < count[:, None]
    hidden = jnp.repeat(hidden, self.backbone.groups, 1)
    tokens = codes.reshape(batch, -1)
    log_p = jax.nn.log_softmax(self.backbone(jnp.where(hidden, vocab, tokens), cond, train=train))
    true = jnp.take_along_axis(log_p, tokens[..., None], -1)[..., 0]
    each = -(1 - self.smoothing) * true - self.smoothing * log_p.mean(-1)
    return {"masked": jnp.sum(each * hidden) / hidden.sum()}

  def sample(
    self, cond: Cond | None, *, shape: tuple[int, ...], guidance: float | None = None, count: int = 1,
    prompt: Array | None = None,
  ) -> Latent:  # fmt: skip
    """See `Prior.sample`; codes [B,*shape]. Guidance runs both conditions as one batch of 2 B."""
    filled = self.walk(cond, shape=shape, guidance=guidance, count=count, prompt=prompt)[1][-1]
    return Latent(codes=filled.reshape(len(filled), *shape))

  def walk(
    self, cond: Cond | None, *, shape: tuple[int, ...], guidance: float | None = None, count: int = 1,
    prompt: Array | None = None,
  ) -> tuple[Array, Array]:  # fmt: skip
    """-> (tokens [steps,B,N,G] after each step, of which some are masked, vocab; all of them as drawn there). The last
    of the latter are the sample. prompt: see `sample`; of each example the same share of what is not given, rounded
    down, is masked again as of a whole one."""
    places, vocab = self._check(shape), self.backbone.vocab
    batch = count if cond is None else rows(cond)
    told = self.guided(cond, guidance, batch)
    keys, masked = sample_keys(self.make_rng("prior"), batch), left_masked(places, self.steps)
    backbone, variables = self.backbone.unbind()

    def step(tokens: Array, now: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
      number, left, heat = now
      made: Any = backbone.apply(variables, told.twice(tokens.reshape(batch, -1)), told.cond, train=False)
      logits = told.mixed(made)
      fresh = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, number)))(keys)
      drawn = choose(fresh[:, 0], logits, self.temperature, self.top_k, self.top_p)
      log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), drawn[..., None], -1).reshape(tokens.shape).sum(-1)
      noise = jax.vmap(lambda key: jax.random.gumbel(key, (places,)))(fresh[:, 1])
      tokens, filled = remask(tokens, drawn.reshape(tokens.shape), log_p + heat * noise, left, vocab)
      return tokens, (tokens, filled)

    steps = np.arange(self.steps)
    heat = self.choice * (1 - (steps + 1) / self.steps)
    start = jnp.full((batch, places, self.backbone.groups), vocab, jnp.int32)
    left = jnp.asarray(masked)[:, None, None]
    if prompt is not None:
      codes = prompt.reshape(start.shape)
      given = jnp.all(codes >= 0, -1, keepdims=True)
      start = jnp.where(given, codes, start)
      left = left * (places - given.sum(1)) // places
    plan = jnp.asarray(steps), left, jnp.asarray(heat, jnp.float32)
    return jax.lax.scan(step, start, plan)[1]

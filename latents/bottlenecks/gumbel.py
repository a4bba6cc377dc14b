"""A relaxed categorical latent: the discrete VAE of DALL-E (Ramesh et al. 2021, arXiv:2102.12092, section 2.1)."""

import math

import jax
import jax.numpy as jnp

from latents.bottlenecks.base import Discrete, check_codes, check_field, code_logs, enter, pointwise, straight_through
from latents.bottlenecks.nearest import random_rows
from latents.errors import UserError
from latents.nn.ramp import risen
from latents.types import Array, Latent


class Gumbel(Discrete):
  """[B,*s,E] -> z [B,*s,D], codes [B,*s] in [0,V): a row of a codebook [V,D] by logits [B,*s,V] that h is made into.

  train: z = sum_k y_k e_k, y = softmax((logits + g) / t), g from a Gumbel distribution (Jang et al. 2016,
  arXiv:1611.01144; rng "bottleneck"); codes are the largest y. Else z is the row of the largest logit.
  hard: True = z is the row of the largest y, with the derivative of the sum (taming-transformers' GumbelQuantize).
  project: a 1x1 projection E -> V first; without it h are the logits.
  t goes from `hot` to `cold` in the first `cooling` training passes, in half a cosine (the paper's: 1 to 1/16, 150000).
  terms: {"kl"}: KL(q(k|x) || uniform) = ln V - H(q), nats a token, of the logits themselves, not of y. The paper's
    weight rises in half a cosine to 6.6 within 5000 steps where the reconstruction is a sum over pixels and channels:
    of a mean over them, Weight(6.6 / (numbers a token stands for), first=0, over=5000, shape="cosine").
  logs: usage, perplexity of the batch, "temperature".
  Passes are counted in the collection "codebook": each of a step's microbatches is one.
  """

  vocab: int = 8192  # pyright: ignore[reportIncompatibleVariableOverride]  (a field here, a property elsewhere)
  dim: int = 128
  hot: float = 1.0
  cold: float = 1 / 16
  cooling: int = 150_000
  hard: bool = False
  project: bool = True

  def setup(self) -> None:
    """Makes the projection, the codebook and the counter."""
    for name, least in (("vocab", 1), ("dim", 1), ("cooling", 0)):
      check_field(self, name, least)
    if not min(self.hot, self.cold) > 0:
      raise UserError(f"a temperature is above 0, not {min(self.hot, self.cold)}")
    if self.project:
      self.projection = pointwise(self.vocab)
    self.rows = self.param("codebook", random_rows, (self.vocab, self.dim))
    self.passes = self.variable("codebook", "passes", lambda: jnp.zeros((), jnp.int32))

  def __call__(self, h: Array, *, train: bool) -> Latent:
    """[B,*s,E] -> Latent; counts the pass if train and the collection "codebook" is mutable."""
    logits = enter(self, h, self.vocab)
    passed = self.passes.value
    heat = self.cold + (self.hot - self.cold) * (1 - risen(passed, self.cooling))
    log_p = jax.nn.log_softmax(logits)
    kl = (jnp.exp(log_p) * (log_p + math.log(self.vocab))).sum(-1).mean()
    if train:
      y = jax.nn.softmax((logits + jax.random.gumbel(self.make_rng("bottleneck"), logits.shape)) / heat)
      codes = jnp.argmax(y, -1).astype(jnp.int32)
      y = straight_through(y, jax.nn.one_hot(codes, self.vocab)) if self.hard else y
      z = jnp.matmul(y, self.rows, precision=jax.lax.Precision.HIGHEST)
      if self.is_mutable_collection("codebook") and not self.is_initializing():
        self.passes.value = passed + 1
    else:
      codes = jnp.argmax(logits, -1).astype(jnp.int32)
      z = self.embed(codes)
    logs = {**code_logs(codes, self.vocab), "temperature": heat}
    return Latent(z=z, codes=codes, terms={"kl": kl}, logs=logs)

  def embed(self, codes: Array) -> Array:
    """codes [B,*s] -> z [B,*s,D]: rows of the codebook."""
    return jnp.take(self.rows, check_codes(codes, self.vocab), axis=0)

"""Real-valued tokens in random order, several at a time. MAR: Li, Tian, Li, Deng, He 2024, arXiv:2406.11838."""

import jax
import jax.numpy as jnp
import numpy as np

from latents.backbones.masked_autoencoder import MaskedAutoencoder
from latents.errors import UserError
from latents.nn.streams import sample_keys
from latents.priors.base import drop, rows
from latents.priors.elements import OfElements
from latents.priors.heads import Head
from latents.priors.masked import left_masked, ranks
from latents.types import Array, Cond, Latent, Terms, aside

MEAN, STD, LEAST = 1.0, 0.25, 0.7  # of the share that is masked: a normal cut to [LEAST,1] (appendix)


def masked_share(key: Array) -> Array:
  """[] in [0.7,1]: the share of tokens that is masked in a batch."""
  return MEAN + STD * jax.random.truncated_normal(key, (LEAST - MEAN) / STD, 0.0)


class MAR(OfElements):
  """Reads the elements of `head`, latent.z [B,*s,D] (or codes), as N tokens in raster order.

  Training: one share of the tokens for a batch (`masked_share`, rounded up) is masked, in a random order of each
  example, and {"masked": what the head says of the masked tokens (`Head.nll`), mean over them}. No likelihood: tokens
  of one step are told apart one by one.
  Sampling: a random order of each example is gone through in `steps` lots, as many as `left_masked` says; those of a
  lot are drawn at once, each by the head. Guidance rises with what is known, 1 + (s - 1) (N - left) / N with `left`
  still masked after the step (at least 1, as in the code); 0 is no condition at all steps. temperature: the head's.
  backbone: `__call__(x [B,N,D], masked [B,N], cond, *, train) -> [B,N,out]`, which knows nothing of masked x.
  """

  backbone: MaskedAutoencoder
  head: Head
  label_drop: float = 0.1
  steps: int = aside(64)
  temperature: float = aside(1.0)
  guidance: float = aside(1.0)

  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """See the class; random tokens."""
    if latent.mask is not None:
      raise UserError("MAR models all tokens of a latent: this one says that some are left out")
    x = self.head.read(latent)
    tokens = self._check(x.shape[1:-1])
    x = x.reshape(len(x), tokens, -1)
    key = self.make_rng("prior")
    if train and cond is not None and self.conditions:
      cond = drop(self.make_rng("prior"), cond, self.label_drop)
    count = jnp.ceil(masked_share(key) * tokens)
    masked = ranks(jax.random.uniform(jax.random.fold_in(key, 1), x.shape[:2])) < count
    each = self.head.nll(self.backbone(x, masked, cond, train=train), x)
    return {"masked": jnp.sum(each * masked) / masked.sum()}

  def sample(
    self, cond: Cond | None, *, shape: tuple[int, ...], guidance: float | None = None, count: int = 1
  ) -> Latent:
    """See `Prior.sample`. Guidance runs both conditions as one batch of 2 B."""
    grid = self._grid(shape)
    batch = count if cond is None else rows(cond)
    keys = sample_keys(self.make_rng("prior"), batch)
    order = jax.vmap(lambda key: jax.random.permutation(key, self._check(grid)))(keys)
    x = self.filled(order, keys, cond, guidance)
    return self.head.write(x.reshape(batch, *grid, self.head.dim))

  def filled(self, order: Array, keys: Array, cond: Cond | None, guidance: float | None = None) -> Array:
    """order [B,N] int: the tokens as they are drawn; keys [B] -> x [B,N,D]."""
    batch, tokens = order.shape
    told = self.guided(cond, guidance, batch)
    left = left_masked(tokens, self.steps)
    before = np.concatenate([[tokens], left[:-1]])
    lot = int((before - left).max())  # each step draws as many, and keeps its own number
    scales = 1 + (told.scale - 1) * (tokens - np.maximum(left, 1)) / tokens
    rank = jnp.argsort(order, -1)
    ahead = jnp.pad(order, ((0, 0), (0, lot)), constant_values=tokens)
    backbone, variables = self.backbone.unbind()
    head, learned = self.head.unbind()

    def step(x: Array, now: tuple[Array, ...]) -> tuple[Array, None]:
      number, known, new, scale = now
      given = backbone.apply(variables, told.twice(x), told.twice(rank >= known), told.cond, train=False)
      places = jax.lax.dynamic_slice_in_dim(ahead, known, lot, 1)
      at = told.twice(jnp.minimum(places, tokens - 1))
      given = jnp.take_along_axis(given, at[..., None], 1)  # pyright: ignore
      other, given = told.halves(given)
      flat = lambda a: None if a is None else a.reshape(batch * lot, *a.shape[2:])  # noqa: E731
      fresh = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, 1 + number), lot))(keys)
      drawn = head.apply(learned, flat(fresh), flat(given), flat(other), scale, self.temperature, method="draw")
      places = jnp.where(jnp.arange(lot) < new, places, tokens)  # beyond the lot: nowhere
      drawn = drawn.reshape(batch, lot, -1)  # pyright: ignore
      return jax.vmap(lambda x, at, new: x.at[at].set(new, mode="drop"))(x, places, drawn), None

    counts = jnp.asarray(tokens - before), jnp.asarray(before - left), jnp.asarray(scales, jnp.float32)
    start = jnp.zeros((batch, tokens, self.head.dim))
    return jax.lax.scan(step, start, (jnp.arange(self.steps), *counts))[0]

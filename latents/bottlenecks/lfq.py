"""Lookup-free quantisation: the signs of the channels are the code (MAGVIT-v2, Yu et al. 2023, arXiv:2310.05737)."""

import jax
import jax.numpy as jnp

from latents.bottlenecks.base import Discrete, check_codes, code_logs, enter, pointwise, straight_through
from latents.bottlenecks.fsq import digits_to_index, index_to_digits
from latents.errors import UserError
from latents.types import Array, Latent

TABLE = 18  # bits of the largest table of probabilities: 2^18 numbers


class LFQ(Discrete):
  """[B,*s,E] -> z [B,*s,L] of -1 and 1, codes [B,*s], or [B,*s,G] in [0, 2^(L/G)); L = bits, G = groups.

  z = sign(u), straight through, with u the (projected) h; bit i of an index is whether u_i > 0, the first channel the
  least significant. The groups are MAGVIT-v2's factorised tokens: consecutive channels, a code each.
  terms: {"entropy"}: E[H(p(c|u))] - diversity H(E[p(c|u)]), nats a token, with p(c|u) = softmax over the codes c of
    2 u.c / temperature (section 3.1). The aim is below 0. p is a product over bits, p_i = sigmoid(4 u_i / temperature),
    so that the first is a sum of L entropies; the second, of the mean over all tokens of the global batch, is not.
    {"commit"}: mean over all elements of (u - sg(z))^2. Open-MAGVIT2 weighs them 0.1 and 0.25.
  joint: bits whose joint entropy the second part takes; it is the sum of those of so many consecutive bits each. None =
    the bits of a code; at most 18. The sum is never below the joint entropy of all bits (BSQ, arXiv:2406.07548, eq. 8).
  project: a 1x1 projection E -> L first; without it E must be L. A normalised output of the encoder helps.
  logs: usage, perplexity (means over the groups), and both entropies: "token_entropy", "batch_entropy".
  """

  bits: int = 18
  groups: int = 1
  joint: int | None = None
  temperature: float = 0.01
  diversity: float = 1.0
  project: bool = True

  @property
  def vocab(self) -> int:
    """2^(bits of a group), or a UserError."""
    if self.bits < 1 or self.groups < 1 or self.bits % self.groups:
      raise UserError(f"{self.bits} bits are not to be had in {self.groups} equal groups")
    if self.bits // self.groups > 30:
      raise UserError(f"{self.bits // self.groups} bits are more than an int32 index holds: give more groups")
    return 2 ** (self.bits // self.groups)

  @property
  def scale(self) -> float:
    """What a channel of z is, up to its sign."""
    return 1.0

  def setup(self) -> None:
    """Makes the projection."""
    if not self.temperature > 0:
      raise UserError(f"the temperature of {type(self).__name__} is above 0, not {self.temperature}")
    together = self.joint or self.bits // self.groups
    if self.vocab and (together > TABLE or together < 1 or self.bits % together):
      raise UserError(f"the joint entropy of {together} of {self.bits} bits: an equal part, at most {TABLE} (`joint`)")
    if self.project:
      self.projection = pointwise(self.bits)

  def __call__(self, h: Array, *, train: bool) -> Latent:
    """[B,*s,E] -> Latent; the same for train True and False."""
    u = self.before(h)
    codes = self.indices(u)
    q = self.embed(codes)
    token, batch = entropies(4 * self.scale / self.temperature * u, self.joint or self.bits // self.groups)
    terms = {"entropy": token - self.diversity * batch, "commit": jnp.square(u - q).mean()}
    logs = code_logs(codes, self.vocab, None if self.groups == 1 else self.groups)
    logs = {**logs, "token_entropy": token, "batch_entropy": batch}
    return Latent(z=straight_through(u, q), codes=codes, terms=terms, logs=logs)

  def before(self, h: Array) -> Array:
    """[B,*s,E] -> u [B,*s,L] float32, whose signs are the code."""
    return enter(self, h, self.bits)

  def indices(self, u: Array) -> Array:
    """u [B,*s,L] -> codes [B,*s] or [B,*s,G] int32."""
    digits = (u > 0).astype(jnp.int32).reshape(*u.shape[:-1], self.groups, self.bits // self.groups)
    codes = digits_to_index(digits, (2,) * digits.shape[-1])
    return codes[..., 0] if self.groups == 1 else codes

  def embed(self, codes: Array) -> Array:
    """codes [B,*s] or [B,*s,G] -> z [B,*s,L]."""
    codes = check_codes(codes, self.vocab)
    digits = index_to_digits(codes, (2,) * (self.bits // self.groups))
    shape = codes.shape if self.groups == 1 else codes.shape[:-1]
    return ((2 * digits - 1) * jnp.float32(self.scale)).reshape(*shape, self.bits)


def entropies(logits: Array, joint: int) -> tuple[Array, Array]:
  """logits [..,L] of independent bits -> (mean over tokens of the entropy of a token, entropy of the mean over tokens).

  Both in nats; the second is the sum of those of `joint` bits each. A joint probability is the product of one of the
  lower half of the bits and one of the upper half, so that the mean over M tokens of all 2^joint is a product of two
  matrices of M x 2^(joint/2), and no token's table is made.
  """
  size = jnp.abs(logits)  # an entropy does not know which side is which, and this one loses no digits
  token = (jax.nn.softplus(-size) + size * jax.nn.sigmoid(-size)).sum(-1).mean()
  parts = logits.reshape(-1, logits.shape[-1] // joint, joint)

  def of_mean(part: Array) -> Array:
    low, high = _table(part[:, : joint // 2]), _table(part[:, joint // 2 :])
    mean = jnp.einsum("ma,mb->ab", high, low, precision=jax.lax.Precision.HIGHEST) / len(part)
    return -(mean * jnp.log(jnp.maximum(mean, jnp.finfo(jnp.float32).tiny))).sum()

  return token, jax.vmap(of_mean, 1)(parts).sum()


def _table(logits: Array) -> Array:
  """[M,b] -> [M,2^b]: the probability of each setting of the bits, the first bit the least significant."""
  table = jnp.ones((len(logits), 1))
  for i in range(logits.shape[1]):
    bit = logits[:, i : i + 1]
    table = jnp.concatenate([table * jax.nn.sigmoid(-bit), table * jax.nn.sigmoid(bit)], 1)
  return table

"""WaveNet: causal, dilated, gated convolutions over a line of tokens. Van den Oord et al. 2016, arXiv:1609.03499."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.backbones.tokens import OneVocabulary
from latents.errors import UserError
from latents.nn.condition import labels
from latents.nn.linear import Dense
from latents.nn.sharding import constrain
from latents.types import Array, Cond

# Of a convolution: its last inputs [B,slots,C], written in turn, and those that the next token's taps see [taps-1,B,C].
Kept = tuple[Array, Array]
Cache = tuple[Kept, ...]


class WaveNet(OneVocabulary):
  """tokens [B,T] int32 in 0..vocab-1, cond or None -> logits [B,T,vocab] float32, exactly 0 at the start.

  Row i are the logits of token i given the `receptive_field` tokens before it. A convolution of `kernel` taps over
  one-hot tokens (a table a tap), then `stacks` times layers with dilations 1, 2, 4, ..., 2^(cycle - 1); each gates a
  convolution, tanh times sigmoid (eq. 2), and gives a 1x1 layer of that to its input and another to the sum of all
  layers, which two 1x1 layers behind ReLUs read (figure 4). Every convolution sees zeros before the first token: that
  is no token.

  width, gate, skip: channels of the residual path, of the gates and of the sum. length: the T that is modelled.
  classes: number of labels, `classes` is the null label and cond None means it; a label is a vector in each gate
  (section 2.5, "global"). Features of their own rate ("local") are not read. UserError where T is not `length`.
  A step costs the same at every token, whatever the dilations.
  """

  vocab: int
  length: int
  width: int = 32
  gate: int = 32
  skip: int = 512
  cycle: int = 10
  stacks: int = 5
  kernel: int = 2
  classes: int = 0
  dtype: str = "float32"

  groups = 1

  @property
  def dilations(self) -> tuple[int, ...]:
    """Of each layer."""
    return tuple(2**i for i in range(self.cycle)) * self.stacks

  @property
  def receptive_field(self) -> int:
    """The number of tokens that a row sees."""
    return (self.kernel - 1) * (1 + sum(self.dilations)) + 1

  def setup(self) -> None:
    """See the class."""
    for name in ("cycle", "stacks", "kernel"):
      if getattr(self, name) < 1:
        raise UserError(f"WaveNet's {name} is {getattr(self, name)}: it must be at least 1")
    normal = nn.initializers.normal
    self.embed = nn.Embed(
      self.vocab, self.kernel * self.width, dtype=self.dtype, embedding_init=normal(self.kernel**-0.5)
    )
    if self.classes:
      numbers = len(self.dilations) * 2 * self.gate
      self.label = nn.Embed(self.classes + 1, numbers, dtype=self.dtype, embedding_init=normal(0.02))
    last = len(self.dilations) - 1
    self.layers = [Layer(self.width, self.gate, self.skip, i == last, self.dtype) for i in range(len(self.dilations))]
    self.hidden = Dense(self.skip, dtype=self.dtype)
    self.head = Dense(self.vocab, dtype=self.dtype, kernel_init=nn.initializers.zeros)

  def __call__(self, tokens: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    del train  # no dropout
    if tokens.ndim != 2 or tokens.shape[1] != self.length:
      raise UserError(f"this WaveNet models [B,{self.length}] tokens, got {tokens.shape}")
    told, total = self._told(cond, tokens.shape[0]), 0.0
    parts = jnp.split(constrain(self.embed(tokens)), self.kernel, -1)
    h = sum((delayed(part, 1 + i) for i, part in enumerate(parts)), jnp.zeros((), self.dtype))
    for i, (layer, dilation) in enumerate(zip(self.layers, self.dilations, strict=True)):
      taps = [delayed(h, n * dilation) for n in range(self.kernel)]
      h, skip = layer(h, jnp.concatenate(taps, -1), told[i][:, None])
      h, total = constrain(h), total + skip
    return self._logits(total)

  def _told(self, cond: Cond | None, batch: int) -> list[Array]:
    """[B or 1,2 gate] for each layer: what it adds before its gate."""
    if not self.classes:
      return [jnp.zeros((1, 2 * self.gate), self.dtype)] * len(self.dilations)
    return jnp.split(self.label(labels(cond, self.classes, batch)), len(self.dilations), -1)

  def _logits(self, total: Array) -> Array:
    return self.head(nn.relu(self.hidden(nn.relu(total)))).astype(jnp.float32)

  def cache(self, batch: int, cond: Cond | None = None) -> Cache:
    """An empty cache for `batch` sequences: static shapes, zeros, as a full pass sees them before the first token."""
    del cond
    convolutions = [(self.kernel * self.width, 1), *((self.width, dilation) for dilation in self.dilations)]
    more = self.kernel - 1
    return tuple(
      (jnp.zeros((batch, more * dilation, width), self.dtype), jnp.zeros((more, batch, width), self.dtype))
      for width, dilation in convolutions
    )

  def step(
    self, token: Array, cond: Cond | None, index: Array, cache: Cache, place: Array | None = None
  ) -> tuple[Array, Cache]:
    """Logits [B,vocab] of token `index` [] given token index-1 (`token` [B]; ignored at index 0), and the cache."""
    del place
    told, total = self._told(cond, token.shape[0]), 0.0
    rows = jnp.where(index == 0, 0, self.embed(token))
    taps = [rows, *cache[0][1]]
    h = sum((jnp.split(tap, self.kernel, -1)[i] for i, tap in enumerate(taps)), jnp.zeros((), self.dtype))
    kept = [remembered(cache[0], rows, index)]
    for i, layer in enumerate(self.layers):
      old = cache[1 + i]
      kept.append(remembered(old, h, index))
      h, skip = layer(h, jnp.concatenate([h, *old[1]], -1), told[i])
      total = total + skip
    return self._logits(total), tuple(kept)


class Layer(nn.Module):
  """h [...,width], taps [...,kernel * width] (h itself, then what came before it), told [...,2 gate] -> (the next h,
  skip [...,skip]). last: h goes no further, and is given back as it is."""

  width: int
  gate: int
  skip: int
  last: bool
  dtype: str

  @nn.compact
  def __call__(self, h: Array, taps: Array, told: Array) -> tuple[Array, Array]:
    """See the class."""
    # A product over the taps, for XLA's CPU compiler takes longer over a dilated convolution.
    signal, gate = jnp.split(Dense(2 * self.gate, dtype=self.dtype, name="dilated")(taps) + told, 2, -1)
    out = jnp.tanh(signal) * nn.sigmoid(gate)
    skip = Dense(self.skip, dtype=self.dtype, name="skip")(out)
    return h if self.last else h + Dense(self.width, dtype=self.dtype, name="out")(out), skip


def delayed(x: Array, steps: int) -> Array:
  """x [B,T,C] -> the same `steps` later, zeros at first."""
  return jnp.pad(x, ((0, 0), (min(steps, x.shape[1]), 0), (0, 0)))[:, : x.shape[1]]


def remembered(kept: Kept, x: Array, index: Array) -> Kept:
  """What a convolution keeps, its input `index` x [B,C] -> what it keeps for input `index` + 1."""
  ring, taps = kept
  slots, more = ring.shape[1], taps.shape[0]
  if not more:
    return kept
  # Written before it is read: the other way round XLA copies the whole ring at every token.
  ring = jax.lax.dynamic_update_slice_in_dim(ring, x[:, None].astype(ring.dtype), index % slots, 1)
  delays = range(slots // more, slots + 1, slots // more)
  read = [jax.lax.dynamic_index_in_dim(ring, (index + 1 - delay) % slots, 1, keepdims=False) for delay in delays]
  return ring, jnp.stack(read)

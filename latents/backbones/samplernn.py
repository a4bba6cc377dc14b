"""SampleRNN: tiers of recurrent networks, each over frames of its own length, and an MLP over the last samples.

Mehri et al. 2016, arXiv:1612.07837; what the paper leaves open as in its published code.
"""

import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.backbones.tokens import OneVocabulary
from latents.errors import UserError
from latents.nn.condition import embed_labels
from latents.nn.convolve import convolve
from latents.nn.linear import product
from latents.nn.sharding import constrain
from latents.nn.weight_norm import WeightNormDense, normed
from latents.types import Array, Cond

he = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
lecun = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
State = tuple[
  Array, tuple[Array, ...]
]  # the last frames[0] tokens [B,frames[0]]; each tier's hidden state [B,depth,width]
Cache = tuple[Array, tuple[Array, ...], tuple[Array, ...]]  # the same, and what each tier made last [B,ratio,width]


class SampleRNN(OneVocabulary):
  """tokens [B,T] int32 in 0..vocab-1, cond or None -> logits [B,T,vocab] float32.

  frames: tokens of a frame of each tier, from the slowest on; each divides the one before it, the first divides T. A
  tier's GRU reads a frame (the tokens before those that it is for, as numbers in [-2,2)), to which the tier above has
  added what it makes (section 2.1, eq. 5-8), and gives a vector to each frame of the next tier, the last one to each
  token; an MLP of two hidden layers reads it with the embeddings of the last frames[-1] tokens (section 2.2). Before
  the first token there is silence, vocab / 2. All layers but the embedding are weight-normalised.

  width: of the tiers and the MLP. depth: GRUs of a tier, one upon the other. embedding: width of a token's.
  length: the T that is modelled. classes: number of labels, `classes` is the null label and cond None means it; the
  paper has none: a label is what a tier above the first one would add. UserError where T is not `length`.

  A pass begins with learned hidden states. `chunk` also takes those that the chunk before it left, as the paper trains
  on long recordings; but no source gives the chunks of a recording in turn, so that in training every example is a
  beginning, whose gradient goes through all of it.
  """

  vocab: int
  length: int
  width: int = 1024
  frames: tuple[int, ...] = (8, 2)
  depth: int = 1
  embedding: int = 256
  classes: int = 0
  dtype: str = "float32"

  groups = 1

  @property
  def ratios(self) -> tuple[int, ...]:
    """How many vectors each tier makes of a frame."""
    return tuple(a // b for a, b in itertools.pairwise((*self.frames, 1)))

  def setup(self) -> None:
    """See the class."""
    steps = (self.length, *self.frames)
    if not self.frames or any(b < 1 or a % b for a, b in itertools.pairwise(steps)):
      raise UserError(
        f"SampleRNN's frames are {self.frames}: each must divide the one before it, the first {self.length}"
      )
    self.tiers = [
      Tier(self.width, self.depth, ratio, bool(i or self.classes), self.dtype) for i, ratio in enumerate(self.ratios)
    ]
    self.samples = Samples(self.vocab, self.width, self.embedding, self.frames[-1], self.dtype)
    if self.classes:
      self.labels = Labels(self.classes, self.width, self.dtype)

  def __call__(self, tokens: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    del train  # no dropout
    if tokens.ndim != 2 or tokens.shape[1] != self.length:
      raise UserError(f"this SampleRNN models [B,{self.length}] tokens, got {tokens.shape}")
    return self.chunk(tokens, cond)[0]

  def chunk(self, tokens: Array, cond: Cond | None, state: State | None = None) -> tuple[Array, State]:
    """tokens [B,n] of n that frames[0] divides, and what the chunk before it left (None: there is none) -> (logits
    [B,n,vocab], what it leaves): chunk after chunk, the logits are those of one pass."""
    batch, count = tokens.shape
    if count % self.frames[0] or not count:
      raise UserError(f"SampleRNN's chunks are of whole frames of {self.frames[0]} tokens, not of {count}")
    before, hidden = self._start(batch) if state is None else state
    line, above, left = jnp.concatenate([before, tokens], 1), self._told(cond, batch, count // self.frames[0]), []
    for frame, tier, h in zip(self.frames, self.tiers, hidden, strict=True):
      first = self.frames[0] - frame  # a frame ends where the tokens begin that it is for
      frames = line[:, first : first + count].reshape(batch, -1, frame)
      above, h = tier(self._numbers(frames), above, h)
      left.append(h)
    seen = line[:, self.frames[0] - self.frames[-1] : -1]
    return self.samples(seen, above), (line[:, -self.frames[0] :], tuple(left))

  def _start(self, batch: int) -> State:
    silence = jnp.full((batch, self.frames[0]), self.vocab // 2, jnp.int32)
    return silence, tuple(tier.start(batch) for tier in self.tiers)

  def _told(self, cond: Cond | None, batch: int, frames: int) -> Array | None:
    """[B,frames,width] that the label adds to the first tier; None without labels."""
    if not self.classes:
      return None
    return jnp.broadcast_to(self.labels(cond, batch)[:, None], (batch, frames, self.width))

  def _numbers(self, tokens: Array) -> Array:
    """Tokens -> float32 in [-2,2)."""
    return 2 * (tokens.astype(jnp.float32) / (self.vocab / 2) - 1)

  def cache(self, batch: int, cond: Cond | None = None) -> Cache:
    """A cache for `batch` sequences that have not begun: static shapes."""
    del cond
    hidden = tuple(jnp.zeros((batch, self.depth, self.width), self.dtype) for _ in self.frames)
    made = tuple(jnp.zeros((batch, ratio, self.width), self.dtype) for ratio in self.ratios)
    return jnp.zeros((batch, self.frames[0]), jnp.int32), hidden, made

  def step(
    self, token: Array, cond: Cond | None, index: Array, cache: Cache, place: Array | None = None
  ) -> tuple[Array, Cache]:
    """Logits [B,vocab] of token `index` [] given token index-1 (`token` [B]; ignored at index 0), and the cache. A tier
    runs where one of its frames is complete."""
    del place
    begins = index == 0
    going = jnp.concatenate([cache[0][:, 1:], token[:, None]], 1)
    start, first = self._start(token.shape[0])
    line = jnp.where(begins, start, going)
    hidden = [jnp.where(begins, new, old) for new, old in zip(first, cache[1], strict=True)]
    made, above = list(cache[2]), self._told(cond, token.shape[0], 1)
    for i, (frame, tier) in enumerate(zip(self.frames, self.tiers, strict=True)):
      given = self._numbers(line[:, -frame:])[:, None], above, hidden[i], made[i]
      made[i], hidden[i] = nn.cond(
        index % frame == 0,
        lambda tier, frames, above, h, old: tier(frames, above, h),
        lambda tier, frames, above, h, old: (old, h),
        tier,
        *given,
      )
      below = (*self.frames, 1)[i + 1]
      above = jax.lax.dynamic_slice_in_dim(made[i], index % frame // below, 1, 1)
    logits = self.samples(line[:, -self.frames[-1] :], above)[:, 0]
    return logits, (line, tuple(hidden), tuple(made))


class Labels(nn.Module):
  """cond -> [B,width]."""

  classes: int
  width: int
  dtype: str

  @nn.compact
  def __call__(self, cond: Cond | None, batch: int) -> Array:
    """See the class."""
    return embed_labels(cond, self.classes, batch, self.width, self.dtype)


class Tier(nn.Module):
  """frames [B,n,F], above [B,n,width] (None where not `led`), state [B,depth,width] -> ([B,n ratio,width], state)."""

  width: int
  depth: int
  ratio: int
  led: bool
  dtype: str

  def setup(self) -> None:
    """See the class."""
    if self.led:
      self.expand = WeightNormDense(self.width, he, self.dtype)
    self.rnns = [GRU(self.width, self.dtype) for _ in range(self.depth)]
    self.out = WeightNormDense(self.ratio * self.width, he, self.dtype)
    self.first = self.param("first", nn.initializers.zeros, (self.depth, self.width), jnp.float32)

  def start(self, batch: int) -> Array:
    """The learned state before the first frame."""
    return jnp.broadcast_to(self.first.astype(self.dtype), (batch, self.depth, self.width))

  def __call__(self, frames: Array, above: Array | None, state: Array) -> tuple[Array, Array]:
    """See the class."""
    h, left = frames.astype(self.dtype), []
    if self.led:
      h = self.expand(h) + above
    for i, rnn in enumerate(self.rnns):
      h = rnn(h, state[:, i])
      left.append(h[:, -1])
    return self.out(h).reshape(len(frames), -1, self.width), jnp.stack(left, 1)


class GRU(nn.Module):
  """x [B,n,C], state [B,width] -> the states [B,n,width] after each element (Cho et al. 2014, arXiv:1406.1078: the
  reset gate acts on the state, before the product). Kernels are weight-normalised; input has the bias."""

  width: int
  dtype: str

  @nn.compact
  def __call__(self, x: Array, state: Array) -> Array:
    """See the class."""
    given = WeightNormDense(3 * self.width, lecun, self.dtype, name="input")(x)
    square, orthogonal = (self.width, self.width), nn.initializers.orthogonal()
    to_gates = normed(self, lecun, (self.width, 2 * self.width), "gates", "gates_scale").astype(self.dtype)
    to_candidate = normed(self, orthogonal, square, "candidate", "candidate_scale").astype(self.dtype)

    def step(h: Array, given: Array) -> tuple[Array, Array]:
      update, reset = jnp.split(nn.sigmoid(product(h, to_gates) + given[:, : 2 * self.width]), 2, -1)
      candidate = jnp.tanh(product(reset * h, to_candidate) + given[:, 2 * self.width :])
      h = update * candidate + (1 - update) * h
      return h, h

    return constrain(jnp.swapaxes(jax.lax.scan(step, state, jnp.swapaxes(given, 0, 1))[1], 0, 1))


class Samples(nn.Module):
  """seen [B,n+F-1] int32, the tokens before each of n, above [B,n,width] -> logits [B,n,vocab] float32."""

  vocab: int
  width: int
  embedding: int
  frame: int
  dtype: str

  @nn.compact
  def __call__(self, seen: Array, above: Array) -> Array:
    """See the class."""
    table = nn.Embed(self.vocab, self.embedding, dtype=self.dtype, embedding_init=nn.initializers.normal(1.0))(seen)
    shape = (self.frame, self.embedding, self.width)
    fan_in = math.prod(shape[:-1])
    kernel = normed(self, lambda key, shape: he(key, (fan_in, self.width)).reshape(shape), shape, "seen", "seen_scale")
    h = convolve(table, kernel.astype(self.dtype), padding="VALID") + above
    for name in ("hidden_0", "hidden_1"):
      h = nn.relu(WeightNormDense(self.width, he, self.dtype, name=name)(h))
    return WeightNormDense(self.vocab, lecun, self.dtype, name="head")(h).astype(jnp.float32)

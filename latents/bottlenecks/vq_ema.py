"""Vector quantisation whose codebook is a moving average (VQ-VAE, van den Oord et al. 2017, arXiv:1711.00937, A.1)."""

import math

import jax
import jax.numpy as jnp

from latents.bottlenecks.base import Discrete, code_logs, count_codes, pointwise, straight_through
from latents.errors import UserError
from latents.types import Array, Latent


class EMAVQ(Discrete):
  """[B,*s,E] -> z [B,*s,D], codes [B,*s] in [0,V): the nearest row of a codebook [V,D].

  State in the collection "codebook": embedding e [V,D], counts N [V] (1 at the start), sums m [V,D] (e at the
  start), so that a code that is never used keeps its value (other starts send it to 0 or to infinity). In training
  steps, after lookup and loss, over the tokens of the global batch:
    N <- g N + (1-g) n,  m <- g m + (1-g) sum z,  e = m / N~,  N~ = (N + eps) / (sum N + V eps) sum N.

  decay: g. project: a 1x1 projection E -> dim first; without it E must be dim.
  restart: codes with N < restart * tokens / V become random encoder outputs (Jukebox, arXiv:2005.00341; 0 = never).
    SoundStream's "fewer than 2" is restart = 2 V / tokens. Such a code gets N = that threshold and m = e N.
  kmeans: None = a random start; n >= 0 = the codebook starts as rows of the first training batch, improved by n
    Lloyd steps (SoundStream). Random numbers: rng "bottleneck", only if restart or kmeans asks for them.
  terms: {"commit"}: mean over all elements of (z_e - sg(e))^2; the paper's weight is 0.25 (its sum over D is
    D times this mean). logs: usage, perplexity of the batch.
  """

  vocab: int = 512  # pyright: ignore[reportIncompatibleVariableOverride]  (a field here, a property elsewhere)
  dim: int = 8
  decay: float = 0.99
  restart: float = 0.0
  kmeans: int | None = None
  project: bool = True
  eps: float = 1e-5

  def setup(self) -> None:
    """Makes the submodules and the state."""
    if self.project:
      self.projection = pointwise(self.dim)
    self.embedding = self.variable("codebook", "embedding", self._random_rows)
    self.counts = self.variable("codebook", "counts", jnp.ones, (self.vocab,))
    self.sums = self.variable("codebook", "sums", lambda: jnp.array(self.embedding.value, copy=True))
    if self.kmeans is not None:
      self.started = self.variable("codebook", "started", lambda: jnp.zeros((), bool))

  def __call__(self, h: Array, *, train: bool) -> Latent:
    """[B,*s,E] -> Latent; updates the codebook if train and the collection "codebook" is mutable."""
    h = self.before(h)
    rows = jax.lax.stop_gradient(h).reshape(-1, self.dim)
    learn = train and self.is_mutable_collection("codebook") and not self.is_initializing()
    if learn and self.kmeans is not None:
      self._start(rows)
    codes = nearest_code(rows, self.embedding.value)
    self.sow("intermediates", "codebook", self.embedding.value)  # for losses that read "bottleneck/codebook"
    shaped = codes.reshape(h.shape[:-1])
    q = jax.lax.stop_gradient(self.embed(shaped))
    commit = jnp.square(h - q).mean()
    if learn:
      self._update(rows, codes)
    return Latent(z=straight_through(h, q), codes=shaped, terms={"commit": commit}, logs=code_logs(codes, self.vocab))

  def before(self, h: Array) -> Array:
    """[B,*s,E] -> what is looked up [B,*s,D] float32."""
    h = h.astype(jnp.float32)
    if self.project:
      return self.projection(h)
    if h.shape[-1] != self.dim:
      raise UserError(f"EMAVQ(dim={self.dim}, project=False) got {h.shape[-1]} channels")
    return h

  def snap(self, z: Array) -> Array:
    """z [B,*s,D] -> the nearest rows of the codebook, same shape."""
    codes = nearest_code(z.astype(jnp.float32).reshape(-1, self.dim), self.embedding.value)
    return self.embed(codes.reshape(z.shape[:-1]))

  def embed(self, codes: Array) -> Array:
    """codes [B,*s] -> z [B,*s,D]: rows of the codebook."""
    return jnp.take(self.embedding.value, codes, axis=0)

  def _random_rows(self) -> Array:
    limit = math.sqrt(3.0 / self.dim)  # variance 1/D an element: rows of length about 1 (haiku's start)
    return jax.random.uniform(self.make_rng("params"), (self.vocab, self.dim), minval=-limit, maxval=limit)

  def _start(self, rows: Array) -> None:
    """Puts the codebook on the data of the first batch."""
    key = self.make_rng("bottleneck")
    state = (self.embedding.value, self.counts.value, self.sums.value)
    start = lambda: kmeans_state(key, rows, self.vocab, self.kmeans or 0)  # noqa: E731
    state = jax.lax.cond(self.started.value, lambda: state, start)
    self.embedding.value, self.counts.value, self.sums.value = state
    self.started.value = jnp.ones((), bool)

  def _update(self, rows: Array, codes: Array) -> None:
    g, v = self.decay, self.vocab
    counts = g * self.counts.value + (1 - g) * count_codes(codes, v)
    sums = g * self.sums.value + (1 - g) * jnp.zeros((v, self.dim)).at[codes].add(rows)
    total = counts.sum()
    smooth = (counts + self.eps) / (total + v * self.eps) * total
    embedding = sums / smooth[:, None]
    if self.restart > 0:
      threshold = self.restart * rows.shape[0] / v
      dead = counts < threshold
      fresh = rows[jax.random.randint(self.make_rng("bottleneck"), (v,), 0, rows.shape[0])]
      embedding = jnp.where(dead[:, None], fresh, embedding)
      sums = jnp.where(dead[:, None], fresh * threshold, sums)  # else the next step would undo the restart
      counts = jnp.where(dead, threshold, counts)
    self.embedding.value, self.counts.value, self.sums.value = embedding, counts, sums


def nearest_code(rows: Array, embedding: Array) -> Array:
  """rows [M,D], embedding [V,D] -> [M] int32: argmin of |row - e|^2 = |row|^2 - 2 row.e + |e|^2.

  In float32 at the highest precision: in bfloat16 or TF32 the difference of large terms picks wrong codes.
  """
  dots = jnp.matmul(rows, embedding.T, precision=jax.lax.Precision.HIGHEST)
  return jnp.argmin(jnp.square(embedding).sum(-1) - 2.0 * dots, axis=-1).astype(jnp.int32)


def kmeans_state(key: Array, rows: Array, vocab: int, steps: int) -> tuple[Array, Array, Array]:
  """rows [M,D] -> (embedding [V,D], counts [V], sums [V,D]): V random rows after `steps` Lloyd steps.

  An empty cluster keeps its mean. Counts are at least 1 and sums = mean * count: the moving average goes on from
  there (sums = mean alone would shrink the codebook at the next step).
  """
  picked = jax.random.choice(key, rows.shape[0], (vocab,), replace=rows.shape[0] < vocab)

  def assign(means: Array) -> tuple[Array, Array]:
    codes = nearest_code(rows, means)
    return count_codes(codes, vocab), jnp.zeros_like(means).at[codes].add(rows)

  def lloyd(_, means: Array) -> Array:
    counts, sums = assign(means)
    return jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1)[:, None], means)

  means = jax.lax.fori_loop(0, steps, lloyd, rows[picked])
  counts = jnp.maximum(assign(means)[0], 1.0)
  return means, counts, means * counts[:, None]

"""Vector quantisation whose codebook is a moving average (VQ-VAE, van den Oord et al. 2017, arXiv:1711.00937, A.1)."""

import jax
import jax.numpy as jnp

from latents.bottlenecks.base import check_field, count_codes
from latents.bottlenecks.nearest import Gradient, NearestCode, distance, nearest_code, random_rows
from latents.errors import UserError
from latents.types import Array, Terms, later


class EMAVQ(NearestCode):
  """[B,*s,E] -> z [B,*s,D], codes [B,*s] in [0,V): the nearest row of a codebook [V,D].

  State in the collection "codebook": embedding e [V,D], counts N [V] (1 at the start), sums m [V,D] (e at the
  start), so that a code that is never used keeps its value (other starts send it to 0 or to infinity). In training
  steps, after lookup and loss, over the tokens of the global batch:
    N <- g N + (1-g) n,  m <- g m + (1-g) sum z,  e = m / N~,  N~ = (N + eps) / (sum N + V eps) sum N.

  decay: g.
  restart: codes with N < restart * tokens / V become random encoder outputs (Jukebox, arXiv:2005.00341; 0 = never).
    SoundStream's "fewer than 2" is restart = 2 V / tokens. Such a code gets N = that threshold and m = e N.
  kmeans: None = a random start; n >= 0 = the codebook starts as rows of the first training batch, improved by n
    Lloyd steps (SoundStream). Random numbers: rng "bottleneck", only if restart or kmeans asks for them.
  terms: {"commit"}: mean over all elements of (z_e - sg(e))^2; the paper's weight is 0.25 (its sum over D is
    D times this mean). project, gradient, logs: see `NearestCode`.
  """

  decay: float = 0.99
  restart: float = 0.0
  kmeans: int | None = None
  project: bool = True
  eps: float = 1e-5
  gradient: Gradient = later("straight")  # pyright: ignore[reportIncompatibleVariableOverride]

  def setup(self) -> None:
    """Makes the projection and the state."""
    super().setup()
    check_field(self, "decay", below=1)
    check_field(self, "restart")
    check_field(self, "eps")
    if self.kmeans is not None:
      check_field(self, "kmeans")
    start = lambda: random_rows(self.make_rng("params"), (self.vocab, self.dim))  # noqa: E731
    self.embedding = self.variable("codebook", "embedding", start)
    self.counts = self.variable("codebook", "counts", jnp.ones, (self.vocab,))
    self.sums = self.variable("codebook", "sums", lambda: jnp.array(self.embedding.value, copy=True))
    if self.kmeans is not None:
      self.started = self.variable("codebook", "started", lambda: jnp.zeros((), bool))

  def table(self) -> Array:
    """The codebook [V,D]."""
    return self.embedding.value

  def losses(self, x: Array, q: Array, weight: Array | None = None) -> Terms:
    """x, q [B,*s,D], weight [B,*s] or None -> {"commit"}."""
    return {"commit": distance(x, jax.lax.stop_gradient(q), weight)}

  def begin(self, x: Array) -> None:
    """x [B,*s,D]: puts the codebook on the data of the first batch."""
    if self.kmeans is None:
      return
    rows = jax.lax.stop_gradient(x).reshape(-1, self.dim)
    if len(rows) < self.vocab:
      raise UserError(f"a codebook of {self.vocab} codes cannot start from a batch of {len(rows)} vectors")
    key = self.make_rng("bottleneck")
    state = (self.embedding.value, self.counts.value, self.sums.value)
    start = lambda: kmeans_state(key, rows, self.vocab, self.kmeans or 0)  # noqa: E731
    state = jax.lax.cond(self.started.value, lambda: state, start)
    self.embedding.value, self.counts.value, self.sums.value = state
    self.started.value = jnp.ones((), bool)

  def learn(self, x: Array, codes: Array, weight: Array | None = None) -> None:
    """x [B,*s,D], codes [B,*s], weight [B,*s] (0 = does not count) or None: one step of the averages."""
    g, v, codes = self.decay, self.vocab, codes.reshape(-1)
    rows = jax.lax.stop_gradient(x).reshape(-1, self.dim)
    counted, shares, tokens = rows, None, rows.shape[0]
    if weight is not None:
      shares = weight.reshape(-1)
      counted, tokens = rows * shares[:, None], shares.sum()
    counts = g * self.counts.value + (1 - g) * count_codes(codes, v, shares)
    sums = g * self.sums.value + (1 - g) * jnp.zeros((v, self.dim)).at[codes].add(counted)
    total = counts.sum()
    smooth = (counts + self.eps) / (total + v * self.eps) * total
    embedding = sums / smooth[:, None]
    if self.restart > 0:
      threshold = self.restart * tokens / v
      dead = counts < threshold
      fresh = rows[jax.random.randint(self.make_rng("bottleneck"), (v,), 0, rows.shape[0])]
      embedding = jnp.where(dead[:, None], fresh, embedding)
      sums = jnp.where(dead[:, None], fresh * threshold, sums)  # else the next step would undo the restart
      counts = jnp.where(dead, threshold, counts)
    self.embedding.value, self.counts.value, self.sums.value = embedding, counts, sums


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

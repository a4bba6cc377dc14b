"""What all quantisers share that look up the nearest row of a codebook: the search, the gradient, the passage."""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from latents.bottlenecks.base import Discrete, check_codes, check_field, code_logs, enter, pointwise, straight_through
from latents.errors import UserError
from latents.nn.norm import unit
from latents.types import Array, Latent, Terms

Gradient = Literal["straight", "rotation"]
AT_ONCE = 2**24  # distances in memory at a time (64 MiB)
LOT = 128  # codes; a block has as many or a multiple of them, however many the vectors


class NearestCode(Discrete):
  """[B,*s,E] -> z [B,*s,D], codes [B,*s] in [0,V): the nearest row of a codebook [V,D].

  project: a 1x1 projection E -> dim first; without it E must be dim. A small dim is the "factorised codes" of ViT-VQGAN
  (Yu et al. 2021, arXiv:2110.04627); the way up again is the decoder's first layer.
  gradient: how that of z reaches what was looked up, x: "straight" through, as if z were x (Bengio et al. 2013), or
  "rotation", as if z were x turned and scaled onto its code (Fifty et al. 2024, arXiv:2410.06424); dim >= 2 then.
  A subclass has `table`, and may have `compared`, `begin`, `losses` and `learn`.
  logs: usage, perplexity of the batch.
  """

  vocab: int = 512  # pyright: ignore[reportIncompatibleVariableOverride]  (a field here, a property elsewhere)
  dim: int = 8
  project = True  # fields of every subclass: annotated here, they would come before those that EMAVQ always had
  gradient = "straight"

  def setup(self) -> None:
    """Makes the projection."""
    check_field(self, "vocab", 1)
    check_field(self, "dim", 1)
    if self.gradient == "rotation" and self.dim < 2:
      raise UserError(f"nothing turns in {self.dim} dimension: the rotation trick wants a dim of 2 or more")
    if self.project:
      self.projection = pointwise(self.dim)

  def __call__(self, h: Array, *, train: bool) -> Latent:
    """[B,*s,E] -> Latent; state changes if train and the collection "codebook" is mutable."""
    x = self.before(h)
    if self.learning(train):
      self.begin(x)
    codes = self.find(x)
    self.sow("intermediates", "codebook", self.table())  # for losses that read "bottleneck/codebook"
    q = self.embed(codes)
    terms = self.losses(x, q)  # of q itself: z gives the codebook no gradient
    if self.learning(train):
      self.learn(x, codes)
    return Latent(z=through(x, q, self.gradient), codes=codes, terms=terms, logs=code_logs(codes, self.vocab))

  def table(self) -> Array:
    """The codebook [V,D] that the decoder reads rows of."""
    raise NotImplementedError

  def compared(self, x: Array) -> Array:
    """[..,D] -> what distances are taken of, of vectors and of the codebook alike."""
    return x

  def before(self, h: Array) -> Array:
    """[B,*s,E] -> what is looked up [B,*s,D] float32."""
    return enter(self, h, self.dim)

  def learning(self, train: bool) -> bool:
    """Whether state changes in this pass."""
    return train and self.is_mutable_collection("codebook") and not self.is_initializing()

  def begin(self, x: Array) -> None:
    """x [B,*s,D]: what a codebook that starts from data does with the first of it."""

  def find(self, x: Array) -> Array:
    """x [B,*s,D] -> codes [B,*s] int32."""
    rows, table = self.compared(x).reshape(-1, self.dim), self.compared(self.table())
    return nearest_code(rows, table).reshape(x.shape[:-1])

  def losses(self, x: Array, q: Array, weight: Array | None = None) -> Terms:
    """x, q [B,*s,D], weight [B,*s] or None -> the terms."""
    return {}

  def learn(self, x: Array, codes: Array, weight: Array | None = None) -> None:
    """x [B,*s,D], codes [B,*s], weight [B,*s] (0 = does not count) or None: moves what has no gradient."""

  def snap(self, z: Array) -> Array:
    """z [B,*s,D] -> the nearest rows of the codebook, same shape."""
    return self.embed(self.find(z.astype(jnp.float32)))

  def embed(self, codes: Array) -> Array:
    """codes [B,*s] -> z [B,*s,D]: rows of the codebook."""
    return jnp.take(self.table(), check_codes(codes, self.vocab), axis=0)


def random_rows(key: Array, shape: tuple[int, int]) -> Array:
  """[V,D] uniform with variance 1/D an element: rows of length about 1 (haiku's start)."""
  limit = math.sqrt(3.0 / shape[1])
  return jax.random.uniform(key, shape, minval=-limit, maxval=limit)


def through(x: Array, q: Array, gradient: str) -> Array:
  """x, q [...,D] -> q, exactly, with a derivative to x by the field `gradient` of `NearestCode`; q gets none."""
  return rotated(x, q) if gradient == "rotation" else straight_through(x, q)


@jax.custom_jvp
def rotated(x: Array, q: Array) -> Array:
  """x, q [...,D] -> q, exactly, as s R x (Fifty et al. 2024, arXiv:2410.06424, section 4.2) with s and R held fixed.

  s = |q| / |x|, and with u = x / |x|, p = q / |q| and w = (u + p) / |u + p|
    R t = t - 2 w (w.t) + 2 p (u.t),  the rotation in the plane of u and p that takes u to p.
  At p = -u that plane is none, and R is the reflection t - 2 u (u.t), which takes u to p too. Where x is 0 there is no
  direction to turn: straight through.
  """
  return q


@rotated.defjvp
def _rotated_jvp(primals, tangents):
  (x, q), t = primals, tangents[0]
  size = jnp.linalg.norm(x, axis=-1, keepdims=True)
  u, p = unit(x), unit(q)
  w, dot = unit(u + p), lambda a, b: (a * b).sum(-1, keepdims=True)
  turned = t - 2 * w * dot(w, t) + 2 * p * dot(u, t)
  scale = jnp.linalg.norm(q, axis=-1, keepdims=True) / jnp.where(size > 0, size, 1.0)
  return q, jnp.where(size > 0, scale * turned, t)


def distance(x: Array, q: Array, weight: Array | None) -> Array:
  """x, q [..,D], weight [..] or None -> []: the mean of weight (x - q)^2 over all elements."""
  squares = jnp.square(x - q)
  return (squares if weight is None else squares * weight[..., None]).mean()


def nearest_code(rows: Array, embedding: Array) -> Array:
  """rows [M,D], embedding [V,D] -> [M] int32: argmin of |row - e|^2 = |row|^2 - 2 row.e + |e|^2, the first of equals.

  In float32 at the highest precision: in bfloat16 or TF32 the difference of large terms picks wrong codes. A large
  codebook is gone through block by block, for the [M,V] distances would not fit; rows stay where their device is.
  """
  rows, embedding = jax.lax.stop_gradient((rows, embedding))
  vocab, dim = embedding.shape
  blocks = -(-vocab // max(LOT, AT_ONCE // len(rows)))
  width = -(-vocab // blocks)
  if width > LOT:
    width += -width % LOT
  spare = blocks * width - vocab
  books = jnp.pad(embedding, ((0, spare), (0, 0))).reshape(blocks, width, dim)
  norms = jnp.pad(jnp.square(embedding).sum(-1), (0, spare), constant_values=jnp.inf).reshape(blocks, width)
  if blocks == 1:
    return _nearest(rows, books[0], norms[0])[1]

  def nearer(best: tuple[Array, Array], block: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
    book, norm, first = block
    distance, code = _nearest(rows, book, norm)
    closer = distance < best[0]
    return (jnp.where(closer, distance, best[0]), jnp.where(closer, first + code, best[1])), None

  start = (jnp.full(len(rows), jnp.inf), jnp.zeros(len(rows), jnp.int32))
  starts = jnp.arange(blocks, dtype=jnp.int32) * width
  return jax.lax.scan(nearer, start, (books, norms, starts))[0][1]


def _nearest(rows: Array, book: Array, norms: Array) -> tuple[Array, Array]:
  """-> (the least distance [M] without |row|^2, its code [M] int32). An argmin costs as much as the product, a minimum
  almost nothing: it is taken of lots of codes, and the argmin of the lots and within the least of them."""
  distances = norms - 2.0 * jnp.matmul(rows, book.T, precision=jax.lax.Precision.HIGHEST)
  if len(book) <= LOT:
    return distances.min(-1), jnp.argmin(distances, -1).astype(jnp.int32)
  lots = distances.reshape(len(rows), -1, LOT)
  lot = jnp.argmin(lots.min(-1), -1)
  least = jnp.take_along_axis(lots, lot[:, None, None], 1)[:, 0]
  return least.min(-1), (lot * LOT + jnp.argmin(least, -1)).astype(jnp.int32)

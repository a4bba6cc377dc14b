"""Alignment of the latent with the features of a frozen network: VA-VAE (Yao, Yang, Wang 2025, arXiv:2501.01423)."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.losses.base import Loss, Term, Tree
from latents.nn.linear import Dense
from latents.regularisers.teachers import Teacher
from latents.types import Array, Seen, later


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment(Loss):
  """The VF loss: marginal cosine and distance-matrix terms between W z and the teacher's features f, eq. 2 to 4.

    mean relu(1 - m1 - cos(W z_i, f_i)) + mean_ij relu(|cos(W z_i, W z_j) - cos(f_i, f_j)| - m2)

  W: a linear map D -> E without bias, trained with the stage's optimiser, no part of the model. As the authors' code
  the second term takes W z (their paper writes z). adaptive: the weight is balanced against the reconstruction losses
  at the encoder's last kernel, by at most `clamp` (theirs, 1e8, beside reconstructions that are summed over a signal).
  """

  teacher: Teacher
  cosine_margin: float = 0.5
  distance_margin: float = 0.25
  adaptive: bool = True
  clamp: float = later(1e8)

  @property
  def at(self) -> str:
    """The encoder's last kernel."""
    return "encoder" if self.adaptive else ""

  @property
  def stage(self) -> object:
    """The teacher's, if it has one."""
    return self.teacher.of

  def load(self) -> Tree:
    """The teacher's parameters."""
    return self.teacher.load()

  def abstract(self) -> Tree:
    """Their shapes."""
    return self.teacher.abstract()

  def init(self, key: Array, seen: Seen, *, aux: Tree) -> Tree:
    """W."""
    features = self.teacher.features(aux, seen.signal, seen.z.shape[1:-1])
    return dict(self._project(features.shape[-1]).init(key, seen.z))

  def measure(self, seen: Seen, own: Tree, *, aux: Tree, key: Array) -> Term:
    """z [B,*s,D] against features of the signal."""
    f = jax.lax.stop_gradient(self.teacher.features(aux, seen.signal, seen.z.shape[1:-1]))
    z: Array = self._project(f.shape[-1]).apply(own, seen.z)
    z, f = (unit(a.reshape(a.shape[0], -1, a.shape[-1])) for a in (z, f))
    cosine = jax.nn.relu(1 - self.cosine_margin - jnp.sum(z * f, -1)).mean()
    pairs = [jnp.einsum("bid,bjd->bij", a, a, precision="highest") for a in (z, f)]
    distance = jax.nn.relu(jnp.abs(pairs[0] - pairs[1]) - self.distance_margin).mean()
    return Term(cosine + distance, {"alignment_cosine": cosine, "alignment_distance": distance})

  def _project(self, width: int) -> nn.Dense:
    return Dense(width, use_bias=False)


def unit(a: Array) -> Array:
  """[..,E] -> the same of length 1, in float32; 0 stays 0, with gradient 0."""
  a = a.astype(jnp.float32)
  return a * jax.lax.rsqrt(jnp.maximum(jnp.square(a).sum(-1, keepdims=True), 1e-12))

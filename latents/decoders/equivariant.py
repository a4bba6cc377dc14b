"""Training under transformations of the latent: EQ-VAE (Kouzelis et al. 2025, arXiv:2502.09509)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.decoders.base import Wrapped, read_z
from latents.errors import UserError
from latents.types import Array, Decoded, Latent


class Equivariant(Wrapped):
  """The decoder `inner`, which in a share `rate` of the passes decodes tau(z) towards tau(x) (eq. 4).

  tau, one a pass for the whole batch: a rotation by 90, 180 or 270 degrees and a bilinear change of scale to one of
  `scales`, of z and x alike. The gradient flows through tau(z) into the encoder; the bottleneck's own terms are those
  of the untransformed posterior. A smaller result is repeated until it fills the grid, so that means over a picture
  stay means over the small one, and shapes are static: one program has a copy of `inner` for each scale. (XLA:CPU has
  no fast gradients of kernels inside a branch: ten times slower there.)
  The paper draws from 8/32 to 31/32, of squares; a grid that is none is turned by 180 degrees, which alone keeps its
  sides. Random numbers: rng "decoder".
  """

  rate: float = 0.5
  scales: tuple[float, ...] = (0.25, 0.5, 0.75)

  def sample(self, latent: Latent, *, steps: int | None = None) -> Array:
    """As the inner decoder."""
    return self.inner.sample(latent, steps=steps)

  def __call__(self, latent: Latent, x: Array, *, train: bool) -> Decoded:
    """Latent, x [B,*S,C] -> Decoded(x_hat and target [B,*S,C], the inner terms)."""
    if not train or self.is_initializing():
      return self.inner(latent, x, train=train)
    z, size = read_z(latent), x.shape[1:-1]
    square = z.shape[1] == z.shape[2]
    if square != (size[0] == size[1]):
      raise UserError(f"a latent of {z.shape[1:-1]} and a signal of {size} cannot be turned alike")
    key = self.make_rng("decoder")
    turn = jax.random.randint(jax.random.fold_in(key, 0), (), 1, 4)
    which = jax.random.randint(jax.random.fold_in(key, 1), (), 1, len(self.scales) + 1)
    which = jnp.where(jax.random.bernoulli(jax.random.fold_in(key, 2), self.rate), which, 0)

    def branch(scale: float | None) -> Any:
      def decode(module: "Equivariant", z: Array, x: Array) -> tuple[Array, Array, Any]:
        if scale is not None:
          z, x = (rotate(resize(a, scale), turn if square else None) for a in (z, x))
        made = module.inner(latent.replace(z=z), x, train=True)
        return fill(made.x, size), fill(x if made.target is None else made.target, size), dict(made.terms)

      return nn.remat(decode)  # or each branch would keep what all of them keep for their gradients

    x_hat, target, terms = nn.switch(which, [branch(None), *map(branch, self.scales)], self, z, x)
    return Decoded(x=x_hat, target=target, terms=terms)


def resize(a: Array, scale: float) -> Array:
  """[B,h,w,C] -> [B,round(h s),round(w s),C], bilinear without a low-pass filter, as the paper's code."""
  size = [max(1, round(n * scale)) for n in a.shape[1:-1]]
  return jax.image.resize(a, (a.shape[0], *size, a.shape[-1]), "bilinear", antialias=False)


def rotate(a: Array, turn: Array | None) -> Array:
  """[B,h,h,C], turn [] in 0..3 -> the same turned by 90 degrees `turn` times; [B,h,w,C], None -> by 180."""
  if turn is None:
    return jnp.rot90(a, 2, (1, 2))
  return jax.lax.switch(turn, [lambda a, k=k: jnp.rot90(a, k, (1, 2)) for k in range(4)], a)


def fill(a: Array, size: tuple[int, ...]) -> Array:
  """[B,h,w,C] -> [B,*size,C]: repeated, and cut where it does not fit."""
  times = [-(-want // n) for want, n in zip(size, a.shape[1:-1], strict=True)]
  return jnp.tile(a, (1, *times, 1))[:, : size[0], : size[1]]

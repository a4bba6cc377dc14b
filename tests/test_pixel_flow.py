"""PixelFlow: its jumps are exact, and with exact fields it samples the data."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from latents.diffusion import Euler
from latents.errors import UserError
from latents.nn.conv import halved, nearest
from latents.priors import PixelFlow
from latents.priors.pixel_flow import jump, spans
from latents.types import Latent
from tests.test_nn import KEY, normal

RNGS = {"prior": KEY}


def test_times_are_the_papers():
  """t' = a t with a = 1 / (2 - t), t = 1 - noise."""
  for s, (nominal, first, last) in enumerate(spans(4, 2)):
    t = 1 - nominal
    assert nominal == 1 - s / 4 and last == 1 - (s + 1) / 4
    assert first == pytest.approx(1 - t / (2 - t) if s else 1.0)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("tau", [0.25, 0.5, 0.75])
def test_a_jump_keeps_the_mean_and_makes_the_noise_white(axes: int, tau: float):
  """Of a unit impulse of each kind of noise in turn: the covariance is computed, not sampled."""
  cells, shape = 2**axes, (2,) * axes
  first = spans_first(tau, axes)
  x0 = normal(3, *(2,) * axes, 2)
  x, noise = (1 - tau) * x0 + tau * normal(*x0.shape, seed=1), normal(3, *(4,) * axes, 2, seed=2)
  a = (1 - first) / (1 - tau)
  assert np.abs(halved(jump(x, tau, noise)) - a * x).max() < 1e-6
  linear = lambda coarse, fine: jump(coarse.reshape(1, *(1,) * axes, 1), tau, fine.reshape(1, *shape, 1)).reshape(-1)
  of_coarse = tau * np.asarray(linear(jnp.ones(1), jnp.zeros(cells)))[:, None]
  of_fine = np.stack([np.asarray(linear(jnp.zeros(1), one)) for one in jnp.eye(cells)], 1)
  covariance = of_coarse @ of_coarse.T + of_fine @ of_fine.T
  assert np.abs(covariance - first**2 * np.eye(cells)).max() < 1e-6
  assert np.abs(of_fine.sum(0)).max() < 1e-6  # what is added has no mean in a block
  added = of_fine @ of_fine.T
  assert added[0, 1] / added[0, 0] == pytest.approx(-1 / (cells - 1), abs=1e-6)
  assert np.abs(jump(x0, 0.0, noise) - nearest(x0)).max() < 1e-6  # without noise nothing is added


def spans_first(tau: float, axes: int) -> float:
  """The noise after a jump from tau."""
  return 2 ** (axes / 2) * tau / (1 + (2 ** (axes / 2) - 1) * tau)


class Known(nn.Module):
  """The exact field for one picture, the same at every time and of every example: begin - end of each stage."""

  picture: tuple
  stages: int
  conditions = ()
  classes: int = 0

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    stage = self.stages - 1 - int(np.log2(len(self.picture) // x.shape[1]))
    z = jnp.asarray(self.picture, jnp.float32)[None, ..., None]
    for _ in range(self.stages - 1 - stage):
      z = halved(z)
    nominal, first, last = spans(self.stages, 2)[stage]
    u = ((t[:, 0] - last) / (nominal - last)).reshape(-1, 1, 1, 1)
    before = (1 - first) * nearest(halved(z)) if stage else 0 * z
    # x = u begin + (1 - u) end is (u first + (1 - u) last) eps + what is known; so eps, and begin - end, follow
    eps = (x - u * before - (1 - u) * (1 - last) * z) / (u * first + (1 - u) * last)
    return (before + first * eps) - ((1 - last) * z + last * eps)


PICTURE = tuple(map(tuple, np.random.default_rng(3).normal(size=(8, 8)).tolist()))


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_the_exact_field_samples_the_picture_and_has_no_loss(stages: int):
  """For one picture the noise never matters, so a stage is a straight line: one step of Euler each is exact."""
  prior = PixelFlow(backbone=Known(PICTURE, stages), stages=stages, sampler=Euler(2))
  z = prior.apply({}, None, shape=(8, 8, 1), count=3, method="sample", rngs=RNGS).z
  wanted = np.asarray(PICTURE)[None, ..., None]
  assert np.abs(z - wanted).max() < 1e-4
  data = jnp.broadcast_to(jnp.asarray(wanted, jnp.float32), (7, 8, 8, 1))
  for train in (True, False):
    assert prior.apply({}, Latent(z=data), None, train=train, method="loss", rngs=RNGS)["flow"] < 1e-6


def test_mistakes_are_one_clear_line():
  prior = PixelFlow(backbone=Known(PICTURE, 3), stages=3)
  with pytest.raises(UserError, match=r"3 stages need axes that 4 divides, not \(8, 6\)"):
    prior.apply({}, None, shape=(8, 6, 1), method="sample", rngs=RNGS)
  with pytest.raises(UserError, match="continuous"):
    prior.apply({}, Latent(codes=jnp.zeros((3, 8, 8), jnp.int32)), None, train=True, method="loss", rngs=RNGS)

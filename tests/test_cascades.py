"""Generative decoders that are told a noisy latent: conditioning augmentation (arXiv:2106.15282)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.decoders import cascade
from latents.autoencoders import Stacked
from latents.backbones import UNet
from latents.declare import Stage1
from latents.decoders import FlowDecoder
from latents.diffusion import DDPM, Betas, Euler, Process, grid
from latents.errors import UserError
from latents.types import Latent
from tests.test_bottlenecks import rng_normal
from tests.test_encoders_decoders import started

KEY = jax.random.key(3)
Z = rng_normal(3, 2, 4, 1)
X = rng_normal(3, 8, 16, 1, seed=1)


def told(s: float, **fields) -> FlowDecoder:
  return FlowDecoder(UNet(4, (1, 1), 1, out=1), 4, 1, Euler(3), augment=1.0, level=s, **fields)


def variables(decoder: FlowDecoder):
  return started(decoder, Latent(z=Z), X, train=True)


def sample(decoder: FlowDecoder, weights, z=Z) -> Any:
  return decoder.apply(weights, Latent(z=z), method="sample", rngs={"decoder": KEY})


class Deaf(UNet):
  """Does not look at the second time."""

  def __call__(self, x, t, cond, *, train=False):
    return super().__call__(x, t if t.ndim == 1 else t[:, 0], cond, train=train)


@pytest.mark.parametrize("process", [Process(), Process(Betas(), predict="noise")])
def test_without_noise_it_is_the_plain_decoder_to_the_bit(process):
  deaf = Deaf(4, (1, 1), 1, out=1)
  plain = FlowDecoder(deaf, 4, 1, Euler(3), process=process)
  weights = variables(plain)
  at_0 = FlowDecoder(deaf.clone(), 4, 1, Euler(3), process=process, augment=0.7)
  np.testing.assert_array_equal(sample(at_0, weights), sample(plain, weights))
  some = at_0.clone(level=0.1)
  assert np.abs(sample(some, weights) - sample(plain, weights)).max() > 1e-3


def test_in_pure_noise_there_is_nothing_of_the_latent():
  weights = variables(told(1.0))
  np.testing.assert_array_equal(sample(told(1.0), weights), sample(told(1.0), weights, 5 - Z))
  assert np.abs(sample(told(0.5), weights) - sample(told(0.5), weights, 5 - Z)).max() > 1e-2
  batch = sample(told(0.5), weights)
  np.testing.assert_allclose(sample(told(0.5), weights, Z[:2]), batch[:2], atol=1e-5)  # noise of each sample's own


class Probe(nn.Module):
  """Gives what it is told: where `of` is "level" the second time, else the picture beside x."""

  of: str
  conditions = ()
  classes = 0

  def __call__(self, x, t, cond, *, train=False):
    noisy, beside = jnp.split(x, 2, -1)
    return jnp.broadcast_to(t[:, 1, None, None, None], noisy.shape) if self.of == "level" else beside


def seen(of: str, count: int, level: float, augment: float) -> tuple[np.ndarray, np.ndarray]:
  """What a backbone is told of `count` latents of 3.0: in training, and in sampling."""
  decoder = FlowDecoder(Probe(of), 2, 1, Euler(1), augment=augment, level=level, process=Process(predict="data"))
  z = jnp.full((count, 8, 8, 1), 3.0)
  found: Any = decoder.apply({}, Latent(z=z), jnp.zeros((count, 16, 16, 1)), train=True, rngs={"decoder": KEY})
  return np.asarray(found.x), np.asarray(sample(decoder, {}, z))  # one Euler step from noise to the data gives the data


def test_the_level_is_told_in_one_unit_and_is_that_of_the_noise():
  level, fixed = seen("level", 4000, 0.3, 0.6)
  beside, at = seen("beside", 4000, 0.3, 0.6)
  np.testing.assert_allclose(fixed, 0.3, atol=1e-6)
  s = level[:, 0, 0, 0]
  np.testing.assert_array_equal(level, np.broadcast_to(s[:, None, None, None], level.shape))  # one an example
  assert 0 <= s.min() < 0.01 and 0.59 < s.max() < 0.6 and abs(s.mean() - 0.3) < 0.01
  for told_s, made in ((s, beside), (np.full(4000, 0.3), at)):  # alpha z + sigma noise: upsampled first, white noise
    residual = (made - (1 - told_s[:, None, None, None]) * 3.0)[..., 0]
    np.testing.assert_allclose(residual.std((1, 2)), told_s, atol=0.13)
    np.testing.assert_allclose(residual.std(), np.sqrt((told_s**2).mean()), rtol=0.01)
    neighbours = (residual[:, :, ::2] * residual[:, :, 1::2]).mean() / residual.var()
    assert abs(neighbours) < 0.02


@pytest.mark.parametrize(("level", "augment"), [(0.2, 0.1), (-0.1, 0.5), (0.0, 1.5), (0.3, 0.0)])
def test_noise_out_of_range_is_one_line(level, augment):
  decoder = told(0.0).clone(level=level, augment=augment)
  with pytest.raises(UserError, match=f"0 <= level <= augment <= 1, not level={level}, augment={augment}"):
    jax.eval_shape(lambda: decoder.init({"params": KEY, "decoder": KEY}, Latent(z=Z), X, train=True))


def test_the_samplers_grid_is_the_decoders():
  decoder = FlowDecoder(UNet(4, (1, 1), 1, out=1), 4, 1, Euler(3))
  assert decoder.variants == (("2 steps", 2), ("20 steps", 20))
  np.testing.assert_array_equal(decoder.grid(5), grid(5))
  ancestral = decoder.clone(sampler=DDPM(3), shown=(4,))
  assert ancestral.variants == (("4 steps", 4),)


def test_a_cascade_is_three_levels_of_half_the_size_each():
  made = cascade.experiment()
  model = made.stage1.model
  assert isinstance(model, Stacked) and made.stage1.trained == ("outer",)
  upper = made.stage1.start[0].stage
  assert isinstance(upper, Stage1) and upper.model == model.inner
  x = jnp.zeros((2, 32, 32, 1))
  rngs = {"params": KEY, "decoder": KEY}
  latent, decoded = jax.eval_shape(lambda: model.init_with_output(rngs, x, train=True)[0])
  assert latent.z.shape == (2, 8, 8, 1) and decoded.x.shape == decoded.target.shape == (2, 16, 16, 1)
  paper = cascade.experiment("paper").stage1.model
  assert paper.inner.decoder.stride == 4 and paper.outer.decoder.stride == 2


def test_each_level_means_back_to_what_it_was_told():
  """A decoder that knows its distribution: the cells of what it draws have the small picture's mean."""

  class Cells(UNet):
    def __call__(self, x, t, cond, *, train=False):
      noisy, z = jnp.split(x, 2, -1)
      tau = t[:, :1, None, None]
      x0 = z + 0.1 * jnp.tile(jnp.array([[1.0, -1.0], [-1.0, 1.0]]), (4, 4))[None, :, :, None]
      return (noisy - x0) / tau

  decoder = FlowDecoder(Cells(4), 2, 1, Euler(4), augment=0.5)
  z = rng_normal(2, 4, 4, 1)
  drawn = sample(decoder, {}, z)
  np.testing.assert_allclose(nn.avg_pool(drawn, (2, 2), (2, 2)), z, atol=1e-5)

"""A denoiser's error at fixed noise levels: where they lie, and one number whatever the path or parametrisation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.diffusion import Betas, Cosine, Exploding, Linear, Process
from latents.evaluate import Examples, SampleSpectrum
from latents.priors import FlowPrior
from latents.priors.base import LEVELS
from latents.types import Latent
from tests.members.priors import PRIORS

PATHS = (Linear(), Cosine(), Betas(), Betas(0.0015, 0.0195, rise="root"), Exploding())


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_a_path_is_at_the_level_at_that_time(path):
  for level in LEVELS:
    assert path.log_snr(np.float64(path.time(np.float64(level)))) == pytest.approx(level, abs=1e-6)


def test_a_level_beyond_the_path_is_its_end():
  assert Betas().time(np.float64(60)) == pytest.approx(0, abs=1e-12) and Betas().time(np.float64(-60)) == pytest.approx(
    1
  )


class Best(nn.Module):
  """What is best for data N(0, 1): E[x0 | x] = alpha x / (alpha^2 + sigma^2), in the process's own terms."""

  process: Process
  conditions = ()
  classes = 0

  def __call__(self, x, t, cond, *, train=False):
    path = self.process.path
    if self.process.predict == "edm":  # undo what the network sees
      return jnp.zeros_like(x)
    alpha, sigma = (f(t)[:, None, None] for f in (path.alpha, path.sigma))
    return path.convert(alpha * x / (alpha**2 + sigma**2), "data", self.process.predict, x, t)


@pytest.mark.parametrize(
  "process",
  [Process(path, kind) for path in PATHS[:-1] for kind in ("velocity", "data", "noise")]
  + [Process(Exploding(), "edm", data_std=1.0)],
  ids=lambda p: f"{type(p.path).__name__}-{p.predict}",
)
def test_the_best_denoiser_has_the_known_error(process: Process):
  """1 / (1 + SNR) for unit Gaussian data, on every path and in every parametrisation."""
  z = jax.random.normal(jax.random.key(0), (256, 32, 16))
  prior = FlowPrior(backbone=Best(process), process=process)
  found = prior.apply({}, Latent(z=z), None, method="levels", rngs={"prior": jax.random.key(1)})
  for level in LEVELS:
    assert float(found[f"data_error_at_{level}"]) == pytest.approx(1 / (1 + np.exp(level)), rel=0.02)


def test_the_energy_of_samples_by_octave():
  metric, x = SampleSpectrum(), np.random.default_rng(0).normal(size=(20, 32, 32, 3)).astype(np.float32)
  smooth = (x + np.roll(x, 1, 1)) / 2  # halves the energy, above all that of the top octave

  def view(a: np.ndarray) -> np.ndarray:
    return np.asarray(metric.features({}, jnp.asarray(a)), np.float64)

  real = Examples(view(x), name="noise")
  assert all(m.value == pytest.approx(1) for m in metric.compare(real, real, None).values())
  found = {name: m.value for name, m in metric.compare(real, Examples(view(smooth)), None).items()}
  assert found["energy_top"] < found["energy_0.25"] < found["energy_0.125"] < found["energy_0.0625"] <= 1.01
  double = metric.compare(real, Examples(view(2 * x)), None)
  assert [m.value for m in double.values()] == pytest.approx([4.0] * 4)


def test_what_jumps_has_no_levels():
  name, make, shape, _ = next(row for row in PRIORS if row[0] == "consistency")
  prior, latent = make(), Latent(z=jnp.zeros((2, *shape)))
  assert prior.apply({}, latent, None, method="levels") == {}, name

"""Weights over noise levels, and times of training and of sampling. In float64 but where it says so."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.diffusion import (
  P2,
  Betas,
  Cosine,
  Early,
  EDMWeight,
  Exploding,
  Karras,
  Likelihood,
  Linear,
  LogNormal,
  MaxSNR,
  MinSNR,
  Process,
  ShiftedCosine,
  Sigmoid,
  Stratified,
  Uniform,
  Unit,
)
from latents.errors import UserError
from tests.members.diffusion import WEIGHTS
from tests.test_diffusion_paths import BY_NAME, KEY, KINDS, normal, wide

__all__ = ["wide"]  # float64 in every test here


def test_edms_levels():
  """Table 1 and eq. 5 of the paper: N levels from 80 to 0.002, then 0."""
  n = 18
  i = np.arange(n)
  levels = (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
  times = Karras()(n, 3.0)
  assert times.shape == (n + 1,) and times[0] == 1 and times[-1] == 0
  assert np.abs(Exploding(80.0).sigma(times[:-1]) / levels - 1).max() < 1e-12
  drawn = np.log(np.asarray(LogNormal(-0.4, 1.0, 20.0)(KEY, 40_000)) * 20)
  assert abs(drawn.mean() + 0.4) < 0.02 and abs(drawn.std() - 1) < 0.02


def test_stratified_times_are_even_and_each_is_uniform():
  drawn = np.stack([np.asarray(Stratified()(jax.random.key(i), 8)) for i in range(500)])
  assert np.abs(np.diff(np.sort(drawn, 1), axis=1) - 1 / 8).max() < 1e-6
  assert np.abs(np.quantile(drawn[:, 3], [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.07
  spread = lambda times: np.std([np.mean(np.asarray(times(jax.random.key(i), 64)) ** 2) for i in range(200)])
  assert spread(Stratified()) < spread(Uniform()) / 5


@pytest.mark.parametrize(
  ("grid", "message"),
  [(Early(1.5), "not 1.5"), (Karras(least=0.0), "noise falls"), (Karras(least=90.0), "noise falls")],
)
def test_grids_that_are_none_are_one_line(grid, message: str):
  with pytest.raises(UserError, match=message):
    grid(4)


@BY_NAME
@pytest.mark.parametrize("weight", [None, *(make() for make in WEIGHTS)], ids=str)
def test_a_weighted_loss_does_not_depend_on_what_is_predicted(make, weight):
  """One estimate of the data, given as a velocity, as data or as noise, compared as anything: one loss under a weight,
  weight |x0 - estimate|^2; without a weight the loss is that of what is compared."""
  path, x0, eps = make(), normal(0, 5, 4), normal(1, 5, 4)
  tau = jnp.asarray([0.0805, 0.2005, 0.5005, 0.7005, 0.9505])
  x, guess = path.mix(x0, eps, tau), x0 + normal(2, 5, 4)
  level = None if weight is None else weight(path.log_snr(tau), path.log_snr_slope(tau))[:, None]
  for predict, compare in itertools.product(KINDS[:3], KINDS[:3]):
    out = path.convert(guess, "data", predict, x, tau)
    ((error, weighs),) = Process(path, predict, compare, weight).terms(out, x0, eps, x, tau).values()
    plain = np.square(guess - x0) * np.asarray(path.unit(compare, tau))[:, None] ** 2
    expected = plain if level is None else level * np.square(guess - x0)
    assert weighs == 1.0 and np.allclose(error, expected, rtol=1e-6)
  own, _ = Process(path, "noise", None, None).terms(eps, x0, eps, x, tau)["flow"]
  assert np.abs(own).max() < 1e-20


def test_weights_by_hand():
  snr, slope = np.array([1e-3, 0.5, 1.0, 7.0, 200.0]), np.array([3.0, 1.0, 2.0, 5.0, 0.5])
  noise = snr / (1 + snr)  # sigmoid of log-SNR
  for weight, expected in [
    (Unit("data"), np.ones(5)),
    (Unit(), snr),
    (Unit("rotation"), 1 + snr),
    (Unit("straight"), (1 + np.sqrt(snr)) ** 2),
    (MinSNR(5.0), np.minimum(snr, 5)),
    (MaxSNR(), np.maximum(snr, 1)),
    (P2(0.5, 2.0), snr / (2 + snr) ** 0.5),
    (Sigmoid(), slope / 2 * noise),
    (Sigmoid(-1.0), slope / 2 * snr / (1 + snr * np.e)),
    (EDMWeight(0.5), (1 / snr + 0.25) / (0.25 / snr)),  # (s^2 + d^2) / (s d)^2
    (Likelihood(), slope * snr / 2),
  ]:
    assert np.allclose(weight(jnp.log(snr), jnp.asarray(slope)), expected, rtol=1e-12), weight


@pytest.mark.parametrize(
  ("path", "weight", "other", "factor"),
  [
    (Linear(), Unit("straight"), {"compare": "velocity"}, 1.0),
    (Cosine(0.0), Unit("rotation"), {"compare": "velocity"}, (np.pi / 2) ** 2),
    (Betas(), Unit("noise"), {"compare": "noise"}, 1.0),
    (ShiftedCosine(128), Unit("data"), {"compare": "data"}, 1.0),
    (Exploding(80.0), EDMWeight(0.5), {"predict": "edm"}, 1.0),
    (Linear(), EDMWeight(0.5), {"predict": "edm"}, 1.0),
  ],
)
def test_a_weight_of_the_data_is_a_unit_weight_of_another_error(path, weight, other, factor):
  """The same network, with the weight by name and by what is compared."""
  x0, eps, out = normal(0, 4, 3), normal(1, 4, 3), normal(2, 4, 3)
  tau = jnp.asarray([0.05, 0.3, 0.7, 0.95])
  x = path.mix(x0, eps, tau)
  predict = other.get("predict", "velocity")
  named = Process(path, predict, weight=weight).terms(out, x0, eps, x, tau)["flow"][0]
  compared = Process(path, **{"predict": predict} | other).terms(out, x0, eps, x, tau)["flow"][0]
  assert np.allclose(factor * named, compared, rtol=1e-9)


@BY_NAME
@pytest.mark.parametrize("weight", [Likelihood(), Sigmoid(-1.0)], ids=str)
def test_weights_with_the_slope_are_integrals_over_log_snr(make, weight):
  """The loss of an estimate whose error depends on log-SNR alone is the same on every path."""
  path, levels = make(), np.linspace(-4, 4, 4001)
  error = lambda level: np.cos(np.pi * level / 8) ** 4  # nothing at the ends
  by_level = np.trapezoid(error(levels) * np.asarray(weight(jnp.asarray(levels), jnp.ones(4001))), levels)
  tau = path.time(levels)
  middle = (tau[1:] + tau[:-1]) / 2
  values = error(path.log_snr(middle)) * np.asarray(Process(path, weight=weight).data_weight(jnp.asarray(middle)))
  assert np.sum(values * -np.diff(tau)) == pytest.approx(by_level, rel=1e-4)  # the slopes of `Betas` have steps


@BY_NAME
@pytest.mark.parametrize("weight", [make() for make in WEIGHTS], ids=str)
def test_a_loss_is_finite_at_both_ends(make, weight):
  with jax.enable_x64(False):
    path, x = make(), jnp.asarray(normal(0, 2, 3), jnp.float32)
    tau = jnp.asarray([0.0, 1.0])
    for predict in KINDS[:3]:
      error, _ = Process(path, predict, weight=weight).terms(x, x, x, path.mix(x, x, tau), tau)["flow"]
      assert np.isfinite(error).all(), predict

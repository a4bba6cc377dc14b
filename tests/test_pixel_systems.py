"""Systems on pixels: sizes of the papers, the toy of JiT, the shift of simple diffusion, and their units."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.priors import edm
from experiments.raw import jit
from latents.diffusion import Clipped, Exploding, Heun, Linear, Process, ShiftedCosine, Uniform
from latents.errors import UserError
from latents.nn.conv import halved
from latents.priors import FlowPrior
from latents.types import Latent
from tests.test_nn import KEY, normal

RNGS = {"prior": KEY}


@pytest.mark.parametrize(("size", "millions"), [("B", 131), ("L", 459), ("H", 953)])
def test_jits_networks_have_the_papers_sizes(size, millions: int):
  model, given = jit.network(size, 1000), {"label": jnp.zeros(1, jnp.int32)}
  params = jax.eval_shape(model.init, KEY, jnp.zeros((1, 256, 256, 3)), jnp.zeros(1), given)
  assert round(sum(x.size for x in jax.tree.leaves(params)) / 1e6) == millions


@pytest.mark.parametrize("noise", [1.0, 0.25, 2.0])
def test_jits_weight_is_that_of_its_velocity(noise: float):
  """v_hat - v = (data - data_hat) / max(tau, 0.05), for both with the same divisor; a path with noise of any scale."""
  tau = jnp.array([0.01, 0.05, 0.3, 0.8, 0.999])
  process = Process(Linear(noise), "data", weight=Clipped(0.05, noise))
  x0, eps, out = normal(5, 7), normal(5, 7, seed=1), normal(5, 7, seed=2)
  x = process.path.mix(x0, eps, tau)
  by_hand = ((x - out) - (x - x0)) / jnp.maximum(tau, 0.05)[:, None]
  found = process.terms(out, x0, eps, x, tau)["flow"][0]
  assert np.abs(found / by_hand**2 - 1).max() < 1e-4
  # without the clip it is the velocity's error
  exact = Process(Linear(noise), "data", compare="velocity").terms(out, x0, eps, x, tau)["flow"][0]
  assert np.abs(exact[2:] / by_hand[2:] ** 2 - 1).max() < 1e-3


def test_noise_of_another_scale_is_data_of_another_scale():
  """z_tau / s of (x0, s eps) is that of (x0 / s, eps): the same log-SNR at every time."""
  x0, eps, tau = normal(5, 7), normal(5, 7, seed=1), jnp.linspace(0.1, 0.9, 5)
  assert np.abs(Linear(4.0).mix(x0, eps, tau) / 4 - Linear().mix(x0 / 4, eps, tau)).max() < 1e-6
  assert np.abs(Linear(4.0).log_snr(tau) - Linear().log_snr(tau) + 2 * np.log(4)).max() < 1e-5
  assert Linear(4.0).scale == 4.0
  with pytest.raises(UserError, match="deviation above 0"):
    Linear(0.0)


class Narrow(nn.Module):
  """Three hidden layers of `width` units, on the flat signal and its time."""

  width: int = 64
  conditions = ()
  classes: int = 0

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    flat = x.reshape(x.shape[0], -1)
    angle = t[:, None] * jnp.pi * jnp.arange(1, 5)
    time = jnp.concatenate([t[:, None], jnp.sin(angle), jnp.cos(angle)], -1)
    h = nn.Dense(self.width)(flat)
    for _ in range(3):
      h = h + nn.Dense(self.width)(nn.silu(h + nn.Dense(self.width)(time)))
    return nn.Dense(flat.shape[-1])(h).reshape(x.shape)


@pytest.mark.parametrize("predict", ["data", "velocity", "noise"])
def test_jits_toy_the_data_can_be_predicted_where_noise_and_velocity_cannot(predict):
  """Section 4.1: two numbers a point in 256 dimensions, by a fixed isometry; a network of 64 units.

  All three are compared by the velocity. The points are normal, with deviations 4 and 2 (to learn a shape in the plane
  takes longer than a test has): what matters is how far samples are from the plane, and how they are spread in it.
  """
  rng, dims, stds, steps = np.random.default_rng(0), 256, jnp.array([4.0, 2.0]), 600
  basis = jnp.asarray(np.linalg.qr(rng.normal(size=(dims, 2)))[0].T, jnp.float32)  # [2,dims]
  process = Process(Linear(), predict, compare="velocity")
  if predict == "data":
    process = Process(Linear(), predict, weight=Clipped(0.05))
  prior = FlowPrior(Narrow(), Uniform(), shift=1.0, sampler=Heun(30), process=process)

  def draw(key, batch):
    return Latent(z=(stds * jax.random.normal(key, (batch, 2)) @ basis)[:, None])

  params = prior.init({"params": KEY, **RNGS}, draw(KEY, 4), None, train=True, method="loss")
  rule = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

  def step(carry, key):
    params, opt = carry
    a, b = jax.random.split(key)
    find = lambda p: prior.apply(p, draw(a, 128), None, train=True, method="loss", rngs={"prior": b})["flow"]
    updates, opt = rule.update(jax.grad(find)(params), opt)
    return (optax.apply_updates(params, updates), opt), None

  keys = jax.random.split(KEY, steps)
  params, _ = jax.jit(lambda p: jax.lax.scan(step, (p, rule.init(p)), keys)[0])(params)
  sample = lambda p: prior.apply(p, None, shape=(1, dims), count=500, method="sample", rngs=RNGS).z[:, 0]
  z = jax.jit(sample)(params)
  points = z @ basis.T
  off = float(np.linalg.norm(z - points @ basis, axis=1).mean())
  print(predict, off, points.std(0))
  if predict == "data":
    assert off < 0.5 and np.abs(points.std(0) / stds - 1).max() < 0.5
  else:
    assert off > 5.0


@pytest.mark.parametrize("side", [128, 256, 512])
def test_the_picture_averaged_to_64_has_the_cosine_schedule_of_64(side: int):
  """Means over n x n cells keep the signal and divide the noise by n: log-SNR rises by 2 ln n, which the shift took."""
  tau = np.linspace(0.02, 0.98, 25)
  factor = side // 64
  path = ShiftedCosine(side=side)
  averaged = 2 * np.log(path.alpha(tau) / (path.sigma(tau) / factor))
  assert np.abs(averaged - (-2 * np.log(np.tan(np.pi * tau / 2)))).max() < 1e-9
  noise = normal(4, side, side, 1)
  for _ in range(int(np.log2(factor))):
    noise = halved(noise)
  assert noise.shape == (4, 64, 64, 1) and abs(float(noise.std()) * factor - 1) < 0.02


def test_a_rotation_is_the_velocity_by_its_angle():
  path, tau = ShiftedCosine(side=256), jnp.array([0.1, 0.5, 0.9])
  x0, eps = normal(3, 9), normal(3, 9, seed=1)
  x, process = path.mix(x0, eps, tau), Process(path, "rotation")
  alpha, sigma = path.alpha(tau)[:, None], path.sigma(tau)[:, None]
  turned = alpha * eps - sigma * x0
  assert np.abs(process.terms(turned, x0, eps, x, tau)["flow"][0]).max() < 1e-6
  assert np.abs(process.data(turned, x, tau) - x0).max() < 1e-4
  out = normal(3, 9, seed=2)
  assert np.abs(process.terms(out, x0, eps, x, tau)["flow"][0] / (out - turned) ** 2 - 1).max() < 1e-3
  by_noise = Process(path, "rotation", compare="noise").terms(out, x0, eps, x, tau)["flow"][0]
  assert np.abs(by_noise - (sigma * x + alpha * out - eps) ** 2).max() < 1e-4


def test_edms_units_are_the_papers_for_data_twice_as_large():
  """A network that ignores the constant in what it is told: the same loss and the same estimate, in twice the units."""
  theirs, ours = Process(Exploding(80.0), "edm", data_std=0.5), edm.PROCESS
  x0, eps, out = normal(5, 7), normal(5, 7, seed=1), normal(5, 7, seed=2)
  tau = jnp.array([1e-4, 1e-3, 0.01, 0.1, 1.0])
  one, two = theirs.path.mix(x0 / 2, eps, tau), ours.path.mix(x0, eps, tau)
  assert np.abs(two / one - 2).max() < 1e-5
  assert np.abs(theirs.inputs(one, tau)[0] - ours.inputs(two, tau)[0]).max() < 1e-5
  told = ours.inputs(two, tau)[1] - theirs.inputs(one, tau)[1]
  assert np.abs(told * 4000 - np.log(2)).max() < 1e-3
  losses = [p.terms(out, x, eps, n, tau)["flow"][0] for p, x, n in ((theirs, x0 / 2, one), (ours, x0, two))]
  assert np.abs(losses[0] - losses[1]).max() < 1e-2 * float(losses[0].max())
  assert np.abs(2 * theirs.data(out, one, tau) - ours.data(out, two, tau)).max() < 1e-3
  assert edm.GRID(18)[:-1] * ours.path.most == pytest.approx(2 * 80 * edm.GRID(18)[:-1])

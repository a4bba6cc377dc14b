"""What a flow prior has besides loss and samples: a likelihood, a guide, guidance on a share of the channels."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import latents
from latents.backbones import DiT
from latents.declare import Start, addresses, dumps, loads
from latents.diffusion import (
  Betas,
  Continuous,
  Cosine,
  Density,
  Euler,
  Exploding,
  Karras,
  Linear,
  LogitNormal,
  LogNormal,
  Process,
  Resampled,
  ShiftedCosine,
)
from latents.errors import UserError
from latents.priors import FlowPrior
from latents.runs import run
from latents.types import Latent
from latents.use import prior_loss
from tests import micro
from tests.test_nn import normal
from tests.test_score import model

KEY = jax.random.key(0)
LABEL = {"label": jnp.array([0, 1, 2, 0])}
STD = 0.4


class Gaussian(nn.Module):
  """The exact estimate, as `predict`, of data N(label, STD^2) on a path; without a label N(0.5, STD^2)."""

  process: Process
  classes: int = 3
  conditions = ("label",)

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    path, t = self.process.path, t.reshape(-1, *[1] * (x.ndim - 1))
    label = jnp.full(len(x), 0.5) if cond is None else jnp.where(cond.get("drop", False), 0.5, cond["label"])
    mean, a, s = label.reshape(t.shape), path.alpha(t), path.sigma(t)
    data = mean + a * STD**2 / (a**2 * STD**2 + s**2) * (x - a * mean)
    noise = s / (a**2 * STD**2 + s**2) * (x - a * mean)
    return {"data": data, "noise": noise, "velocity": path.alpha_slope(t) * data + path.sigma_slope(t) * noise}[
      self.process.predict
    ]


FLOW = Process()


def prior_of(process: Process = FLOW, **fields) -> FlowPrior:
  return FlowPrior(Gaussian(process), process=process, **fields)


def nll(prior, z, cond=None, **options) -> Any:
  return prior.apply({}, Latent(z=z, **options), cond, method="nll", rngs={"prior": KEY})


# -- likelihood


@pytest.mark.parametrize(
  ("process", "grid"),
  [
    (Process(), None),
    (Process(Linear(), "data"), None),
    (Process(Continuous(), "noise"), None),
    (Process(Cosine(0.0), "velocity"), None),
    (Process(ShiftedCosine(128), "velocity"), None),
    (Process(Exploding(80.0), "data"), Karras()),
  ],
  ids=str,
)
def test_the_likelihood_of_a_gaussian_is_its_density(process, grid):
  """Of each example, to 1e-3 nats, with the exact trace. The flow's map is x_1 = alpha m + S (z - m), S the ratio of
  deviations; where a path ends without data this is N(m, STD^2), else that with the start's neglected mean."""
  fields = {} if grid is None else {"grid": grid}
  prior = prior_of(process, ode=Density(60, 0), shift=1.0, **fields)
  assert prior.likelihood and not prior_of(process).likelihood
  z = 1.0 + STD * normal(5, 2, 2)
  found = nll(prior, z, {"label": jnp.array([1, 1, 1, 0, 2])})
  path, mean = process.path, np.array([1, 1, 1, 0, 2]).reshape(5, 1, 1)
  alpha, sigma = float(path.alpha(1.0)), float(path.sigma(1.0))
  ratio = math.sqrt(alpha**2 * STD**2 + sigma**2) / STD
  end = (alpha * mean + ratio * (np.asarray(z) - mean)) / path.scale
  expected = 0.5 * (end**2).sum((1, 2)) + 4 * (math.log(path.scale / ratio) + 0.5 * math.log(2 * math.pi))
  assert found.shape == (5,) and np.abs(found - expected).max() < 1e-3


class Linearly(nn.Module):
  """v = x W: the divergence is the trace of W, the density that of a Gaussian that was turned and stretched."""

  classes: int = 0
  conditions = ()

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    return x @ jnp.asarray([[0.3, 1.0, 0.0], [-1.0, 0.1, 0.5], [0.2, 0.0, -0.2]])


def test_random_signs_estimate_the_trace():
  z, exact = normal(3, 3), FlowPrior(Linearly(), ode=Density(10, 0))
  trace = np.asarray(nll(exact, z))
  end = z @ jax.scipy.linalg.expm(jnp.asarray([[0.3, 1.0, 0.0], [-1.0, 0.1, 0.5], [0.2, 0.0, -0.2]]))
  assert np.abs(trace - (0.5 * (end**2).sum(1) + 1.5 * math.log(2 * math.pi) - 0.2)).max() < 0.01
  values = np.stack([np.asarray(nll(FlowPrior(Linearly(), ode=Density(10, p)), z)) for p in (1, 4000)])
  assert np.abs(values[1] - trace).max() < 0.05 < np.abs(values[0] - trace).max()
  two = np.asarray(nll(FlowPrior(Linearly(), ode=Density(10)), z[:2]))
  assert np.abs(two - values[0][:2]).max() < 1e-5  # whatever the batch


def test_a_likelihood_stands_beside_the_held_out_loss_in_nats_and_bits():
  made = model()
  stage: Any = made.experiment.stage2
  told = model(stage2=dataclasses.replace(stage, prior=stage.prior.clone(ode=Density(3))))
  plain, found = prior_loss.measure(made), prior_loss.measure(told)
  assert set(found) - set(plain) == {"nats_per_element", "bits_per_element", "bits_per_example", "bits_per_dim"}
  assert found["flow"] == pytest.approx(plain["flow"], rel=1e-5)
  assert found["bits_per_element"] == pytest.approx(found["nats_per_element"] / math.log(2))
  assert np.isfinite(list(found.values())).all()
  assert addresses(told.experiment) == addresses(made.experiment)  # it makes no other prior
  assert loads(dumps(told.experiment), "x") == told.experiment and '"ode"' not in dumps(made.experiment)


# -- guidance


def one_step(prior, guidance: float, cond: Any = LABEL) -> Any:
  """The start and the velocity of a sample in one Euler step."""
  draw = lambda prior, scale: (
    prior.apply({}, cond, shape=(2, 3), guidance=scale, method="sample", rngs={"prior": KEY}).z
  )
  still = prior.clone(backbone=Still(), guide=None, guided_channels=None)
  start = draw(still, 1.0)
  return start, start - draw(prior, guidance)


class Still(nn.Module):
  """Nothing moves."""

  classes: int = 3
  conditions = ("label",)

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    return 0 * x


def test_a_guide_is_led_away_from_under_the_same_condition():
  guide = FlowPrior(Still())
  prior = prior_of(sampler=Euler(1), guide=guide)
  start, mixed = one_step(prior, 3.0)
  own: Any = Gaussian(Process()).apply({}, start, jnp.ones(4), LABEL)
  assert np.abs(mixed - 3.0 * own).max() < 1e-5  # 0 + 3 (own - 0)
  assert np.abs(one_step(prior, 1.0)[1] - own).max() < 1e-5 and np.abs(one_step(prior, 0.0)[1]).max() < 1e-6
  unlabelled = FlowPrior(Still(0), sampler=Euler(1), guide=FlowPrior(Still(0)))
  assert np.abs(one_step(unlabelled, 2.0, None)[1]).max() < 1e-6  # needs no condition


def test_guidance_on_the_first_channels_alone():
  prior = prior_of(sampler=Euler(1), guided_channels=2)
  start, mixed = one_step(prior, 2.5)
  exact: Any = Gaussian(Process())
  u, c = (exact.apply({}, start, jnp.ones(4), cond) for cond in (None, LABEL))
  whole = u + 2.5 * (c - u)
  assert np.abs(mixed[..., :2] - whole[..., :2]).max() < 1e-5 and np.abs(mixed[..., 2:] - c[..., 2:]).max() < 1e-5
  assert np.abs(one_step(prior.clone(guided_channels=3), 2.5)[1] - whole).max() < 1e-5


def test_a_guide_comes_from_a_stage_of_its_own(tmp_path):
  """The prior as it was, guided by a smaller one: nothing is trained again, and the samples are others."""
  base: Any = micro.experiment(gan=False)
  one, two = (dataclasses.replace(stage, steps=2) for stage in (base.stage1, base.stage2))
  small = dataclasses.replace(two, prior=FlowPrior(DiT(depth=1, width=8, heads=2, patch=2, classes=10)))
  guided = dataclasses.replace(
    two,
    prior=FlowPrior(backbone=two.prior.backbone.clone(), guide=small.prior.clone(), guidance=2.0, sampler=Euler(3)),
    start=(Start(stage=two, source="backbone", into="backbone"), Start(stage=small, into="guide")),
    trained=("backbone",),
    steps=0,
  )
  made = dataclasses.replace(base, stage1=one, stage2=guided)
  folder = run.run(made, tmp_path, None, "a test")
  loaded = latents.load(folder)
  assert loads(dumps(made), "x") == made
  assert loaded.sample(labels=[1, 2]).shape == (2, 16, 16, 1)
  weights = loaded.prior["params"]
  assert set(weights) == {"backbone", "guide"} and set(weights["guide"]) == {"backbone"}


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"guide": FlowPrior(Still(), process=Process(Betas(), "noise"))}, "a guide is a FlowPrior of the same process"),
    ({"guide": Still()}, "not Still"),
    ({"guided_channels": 4}, "guided_channels is 4: the latent has 3 channels"),
    ({"grid": Karras()}, r"levels of noise on the path Exploding\(80\)"),
    ({"times": LogNormal()}, r"levels of noise on the path Exploding\(80\)"),
  ],
)
def test_guidance_and_levels_that_cannot_be_are_one_line(fields, message: str):
  with pytest.raises(UserError, match=message) as found:
    prior_of(sampler=Euler(1), **fields).apply(
      {}, LABEL, shape=(2, 3), guidance=2.0, method="sample", rngs={"prior": KEY}
    )
  assert "\n" not in str(found.value)


def test_a_likelihood_that_cannot_be_is_one_line():
  with pytest.raises(UserError, match="steps is at least 1"):
    Density(0)
  with pytest.raises(UserError, match="no likelihood of latents of which parts are masked"):
    nll(prior_of(ode=Density(2)), normal(2, 3, 3), mask=jnp.ones((2, 3), bool))
  with pytest.raises(UserError, match=r"levels of noise"):
    prior_of(times=LogNormal(most=20.0)).apply(
      {}, Latent(z=normal(2, 3)), None, train=True, method="loss", rngs={"prior": KEY}
    )
  assert prior_of(times=LogitNormal()).likelihood is False


def test_levels_of_noise_are_not_shifted_by_the_size_of_the_latent():
  """Of 128 x 128 numbers other times are shifted by 2; a network that gives tau shows the times of sampling."""
  process = Process(Exploding(80.0), "velocity")
  draw = lambda prior: prior.apply({}, None, shape=(128, 128), method="sample", rngs={"prior": KEY}).z
  free, fixed = (draw(FlowPrior(Clock(), shift=s, process=process, sampler=Euler(2))) for s in (None, 1.0))
  assert np.array_equal(free, fixed)
  linear, shifted = (draw(FlowPrior(Clock(), shift=s, sampler=Euler(2))) for s in (1.0, None))
  assert np.abs(linear - shifted).max() > 0.01


class Clock(nn.Module):
  """The velocity is the time."""

  classes: int = 0
  conditions = ()

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    return jnp.zeros_like(x) + t.reshape(-1, 1, 1)


# -- times by importance


def test_importance_is_the_same_objective_with_less_variance():
  """Losses 0.1, 1, 10 at three steps: after each has been seen often enough, chances follow them, weights undo it."""
  times, sizes = Resampled(3, decay=0.5, even=0.03, first=4), jnp.array([0.1, 1.0, 10.0])
  held = times.start()
  assert np.allclose(times.chances(held), 1 / 3)
  for number in range(12):
    n = jnp.array([number % 3 + 1])
    held = times.follow(held, n, sizes[n - 1])
    assert np.allclose(times.chances(held), 1 / 3) or number == 11
  assert np.allclose(times.chances(held), 0.97 * sizes / sizes.sum() + 0.01, rtol=1e-5)
  number, weight = times.draw(KEY, 20_000, held)
  values = np.asarray(weight * sizes[number - 1])
  plain = np.asarray(sizes[jax.random.randint(KEY, (20_000,), 0, 3)])
  assert values.mean() == pytest.approx(float(sizes.mean()), rel=0.02) and values.std() < plain.std() / 3
  # the average: two losses of one step in a batch are their mean, and move it twice
  two = times.follow(held, jnp.array([2, 2]), jnp.array([3.0, 5.0]))
  assert two["square"][1] == pytest.approx(0.25 * 1 + 0.75 * 17) and two["square"][0] == held["square"][0]
  with pytest.raises(UserError, match="decay is in"):
    Resampled(decay=1.0)


def test_a_prior_holds_the_losses_of_its_times():
  prior, z = prior_of(Process(Betas(), "noise"), times=Resampled(4, first=1), shift=1.0), normal(64, 2, 3)

  def value(variables, train: bool = True, **options) -> Any:
    rngs = {"prior": KEY, "dropout": KEY}
    return prior.apply(variables, Latent(z=z), None, train=train, method="loss", rngs=rngs, **options)

  start: Any = prior.init({"params": KEY, "prior": KEY, "dropout": KEY}, Latent(z=z), None, train=True, method="loss")
  assert int(start["losses"]["times"]["seen"].sum()) == 0
  first: Any = value(start, mutable=["losses"])
  held = first[1]["losses"]["times"]
  assert int(held["seen"].sum()) == 64 and (held["square"] > 0).all()
  second: Any = value(first[1], mutable=["losses"])
  assert int(second[1]["losses"]["times"]["seen"].sum()) == 128 and second[0]["flow"] != first[0]["flow"]
  assert value(first[1], train=False)["flow"] == value(start, train=False)["flow"]  # held-out losses: all alike
  with pytest.raises(UserError, match="in `trained`"):
    value(start)


def test_a_run_with_times_by_importance_keeps_them(tmp_path):
  base: Any = micro.experiment(gan=False)
  process = Process(Betas(), "noise")
  prior = base.stage2.prior.clone(process=process, times=Resampled(5, first=1), shift=1.0)
  one, two = dataclasses.replace(base.stage1, steps=1), dataclasses.replace(base.stage2, prior=prior, steps=3)
  loaded = latents.load(run.run(dataclasses.replace(base, stage1=one, stage2=two), tmp_path, None, "a test"))
  assert int(np.sum(loaded.prior["losses"]["times"]["seen"])) == 3 * micro.BATCH

"""Consistency training: what it has in common with distillation, and what is its own."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from latents.diffusion import Exploding, Process
from latents.errors import UserError
from latents.priors import ConsistencyTraining, Doubling, PseudoHuber, Rising, Shortcut, Squared
from latents.train.build_step import build_step
from latents.train.checkpoint import Checkpoints
from latents.train.sharding import place_batch
from latents.train.state import flatten
from latents.types import Latent
from tests import micro
from tests.test_consistency import KEY, MEAN, RNGS, STD, Ending, Scaled, loss, made
from tests.test_nn import normal
from tests.test_priors import Exact
from tests.test_train_steps import data


def training(student, **fields) -> ConsistencyTraining:
  plain = {"intervals": Doubling(8, 8, over=1), "level": None, "weighting": "one", "distance": Squared()}
  return ConsistencyTraining(backbone=student, **{**plain, **fields})


def first(prior, z):
  return prior.init({"params": KEY, **RNGS}, Latent(z=z), None, train=True, method="loss")


def test_intervals_double_and_rise():
  ict = Doubling(over=400_000)
  assert ict.counts == (10, 20, 40, 80, 160, 320, 640, 1280)
  at = lambda schedule, update: schedule.counts[int(schedule(jnp.asarray(update)))]
  assert [at(ict, k) for k in (0, 49_999, 50_000, 399_999, 10**6)] == [10, 10, 20, 1280, 1280]
  assert Doubling(10, 50, over=9).counts == (10, 20, 40, 50)
  song = Rising(2, 150, over=800_000)
  wanted = lambda k: int(np.ceil(np.sqrt(k / 800_000 * (151**2 - 4) + 4) - 1))
  assert [at(song, k) for k in (0, 1, 1000, 12_345, 500_000, 800_000, 10**6)] == [
    *map(wanted, (0, 1, 1000, 12_345, 500_000, 800_000)),
    150,
  ]


def test_levels_are_as_much_of_the_normal_as_lies_between_two_times():
  prior = training(Scaled(), intervals=Doubling(4, 8, over=2), level=(-0.3, 1.2))
  times, chances = prior._tables((6,))
  assert np.allclose(times[0, :5], [0, 0.25, 0.5, 0.75, 1]) and np.array_equal(times[0, 5:], np.ones(4))
  for k, count in enumerate((4, 8)):
    logit = scipy.special.logit(np.arange(1, count) / count)  # ln(sigma / alpha) on the linear path
    assert np.allclose(chances[k, : count - 1], scipy.stats.norm.cdf(logit, -0.3, 1.2), atol=1e-6)
    assert (chances[k, count - 1 :] == 1).all()
  assert np.allclose(training(Scaled())._tables((6,))[1], np.arange(1, 9) / 8)


def test_edm_scalings_are_the_identity_at_the_least_noise():
  """c_skip(smin) = 1, c_out(smin) = 0; elsewhere sd^2 / ((s - smin)^2 + sd^2) and sd (s - smin) / sqrt(s^2 + sd^2)."""
  process, x, out = Process(Exploding(80.0), "edm", least=0.002), normal(3, 5), normal(3, 5) + 1
  s = jnp.array([0.002, 0.7, 30.0])
  skip, scale = 0.25 / ((s - 0.002) ** 2 + 0.25), 0.5 * (s - 0.002) / jnp.sqrt(s**2 + 0.25)
  found = process.data(out, x, s / 80)
  assert np.abs(found - (skip[:, None] * x + scale[:, None] * out)).max() < 1e-5
  assert np.abs(found[0] - x[0]).max() < 1e-7
  assert np.array_equal(process.data(out, x, jnp.zeros(3)), x)
  seen, told = process.inputs(x, s / 80)
  assert np.allclose(1000 * told, jnp.log(s) / 4, atol=1e-6)
  assert np.allclose(seen, x / jnp.sqrt(s**2 + 0.25)[:, None], rtol=1e-5)


def test_weights_are_one_over_the_gap_of_the_noise():
  z, params = normal(64, 5), {"params": {"backbone": {"weight": jnp.asarray(0.7)}}}
  state = {"target": {"updates": jnp.asarray(0)}}

  def value(**fields) -> float:
    terms, _ = loss(training(Scaled(), **fields), {**params, **state}, z, mutable=["target"])
    return float(terms["consistency"])

  assert value(weighting="gap") == pytest.approx(8 * value(), rel=1e-5)
  assert value(distance=PseudoHuber(1e-6)) > value() ** 0.5 / 2
  one = PseudoHuber(0.3)(jnp.array([0.0, 0.16]))
  assert np.allclose(one, [0.0, 0.2])


class Bent(nn.Module):
  """weight tanh(2 x): no line, so that a mean over noise is not the estimate at the mean."""

  classes: int = 0
  conditions = ()

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    return self.param("weight", nn.initializers.constant(0.5), ()) * jnp.tanh(2 * x)


def test_the_gradient_is_that_of_distillation_with_the_exact_flow_as_intervals_grow_fine():
  """Song et al., theorem 2: x mixed at the time before is where the flow goes, up to noise whose mean is 0."""
  rng = np.random.default_rng(0)
  z, eps = MEAN + STD * jnp.asarray(rng.normal(size=(400_000, 1)), jnp.float32), rng.normal(size=(400_000, 1))
  eps, prior = jnp.asarray(eps, jnp.float32), made(Bent(), Exact(), decay=0.0)
  path = prior.process.path

  def apart(intervals: int) -> float:
    now = jnp.full(len(z), 0.6)
    then = now - 1 / intervals
    x, ones = path.mix(z, eps, now), jnp.ones(len(z))

    def gradient(earlier):
      value = lambda w: prior.apply(
        {"params": {"backbone": {"weight": w}}}, x, earlier, now, then, ones, None, None, decay=0.0, train=False,
        method="_compare",
      )  # fmt: skip
      return float(jax.grad(value)(0.5))

    taught = gradient(prior.apply({}, x, now, then, None, method="_teacher_step"))
    return abs(gradient(path.mix(z, eps, then)) - taught) / abs(taught)

  coarse, fine = apart(4), apart(64)
  assert coarse > 0.02 and fine < coarse / 4 and fine < 0.02


class Mapped(nn.Module):
  """The velocity of f(x, tau) = slope f* + shift, f* where the flow of N(MEAN, STD^2) ends; f(x, 0) = x at slope 1."""

  classes: int = 0
  conditions = ()

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    shift = self.param("shift", nn.initializers.zeros, ())
    bent = self.param("bent", nn.initializers.zeros, ())
    t = t.reshape(-1, *[1] * (x.ndim - 1))
    end = x - t * Ending().apply({}, x, t, None)
    return (x - end) / jnp.maximum(t, 1e-6) - shift - bent * (end - MEAN)


def test_the_map_of_the_flow_is_where_training_stands_still():
  z = MEAN + STD * normal(100_000, 4)
  prior = training(Mapped(), intervals=Doubling(40, 40, over=1))

  def gradient(shift, bent):
    params = {"backbone": {"shift": jnp.asarray(shift), "bent": jnp.asarray(bent)}}
    value = lambda p: loss(prior, {"params": p, "target": {"updates": jnp.asarray(0)}}, z, mutable=["target"])[0]
    return jax.tree.leaves(jax.grad(lambda p: value(p)["consistency"])(params))

  there, shifted, bent = gradient(0.0, 0.0), gradient(0.2, 0.0), gradient(0.0, 0.5)
  bent_slope, shift_slope = bent[0], shifted[1]  # leaves by name: bent, shift
  assert shift_slope > 0 and bent_slope > 0
  assert abs(there[0]) < 0.05 * bent_slope and abs(there[1]) < 0.05 * shift_slope


def test_passes_are_counted_and_the_average_goes_on_with_its_own_rate():
  """Algorithm 3: decay^((s_0) / N) with N = intervals + 1 points."""
  prior, z = training(Scaled(), intervals=Doubling(1, 2, over=2), decay=0.5), normal(4, 3)
  state = {"target": first(prior, z)["target"]}
  assert int(state["target"]["updates"]) == 0
  wanted = None
  for number, (weight, keep) in enumerate(((2.0, 0.5), (1.0, 0.5 ** (2 / 3)), (5.0, 0.5 ** (2 / 3))), 1):
    params = {"params": {"backbone": {"weight": jnp.asarray(weight)}}}
    _, state = loss(prior, {**params, **state}, z, mutable=["target"])
    wanted = weight if wanted is None else keep * wanted + (1 - keep) * weight
    assert int(state["target"]["updates"]) == number
    assert float(state["target"]["average"]["params"]["weight"]) == pytest.approx(wanted, rel=1e-6)
  _, same = loss(prior, {**params, **state}, z, train=False, mutable=["target"])
  assert jax.tree.all(jax.tree.map(np.array_equal, same, state))


def test_mistakes_of_training_are_one_clear_line():
  z = normal(2, 3)
  good = first(training(Scaled(), intervals=Doubling(2, 4, over=4)), z)
  for message, prior in {
    "velocity or noise": training(Scaled(), process=Process(predict="data")),
    '"updates" in `trained`': training(Scaled(), intervals=Doubling(2, 4, over=4)),
  }.items():
    with pytest.raises(UserError, match=message):
      loss(prior, good, z)
  for wrong in (lambda: Doubling(0, 10), lambda: Doubling(20, 10), lambda: Rising(1, 10), lambda: Doubling(over=0)):
    with pytest.raises(UserError, match="rise from at least 1"):
      wrong()


@pytest.mark.parametrize("name", ["training", "shortcut"])
def test_what_is_kept_in_target_goes_through_checkpoints_bitwise(tmp_path, name):
  """Resumed in the middle it is the uninterrupted run, counter and average with it."""
  base = micro.experiment(gan=False)
  backbone = base.stage2.prior.backbone.clone()
  prior = (
    training(backbone, intervals=Doubling(2, 4, over=2), decay=0.9)
    if name == "training"
    else Shortcut(backbone=backbone, finest=4, decay=0.9)
  )
  program = build_step(
    dataclasses.replace(base, stage2=dataclasses.replace(base.stage2, prior=prior)), 2, micro.one_device()
  )
  variables = jax.device_get(build_step(base, 1, micro.one_device()).init().ema)
  arrays = {"variables": variables, "mean": jnp.zeros(4), "std": jnp.ones(4), "losses": {}, "fixed": {}}
  batches = [place_batch(b, micro.BATCH, program.mesh) for b in data(base, base.stage2, 3)]
  state = program.init()
  state, _ = program.step(state, arrays, batches[0])
  store = Checkpoints(tmp_path / "c")
  store.save(1, state)
  store.finish()
  for batch in batches[1:]:
    state, _ = program.step(state, arrays, batch)
  again = store.restore(program.state)
  store.close()
  for batch in batches[1:]:
    again, _ = program.step(again, arrays, batch)
  a, b = flatten(jax.device_get(state)), flatten(jax.device_get(again))
  assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
  counts = [int(v) for k, v in a.items() if k.startswith("extra/") and k.endswith(("updates", "count"))]
  assert counts and set(counts) == {3}

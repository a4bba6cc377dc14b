"""Consistency distillation: what moves, what does not, and the answer where it is known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.diffusion import Betas, Consistency, Cosine, Linear, Process
from latents.errors import UserError
from latents.priors import ConsistencyDistillation, FlowPrior
from latents.types import Latent
from tests.test_nn import normal
from tests.test_priors import Exact

KEY = jax.random.key(0)
RNGS = {"prior": KEY, "dropout": KEY}
MEAN, STD = 0.5, 0.4  # what the field of `Exact` has without a label


class Scaled(nn.Module):
  """weight * x: one parameter."""

  classes: int = 0
  conditions = ()

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    return self.param("weight", nn.initializers.constant(0.3), ()) * x


class Ending(nn.Module):
  """The velocity (x - f) / tau of the true consistency function f of data N(MEAN, STD^2): where the flow ends."""

  classes: int = 0
  off: float = 0.0
  conditions = ()

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    t = t.reshape(-1, *[1] * (x.ndim - 1))
    end = MEAN + STD * (x - (1 - t) * MEAN) / jnp.sqrt((1 - t) ** 2 * STD**2 + t**2)
    return (x - end) / jnp.maximum(t, 1e-6) + self.off


def made(student, teacher, **fields) -> ConsistencyDistillation:
  return ConsistencyDistillation(backbone=student, teacher=FlowPrior(teacher), **fields)


def loss(prior, variables, z, train: bool = True, **options):
  return prior.apply(variables, Latent(z=z), None, train=train, method="loss", rngs=RNGS, **options)


@pytest.mark.parametrize("path", [Linear(), Betas(), Cosine()], ids=["linear", "betas", "cosine"])
@pytest.mark.parametrize("predict", ["velocity", "noise"])
def test_at_the_data_the_function_is_the_identity(path, predict):
  x, out = normal(4, 3), normal(4, 3)
  assert np.abs(Process(path, predict).data(out, x, jnp.zeros(4)) - x).max() < 2e-6


def test_only_the_student_feels_the_loss():
  prior, z = made(Scaled(), Scaled(), decay=0.5), normal(8, 6)
  variables = prior.init({"params": KEY, **RNGS}, Latent(z=z), None, train=True, method="loss")
  assert set(variables["params"]) == {"backbone", "teacher"}
  held = {**variables["target"]["average"], "count": jnp.asarray(1)}
  target = held["params"]

  def value(params, target):
    state = {"average": {**held, "params": target}}
    out, _ = loss(prior, {"params": params, "target": state}, z, mutable=["target"])
    return out["consistency"]

  own, average = jax.grad(value, (0, 1))(variables["params"], target)
  assert float(own["teacher"]["backbone"]["weight"]) == 0 and float(average["weight"]) == 0
  assert abs(float(own["backbone"]["weight"])) > 1e-3
  # the target weighs in the value all the same
  assert abs(value(variables["params"], {"weight": jnp.asarray(0.9)}) - value(variables["params"], target)) > 1e-3


def test_without_an_average_the_students_own_pass_is_a_constant():
  """The gradient with decay 0 is that against a target that stands still at the student's weights."""
  z, student = normal(8, 6), {"weight": jnp.asarray(0.7)}
  params = {"backbone": student, "teacher": {"backbone": {"weight": jnp.asarray(0.2)}}}
  still, moving = made(Scaled(), Scaled(), decay=1.0), made(Scaled(), Scaled(), decay=0.0)
  state = {"target": {"average": {"count": jnp.asarray(1), "params": student}}}
  one = jax.grad(lambda p: loss(still, {"params": p, **state}, z, mutable=["target"])[0]["consistency"])(params)
  two = jax.grad(lambda p: loss(moving, {"params": p}, z)["consistency"])(params)
  assert np.isclose(one["backbone"]["weight"], two["backbone"]["weight"], rtol=1e-5) and one["backbone"]["weight"] != 0


def test_the_average_begins_as_the_student_and_moves_once_a_training_pass():
  prior, z = made(Scaled(), Scaled(), decay=0.75), normal(2, 3)
  variables = prior.init({"params": KEY, **RNGS}, Latent(z=z), None, train=True, method="loss")
  teacher, state = variables["params"]["teacher"], {"target": variables["target"]}
  assert int(state["target"]["average"]["count"]) == 0
  wanted = None
  for number, weight in enumerate((2.0, 1.0, 5.0), 1):  # weights that `start` or the optimiser gave
    params = {"backbone": {"weight": jnp.asarray(weight)}, "teacher": teacher}
    _, state = loss(prior, {"params": params, **state}, z, mutable=["target"])
    wanted = weight if wanted is None else 0.75 * wanted + 0.25 * weight
    assert int(state["target"]["average"]["count"]) == number
    assert float(state["target"]["average"]["params"]["weight"]) == pytest.approx(wanted)
  _, same = loss(prior, {"params": params, **state}, z, train=False, mutable=["target"])
  assert jax.tree.all(jax.tree.map(np.array_equal, same, state))


def test_the_true_function_has_the_least_loss_and_it_falls_with_finer_intervals():
  z = MEAN + STD * normal(4000, 16)
  value = lambda student, intervals: float(
    loss(made(student, Exact(), decay=0.0, intervals=intervals), {}, z)["consistency"]
  )
  coarse, fine = value(Ending(), 20), value(Ending(), 80)
  assert fine < coarse / 100 and coarse < 1e-2  # the step errs by 1/n^2, squared: 256
  for wrong in (Ending(off=0.5), Exact()):
    assert value(wrong, 80) > 20 * fine


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_true_function_samples_the_data(steps: int):
  prior = made(Ending(), Exact(), sampler=Consistency(steps))
  z = prior.apply({}, None, shape=(64, 64), count=4, method="sample", rngs=RNGS).z
  assert abs(z.mean() - MEAN) < 0.015 and abs(z.std() - STD) < 0.01


def test_the_guided_teacher_is_followed():
  """With labels: the teacher's step is u + s (c - u) of its own two passes; a student that gives that step's data."""
  z, label = normal(6, 5), jnp.array([0, 1, 2, 0, 1, 2])
  prior = ConsistencyDistillation(
    backbone=Exact(classes=3), teacher=FlowPrior(Exact(classes=3)), teacher_guidance=3.0, decay=0.0
  )
  now, then = jnp.full(6, 0.6), jnp.full(6, 0.5)
  step = prior.apply({}, z, now, then, {"label": label}, method="_teacher_step")
  field = lambda cond: Exact(classes=3).apply({}, z, now, cond)
  v = field(None) + 3.0 * (field({"label": label}) - field(None))
  assert np.abs(step - (z - 0.1 * v)).max() < 1e-5  # Euler's step on the linear path


def test_mistakes_are_one_clear_line():
  z = normal(2, 3)
  wrong = {
    "must be one": made(Scaled(), Scaled(), process=Process(Cosine())),
    "velocity or noise": made(Scaled(), Scaled(), process=Process(predict="data")),
    "in `trained`": made(Scaled(), Scaled()),
    "unconditional": made(Scaled(), Scaled(), decay=0.0, teacher_guidance=2.0),
  }
  good = made(Scaled(), Scaled()).init({"params": KEY, **RNGS}, Latent(z=z), None, train=True, method="loss")
  for message, prior in wrong.items():
    with pytest.raises(UserError, match=message):
      loss(prior, good, z)

"""Progressive distillation: one step that is two, on any path, and what a student can serve."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.few_step import progressive_distillation
from latents.declare import Start
from latents.diffusion import DDIM, Betas, Cosine, Euler, Exploding, Heun, Linear, Process, Strided, grid
from latents.errors import UserError
from latents.priors import FlowPrior, ProgressiveDistillation
from latents.priors.progressive import one_step
from latents.types import Latent
from tests.test_consistency import Scaled
from tests.test_nn import normal
from tests.test_priors import Exact

KEY = jax.random.key(0)
RNGS = {"prior": KEY, "dropout": KEY}
STEPS = 4


class Twice(nn.Module):
  """The mean velocity of two of Euler's steps of the exact flow, each 1 / (2 STEPS)."""

  classes: int = 0
  off: float = 0.0
  conditions = ()

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    h = 0.5 / STEPS
    first = Exact().apply({}, x, t, None)
    return (first + Exact().apply({}, x - h * first, t - h, None)) / 2 + self.off


def made(student, teacher, **fields) -> ProgressiveDistillation:
  return ProgressiveDistillation(backbone=student, teacher=FlowPrior(teacher), **{"steps": STEPS, **fields})


def loss(prior, variables, z, **options):
  return prior.apply(variables, Latent(z=z), None, train=True, method="loss", rngs=RNGS, **options)["flow"]


@pytest.mark.parametrize("path", [Linear(), Betas(), Cosine(), Exploding()], ids=lambda path: type(path).__name__)
def test_the_step_of_the_target_ends_where_the_teacher_did(path):
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    x, reached = jnp.asarray(rng.normal(size=(9, 3))), jnp.asarray(rng.normal(size=(9, 3)))
    now = jnp.linspace(0.2, 1.0, 9)
    for end in (now - 0.2, now * 0.5):
      data = one_step(path, x, now, end, reached)
      assert np.abs(path.mix(data, path.from_data(x, data, now), end) - reached).max() < 1e-9
    # a step to the data is the data
    assert np.abs(one_step(path, x, now, 0 * now, reached) - reached).max() < 1e-9


def test_on_the_linear_path_the_target_is_the_mean_velocity():
  x, now, h = normal(5, 3), jnp.linspace(0.4, 1.0, 5), 0.1
  first, second = normal(5, 3) + 1, normal(5, 3) - 1
  data = one_step(Linear(), x, now, now - 2 * h, x - h * first - h * second)
  assert np.abs(Linear().convert(data, "data", "velocity", x, now) - (first + second) / 2).max() < 1e-5


def test_a_student_that_makes_both_steps_has_no_error():
  z = 0.5 + 0.4 * normal(64, 8)
  assert float(loss(made(Twice(), Exact()), {}, z)) < 1e-9
  assert float(loss(made(Twice(off=0.1), Exact()), {}, z)) == pytest.approx(0.01, rel=1e-3)
  assert float(loss(made(Exact(), Exact()), {}, z)) > 1e-4


def test_it_samples_in_half_the_steps_as_its_teacher():
  options = {"shape": (16, 4), "count": 3, "method": "sample", "rngs": RNGS}
  student = made(Twice(), Exact(), sampler=Euler(STEPS)).apply({}, None, **options).z
  teacher = FlowPrior(Exact(), sampler=Euler(2 * STEPS)).apply({}, None, **options).z
  assert np.abs(student - teacher).max() < 1e-5


@pytest.mark.parametrize(
  "process", [Process(), Process(Cosine()), Process(Cosine(), "data"), Process(Betas(), "noise")]
)
def test_the_student_alone_feels_the_loss(process):
  z = normal(16, 6)
  prior = ProgressiveDistillation(
    backbone=Scaled(), teacher=FlowPrior(Scaled(), process=process), process=process, steps=STEPS,
    sampler=DDIM(STEPS),
  )  # fmt: skip
  variables = prior.init({"params": KEY, **RNGS}, Latent(z=z), None, train=True, method="loss")
  assert set(variables) == {"params"}
  gradient = jax.grad(lambda v: loss(prior, v, z))(variables)["params"]
  assert float(gradient["teacher"]["backbone"]["weight"]) == 0.0
  assert abs(float(gradient["backbone"]["weight"])) > 1e-4


def test_the_teachers_grid_has_twice_the_steps_and_the_students_shift():
  times = made(Scaled(), Scaled(), shift=3.0)._times((6,))
  assert np.array_equal(times[::-1], grid(2 * STEPS, 3.0)) and np.allclose(times[::2][::-1], grid(STEPS, 3.0))


def test_the_rounds_are_a_chain_of_stages():
  found, stage = [], progressive_distillation.experiment(steps=2).stage2
  while isinstance(stage.prior, ProgressiveDistillation):
    found.append((stage.prior.steps, stage.prior.teacher_guidance))
    assert [(start.source, start.into) for start in stage.start] == [
      ("backbone", "teacher/backbone"),
      ("backbone", "backbone"),
    ]
    assert stage.trained == ("backbone",) and isinstance(stage.start[0], Start)
    stage = stage.start[0].stage
  assert found == [(2, 1.0), (4, 1.0), (8, 2.5)] and type(stage.prior) is FlowPrior


def test_mistakes_are_one_clear_line():
  z = normal(2, 3)
  learned = Process(Cosine(), variance="learned")
  wrong = {
    "must be one": made(Scaled(), Scaled(), process=Process(Cosine())),
    "distilled to 4 steps": made(Scaled(), Scaled(), sampler=Euler(8)),
    "step is DDIM's": dataclasses.replace(
      made(Scaled(), Scaled(), process=Process(Cosine())), teacher=FlowPrior(Scaled(), process=Process(Cosine()))
    ),
    "step is DDIM's .* not that of Heun": made(Scaled(), Scaled(), sampler=Heun(4)),
    "divides them, not in 3": made(Scaled(), Scaled(), sampler=Euler(3)),
    "do not halve": made(Scaled(), Scaled(), grid=Strided()),
    "learned variance": dataclasses.replace(
      made(Scaled(), Scaled(), process=learned), teacher=FlowPrior(Scaled(), process=learned)
    ),
    "unconditional": made(Scaled(), Scaled(), teacher_guidance=2.0),
  }
  good = made(Scaled(), Scaled()).init({"params": KEY, **RNGS}, Latent(z=z), None, train=True, method="loss")
  for message, prior in wrong.items():
    with pytest.raises(UserError, match=message):
      loss(prior, good, z)
  with pytest.raises(UserError, match="distilled to 4 steps"):
    made(Scaled(), Scaled(), sampler=Euler(8)).apply(good, None, shape=(3,), count=2, method="sample", rngs=RNGS)

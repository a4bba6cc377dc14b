"""Consistency distillation: Song, Dhariwal, Chen, Sutskever 2023, arXiv:2303.01469, algorithm 2."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.diffusion.grids import grid
from latents.diffusion.samplers import Consistency, Sampler
from latents.errors import UserError
from latents.priors.base import check_guidance, drop, without
from latents.priors.flow import FlowPrior
from latents.types import Array, Cond, Latent, Terms, aside


class ConsistencyDistillation(FlowPrior, kw_only=True):
  """A `FlowPrior` whose backbone, the student, gives in one step what its teacher's flow ends at.

  f(x, tau) is the student's estimate of the data, read from what it predicts: f(x, 0) = x for a velocity (c_skip = 1,
  c_out = -tau on the linear path) and for noise. With x at time n of a grid and x_hat one step of the teacher's flow
  earlier in it (the step that is exact for its estimate: DDIM's, Euler's on the linear path):
    {"consistency"}: mean |f(x, tau_n) - sg f_target(x_hat, tau_(n-1))|^2,
  f_target with the moving average of the student, in the collection "target" at "average".

  teacher: untrained, its weights from `Start(stage=..., into="teacher")`; the student may begin with them too:
  `Start(stage=..., source="backbone", into="backbone")`; `trained=("backbone", "average")`. intervals: of the grid,
  shifted as sampling is. decay: of the average; 0 = the student itself, and no "average". teacher_guidance: scale with
  which the teacher steps, so that the student needs none. UserError where student and teacher have not one path, where
  f(x, 0) = x does not hold, or where the average is not trained.
  """

  teacher: FlowPrior
  intervals: int = 40
  decay: float = 0.95
  teacher_guidance: float = 1.0
  label_drop: float = 0.0
  sampler: Sampler = aside(Consistency(2))

  @nn.compact
  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """See the class; random intervals and noise."""
    self._check()
    z = self._continuous(latent)
    eps = jax.random.normal(self.make_rng("prior"), z.shape)
    number = jax.random.randint(self.make_rng("prior"), z.shape[:1], 1, self.intervals + 1)
    times = jnp.asarray(grid(self.intervals, self._shift(z.shape[1:]))[::-1], jnp.float32)
    now, then = times[number], times[number - 1]
    if train and cond is not None and self.conditions:
      cond = drop(self.make_rng("prior"), cond, self.label_drop)
    x = self.process.path.mix(z, eps, now)
    if self.is_initializing():  # the parameters are made by bound modules; below they are used unbound
      self.backbone(*self.process.inputs(x, now), cond, train=train)
      self.teacher.backbone(*self.teacher.process.inputs(x, now), cond, train=False)
    earlier = jax.lax.stop_gradient(self._teacher_step(x, now, then, cond))
    student, own = self.backbone.unbind()
    params: Any = own.get("params", {})
    rngs = {"dropout": self.make_rng("dropout")} if train and self.has_rng("dropout") else {}  # one for both passes

    def estimate(params: dict, x: Array, tau: Array) -> Array:
      out: Any = student.apply({**own, "params": params}, *self.process.inputs(x, tau), cond, train=train, rngs=rngs)
      if out.shape != x.shape:
        raise UserError(f"the student gives {out.shape} for latents of {x.shape}: set its `out` to None")
      return self.process.data(out, x, tau)

    target = self._target(params, train)
    aim = jax.lax.stop_gradient(estimate(target, earlier, then))
    error = jnp.square(estimate(params, x, now) - aim).mean(-1)
    return {"consistency": self._mean(error, latent.mask)}

  def levels(self, latent: Latent, cond: Cond | None) -> Terms:
    """{}: what a step ends at is no mean of the data."""
    return {}

  def _teacher_step(self, x: Array, now: Array, then: Array, cond: Cond | None) -> Array:
    backbone, variables = self.teacher.backbone.unbind()
    process, scale = self.teacher.process, self.teacher_guidance
    null = without(cond, x.shape[0])
    check_guidance(scale, backbone.conditions)

    def network(x: Array, tau: Array) -> Array:
      seen = process.inputs(x, tau)
      own = backbone.apply(variables, *seen, cond, train=False)
      if scale == 1.0:
        return own
      return process.guide(backbone.apply(variables, *seen, null, train=False), own, scale)

    data = process.field(network).data(x, now)
    noise = process.path.from_data(x, data, now)
    return process.path.mix(data, noise, then)

  def _target(self, params: dict, train: bool) -> dict:
    """The average of the student, which moves once a training pass, before it is used; it begins as the student."""
    if not self.decay:
      return params
    held = self.variable("target", "average", lambda: {"count": jnp.zeros((), jnp.int32), "params": params})
    count, before = held.value["count"], held.value["params"]
    keep = jnp.where(count > 0, self.decay if train else 1.0, 0.0)
    now = jax.lax.stop_gradient(jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, before, params))
    if train and not self.is_initializing():
      if not self.is_mutable_collection("target"):
        raise UserError('the average of a consistency model must move: name "average" in `trained`, or set decay=0')
      held.value = {"count": count + 1, "params": now}
    return now

  def _check(self) -> None:
    mine, theirs = self.process, self.teacher.process
    if mine.path != theirs.path:
      raise UserError(f"the student is on the path {mine.path}, its teacher on {theirs.path}: they must be one")
    if mine.predict == "data" or mine.variance != "none":
      raise UserError("a consistency model predicts velocity or noise, without a variance: then f(x, 0) = x")

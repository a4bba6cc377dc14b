"""What priors of few steps share: their network with other parameters, its moving average, and a teacher's step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.priors.base import check_guidance, drop, without
from latents.priors.flow import FlowPrior
from latents.types import Array, Cond, Latent, Terms

Network = Callable[[dict, Array, Array, Cond | None], Array]  # (parameters, x, tau, cond) -> what the backbone gives


class FewStep(FlowPrior):
  """A `FlowPrior` that is trained against passes of its own network, or of a teacher's; members give the loss. A step
  ends where a flow does, so its estimate is no mean of the data, and it has no likelihood."""

  def sample(
    self, cond: Cond | None, *, shape: tuple[int, ...], guidance: float | None = None, count: int = 1
  ) -> Latent:
    """See `Prior.sample`; what cannot be sampled so is said first (`_check`)."""
    self._check()
    return super().sample(cond, shape=shape, guidance=guidance, count=count)

  def _check(self) -> None:
    """UserError for fields that do not go together; members say which."""
    raise TypeError(f"{type(self).__name__} has no check")

  def levels(self, latent: Latent, cond: Cond | None) -> Terms:
    """{}: see the class."""
    return {}

  def nll(self, latent: Latent, cond: Cond | None) -> Array:
    """UserError: see the class."""
    raise UserError(f"{type(self).__name__} has no likelihood: leave `ode` out")

  def _student(self, x: Array, tau: Array, cond: Cond | None, train: bool) -> tuple[Network, dict]:
    """(the network as a function of its parameters, its parameters); all its passes have the same dropout.

    x, tau, cond: examples of what it is given: the parameters are made by a bound module, and here used unbound.
    """
    if self.is_initializing():
      self.backbone(*self.process.inputs(x, tau), cond, train=train)
    backbone, own = self.backbone.unbind()
    rngs = {"dropout": self.make_rng("dropout")} if train and self.has_rng("dropout") else {}

    def network(params: dict, x: Array, tau: Array, cond: Cond | None) -> Array:
      variables = {**own, "params": params}
      out: Any = backbone.apply(variables, *self.process.inputs(x, tau), cond, train=train, rngs=rngs)
      if out.shape != x.shape:
        raise UserError(f"the student gives {out.shape} for latents of {x.shape}: set its `out` to None")
      return out

    params: Any = own.get("params", {})
    return network, params

  def _dropped(self, cond: Cond | None, train: bool) -> Cond | None:
    """The condition in training, `label_drop` of its rows dropped."""
    if train and cond is not None and self.conditions:
      return drop(self.make_rng("prior"), cond, self.label_drop)
    return cond

  def _average(self, params: dict, decay: Any, train: bool) -> dict:
    """The average of the student, which moves once a training pass, before it is used; it begins as the student.

    decay: the share that stays, a number or []; 0 = the student itself, and no "average". It stands in the collection
    "target". UserError where it is not trained.
    """
    if isinstance(decay, int | float) and not decay:
      return params
    held = self.variable("target", "average", lambda: {"count": jnp.zeros((), jnp.int32), "params": params})
    count, before = held.value["count"], held.value["params"]
    keep = jnp.where(count > 0, decay if train else 1.0, 0.0)
    now = jax.lax.stop_gradient(jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, before, params))
    if train and not self.is_initializing():
      if not self.is_mutable_collection("target"):
        raise UserError('the average of this model must move: name "average" in `trained`, or set decay=0')
      held.value = {"count": count + 1, "params": now}
    return now


class Taught(FewStep):
  """One with a `teacher` on its own path, untrained, whose weights come from `Start`, and its `teacher_guidance`."""

  teacher_guidance = 1.0  # not annotated: these fields would come first

  def _teacher_step(self, x: Array, now: Array, then: Array, cond: Cond | None) -> Array:
    """x at `now` -> x at `then`: the step that is exact for the teacher's estimate (DDIM's; on the linear path
    Euler's), guided. UserError where it cannot be guided."""
    teacher: FlowPrior = self.teacher  # pyright: ignore
    process, scale = teacher.process, self.teacher_guidance
    check_guidance(scale, teacher.conditions)
    if self.is_initializing():
      teacher.backbone(*process.inputs(x, now), cond, train=False)
    backbone, variables = teacher.backbone.unbind()
    null = without(cond, x.shape[0])

    def network(x: Array, tau: Array) -> Array:
      seen = process.inputs(x, tau)
      own: Any = backbone.apply(variables, *seen, cond, train=False)
      if scale == 1.0:
        return own
      return process.guide(backbone.apply(variables, *seen, null, train=False), own, scale)  # pyright: ignore

    data = process.field(network).data(x, now)
    noise = process.path.from_data(x, data, now)
    return jax.lax.stop_gradient(process.path.mix(data, noise, then))

  def _check_teacher(self) -> None:
    mine, theirs = self.process.path, self.teacher.process.path  # pyright: ignore
    if mine != theirs:
      raise UserError(f"the student is on the path {mine}, its teacher on {theirs}: they must be one")

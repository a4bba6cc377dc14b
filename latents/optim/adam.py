"""Optimisers as data: a frozen dataclass with `make(steps)` that gives the optax transformation."""

import dataclasses
from typing import Literal

import optax


@dataclasses.dataclass(frozen=True)
class Adam:
  """AdamW (Adam where `decay` is 0) with warm-up, a schedule and clipping by the global norm.

  lr: peak learning rate, never scaled by the batch or the number of devices.
  betas, eps: Adam's. decay: decoupled weight decay (times lr). clip: largest global norm; 0 = none.
  warmup: steps of linear warm-up from 0. schedule: constant, or cosine to `final` * lr at `steps`.
  """

  lr: float = 1e-4
  betas: tuple[float, float] = (0.9, 0.999)
  eps: float = 1e-8
  decay: float = 0.0
  clip: float = 0.0
  warmup: int = 0
  schedule: Literal["constant", "cosine"] = "constant"
  final: float = 0.0

  def rate(self, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step, for a run of `steps` steps."""
    warmup = min(self.warmup, steps)
    if self.schedule == "cosine":
      after = optax.cosine_decay_schedule(self.lr, max(steps - warmup, 1), alpha=self.final)
    else:
      after = optax.constant_schedule(self.lr)
    if not warmup:
      return after
    return optax.join_schedules([optax.linear_schedule(self.lr / warmup, self.lr, warmup), after], [warmup])

  def make(self, steps: int) -> optax.GradientTransformation:
    """The optax transformation for a run of `steps` steps."""
    clip = [optax.clip_by_global_norm(self.clip)] if self.clip else []
    return optax.chain(
      *clip,
      optax.adamw(self.rate(steps), *self.betas, eps=self.eps, weight_decay=self.decay),
    )

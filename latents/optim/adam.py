"""Adam and AdamW."""

import dataclasses
from typing import Literal

import optax

from latents.optim.base import Decays, Optimizer, mask
from latents.types import later


@dataclasses.dataclass(frozen=True)
class Adam(Optimizer):
  """AdamW (Adam where `decay` is 0) with warm-up, a schedule and clipping by the global norm.

  lr, clip, warmup, schedule, final, decays, over: as of every optimiser. betas, eps: Adam's. decay: decoupled weight
  decay (times lr).
  """

  lr: float = 1e-4
  betas: tuple[float, float] = (0.9, 0.999)
  eps: float = 1e-8
  decay: float = 0.0
  clip: float = 0.0
  warmup: int = 0
  schedule: Literal["constant", "cosine", "root"] = "constant"
  final: float = 0.0
  decays: Literal["all", "kernels", "matrices"] = later("all")
  over: int = later(0)

  def transform(self, schedule: optax.Schedule, decays: Decays | None) -> optax.GradientTransformation:
    """Loshchilov and Hutter 2019, arXiv:1711.05101."""
    return optax.adamw(schedule, *self.betas, eps=self.eps, weight_decay=self.decay, mask=mask(decays))

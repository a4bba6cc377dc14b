"""Optimisers as data: frozen dataclasses (`base.Optimizer`) that give an optax transformation; averages of parameters.

`transform(schedule, decays)` is the rule, `make(steps)` the whole with clipping and schedule, `project(params)` what
becomes of the parameters after an update. An average (`average.Average`) says how much of it stays at a step.
"""

from latents.optim.adam import Adam
from latents.optim.average import Average, PowerAverage, combination, gamma_of, is_width, width
from latents.optim.base import Optimizer
from latents.optim.forced import Forced
from latents.optim.muon import Muon

__all__ = [
  "Adam", "Average", "Forced", "Muon", "Optimizer", "PowerAverage", "combination", "gamma_of", "is_width", "width",
]  # fmt: skip

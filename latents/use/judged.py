"""How a judge of stage 1 has fared, from the log of its training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latents.declare import Experiment
from latents.losses import Adversarial
from latents.train import log

Line = Mapping[str, Any]


def read(experiment: Experiment, metrics: Path) -> dict[str, dict[str, float]]:
  """Of each GAN term of stage 1 that the decoder has felt: what `fared` says of the lines in metrics.jsonl."""
  lines = [line for line in log.read(metrics) if line["stage"] == 1]
  terms = {name: loss for name, loss in experiment.stage1.losses.items() if isinstance(loss, Adversarial)}
  found = {name: fared(lines, name, term.clamp) for name, term in terms.items()}
  return {name: told for name, told in found.items() if told}


def fared(lines: Sequence[Line], name: str, clamp: float) -> dict[str, float]:
  """Of the logged steps at which the decoder felt the term; {} where there are none.

  lines: how many. accuracy: the mean share of logits on their right side, of originals and reconstructions alike, over
  the later half: 0.5 is a judge that knows nothing, 1 one that nothing deceives. accuracy_lowest, accuracy_highest: the
  ends of that half's tenths, each a mean. adaptive_of_clamp: the largest adaptive weight over its bound, 1 = held.
  """
  felt = [line for line in lines if (line.get(f"train/{name}_gate") or 0) > 0]
  rates = [r for line in felt[len(felt) // 2 :] if (r := _accuracy(line, name)) is not None]
  if not rates:
    return {}
  size = max(len(rates) // 10, 1)
  parts = [sum(rates[i : i + size]) / size for i in range(0, len(rates) - size + 1, size)]
  told = {"lines": len(felt), "accuracy": sum(rates) / len(rates)}
  told |= {"accuracy_lowest": min(parts), "accuracy_highest": max(parts)}
  weights = [line.get(f"train/{name}_adaptive") for line in felt]
  if known := [w for w in weights if w is not None]:
    told["adaptive_of_clamp"] = max(known) / clamp
  return told


def _accuracy(line: Line, name: str) -> float | None:
  """The mean of both sides; a second term of a stage logs under its own name."""
  sides = [line.get(f"train/{name}_{side}", line.get(f"train/{side}")) for side in ("real_accuracy", "fake_accuracy")]
  return None if None in sides else sum(sides) / 2

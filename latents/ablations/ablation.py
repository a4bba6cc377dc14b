"""An ablation as a declaration: variants that differ in what is declared to vary and in nothing else."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from latents.ablations.base import Claim
from latents.declare import Experiment, differences, to_json
from latents.errors import UserError, nearest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]*")


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of an ablation: a variant under a seed."""

  variant: str
  seed: int
  experiment: Experiment

  @property
  def name(self) -> str:
    """Of its folder within that of the ablation."""
    return f"{self.variant}-s{self.seed}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablation:
  """Variants of one experiment.

  variants: in the order in which tables show them. varies: dotted paths of the declaration that may differ between
  them, "stage1.losses.kl.weight"; a path stands for all below it. seeds_of: whose seed differs between the members of a
  variant; under "stage2" all of them share one stage 1. columns: dotted paths of numbers in scores.json. curves: names
  of what the log has of stage 1, "train/real_accuracy"; the page draws them over the steps.
  """

  variants: Mapping[str, Experiment]
  varies: tuple[str, ...]
  columns: tuple[str, ...]
  claims: tuple[Claim, ...] = ()
  curves: tuple[str, ...] = ()
  seeds_of: Literal["stage1", "stage2", "both"] = "both"

  def check(self) -> None:
    """UserError for variants that differ in what is not declared, for a path at which none differ, and for claims about
    what is not there."""
    if len(self.variants) < 2:
      raise UserError("an ablation needs two variants at least")
    for name in self.variants:
      if not NAME.fullmatch(name):
        raise UserError(f"'{name}' cannot be the name of a variant: letters, digits and . _ + = -, please")
    found = set()
    for (a, one), (b, two) in itertools.combinations(self.variants.items(), 2):
      changed = [line.split(": ")[0] for line in differences(to_json(one), to_json(two))]
      if not changed:
        raise UserError(f"the variants '{a}' and '{b}' are the same")
      for path in changed:
        if not (allowed := [v for v in self.varies if f"{path}.".startswith(f"{v}.")]):
          raise UserError(f"{path} differs between the variants '{a}' and '{b}' and is not declared in `varies`")
        found.update(allowed)
    for path in self.varies:
      if path not in found:
        raise UserError(f"`varies` has {path}, at which no two variants differ{nearest(path, self._paths())}")
    self._check_claims()

  def _paths(self) -> list[str]:
    one, *others = (to_json(v) for v in self.variants.values())
    return [line.split(": ")[0] for other in others for line in differences(one, other)]

  def _check_claims(self) -> None:
    for claim in self.claims:
      for kind, words, known in zip(("variant", "column"), claim.reads(), (self.variants, self.columns), strict=True):
        for word in words:
          if word not in known:
            raise UserError(f"the claim '{claim.sentence}' names no {kind} '{word}'{nearest(word, known)}")

  def members(self, seeds: int) -> list[Member]:
    """All variants under the first seed, then all under the next."""
    return [
      Member(name, seed, self.seeded(made, seed)) for seed in range(seeds) for name, made in self.variants.items()
    ]

  def seeded(self, made: Experiment, seed: int) -> Experiment:
    """The experiment with `seed` added to the seed of what `seeds_of` says."""
    if self.seeds_of == "both":
      return dataclasses.replace(made, seed=made.seed + seed)
    stage: Any = getattr(made, self.seeds_of)
    if stage is None:
      raise UserError(f"seeds_of is {self.seeds_of}, which a variant lacks")
    return dataclasses.replace(made, **{self.seeds_of: dataclasses.replace(stage, seed=made.seed_of(stage) + seed)})

  def measured(self, **changes: Any) -> "Ablation":
    """The same with other fields of every variant's `evaluation`."""
    found = {
      name: dataclasses.replace(made, evaluation=dataclasses.replace(made.evaluation, **changes))
      for name, made in self.variants.items()
    }
    return dataclasses.replace(self, variants=found)

  def described(self) -> dict[str, dict[str, Any]]:
    """variant -> path in `varies` -> what it is there, as JSON."""
    return {name: {path: at(to_json(made), path) for path in self.varies} for name, made in self.variants.items()}


def at(tree: Any, path: str) -> Any:
  """What lies at a dotted path of JSON, whose own names may hold dots ("band_0.25"); None where nothing does."""
  if not isinstance(tree, dict):
    return None
  if path in tree:
    return tree[path]
  starts = [name for name in tree if path.startswith(f"{name}.")]
  found = (at(tree[name], path[len(name) + 1 :]) for name in sorted(starts, key=len, reverse=True))
  return next((f for f in found if f is not None), None)


def numbers(tree: Any, path: str = "") -> Iterator[tuple[str, float]]:
  """(dotted path, number) of every number in JSON."""
  if isinstance(tree, dict):
    for name, value in tree.items():
      yield from numbers(value, f"{path}.{name}" if path else name)
  elif isinstance(tree, int | float) and not isinstance(tree, bool):
    yield path, float(tree)

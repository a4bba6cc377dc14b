"""The lists of members are complete: a part that a room offers and that no list makes would have no property test."""

import dataclasses
import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from flax import linen as nn

from tests.members import (
  backbones,
  bottlenecks,
  conditioners,
  data,
  decoders,
  diffusion,
  discriminators,
  encoders,
  evaluate,
  grids,
  losses,
  priors,
  recodes,
)

# room -> its lists, and the parts whose contract is another (they have their own tests)
ROOMS: dict[str, tuple[list, set[str]]] = {
  "encoders": (encoders.ENCODERS + encoders.TOKEN_ENCODERS, set()),
  "bottlenecks": (bottlenecks.BOTTLENECKS, set()),
  "decoders": (decoders.DECODERS + decoders.TOKEN_DECODERS, set()),
  "backbones": (backbones.BACKBONES + priors.PRIORS + decoders.DECODERS + grids.GRIDS, set()),
  "diffusion.paths": (diffusion.PATHS, set()),
  "conditioners": (conditioners.CONDITIONERS, set()),
  "priors": (priors.PRIORS, set()),
  "recodes": (recodes.RECODES, set()),
  "discriminators": (discriminators.DISCRIMINATORS, set()),
  "losses": (
    losses.LOSSES + losses.TOKEN_LOSSES + losses.DISTRIBUTION_LOSSES,
    {"Adversarial", "PairAdversarial", "ConditionalAdversarial", "Likelihood", "Capacity"},
  ),
  "evaluate": (evaluate.METRICS + evaluate.LATENT_METRICS + evaluate.SAMPLE_METRICS, set()),
  "data": (data.SOURCES, {"CachedLatents"}),
}


def inside(part: Any) -> Iterator[type]:
  """The classes of a part and of the parts that it is made of."""
  yield type(part)
  if dataclasses.is_dataclass(part):
    for field in dataclasses.fields(part):
      if field.name != "parent":
        yield from inside(getattr(part, field.name, None))


@pytest.mark.parametrize("room", ROOMS)
def test_every_part_that_a_room_offers_is_made_by_its_list(room: str):
  listed, others = ROOMS[room]
  made = {c for line in listed for c in inside(line[1]())}
  offered = {n: c for n, c in vars(importlib.import_module(f"latents.{room}")).items() if inspect.isclass(c)}
  contracts = [c for c in offered.values() if c.__module__.rpartition(".")[2] in ("base", "source")]
  parts = {n for n, c in offered.items() if is_part(c, contracts)}
  assert len(parts) >= 2
  assert parts - {c.__name__ for c in made} == others


def is_part(c: type, contracts: list[type]) -> bool:
  """A module, or a member of the room's contract; not the contract itself."""
  return c not in contracts and bool({nn.Module, *contracts} & set(c.__mro__))

"""What priors over the elements of a head have in common."""

import math
from typing import Any

from latents.errors import UserError
from latents.priors.base import Prior


class OfElements(Prior):
  """A prior with the fields `head` (`latents.priors.heads`), `backbone`, whose `out` numbers an element the head reads,
  and `temperature`."""

  @property
  def discrete(self: Any) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
    """Whether the head reads codes."""
    return self.head.discrete

  @property
  def vocabs(self: Any) -> tuple[int, ...]:
    """The head's."""
    return self.head.vocabs

  def _check(self: Any, grid: tuple[int, ...]) -> int:
    """*s -> N. UserError where network, head and latent do not fit."""
    head, backbone = self.head, self.backbone
    if backbone.out != head.out:
      raise UserError(
        f"{type(head).__name__} reads {head.out} numbers an element, but the network's `out` is {backbone.out}"
      )
    if math.prod(grid) != backbone.length:
      raise UserError(f"the network models {backbone.length} elements, but {grid} are {math.prod(grid)}")
    return backbone.length

  def _grid(self: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a sample -> *s, its elements. UserError also for a temperature below 0."""
    if self.temperature < 0:
      raise UserError(f"a temperature is at least 0, not {self.temperature}")
    grid = shape if self.discrete and self.head.dim == 1 else shape[:-1]
    self._check(grid)
    return grid

"""Conditioners: what a prior, or a decoder, is told of each example.

Contract (`base.Conditioner`), a frozen dataclass: `__call__(batch) -> Cond | None` inside the step, of the entries of a
batch; `gives`, the names in that condition; `count(classes)` conditions that can be asked for by number, in turn where
nobody asks; `number(word)` of one by its name. A condition is a mapping of arrays by example (`types.Cond`); priors
never look inside, they only set "drop" and stack; backbones and decoders read the entries they name in `conditions`.
"""

from latents.conditioners.base import Conditioner
from latents.conditioners.labels import Labels
from latents.conditioners.text import Text

__all__ = ["Conditioner", "Labels", "Text"]

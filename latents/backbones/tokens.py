"""What networks on tokens of one vocabulary say of themselves."""

import flax.linen as nn


class OneVocabulary(nn.Module):
  """A network with the fields `vocab`, the number of its tokens, and `classes`, that of its labels (0 = none): one grid
  of tokens (`layout`), which are told no places."""

  layout = ()
  places = 0

  @property
  def vocabs(self) -> tuple[int, ...]:
    """One vocabulary for all tokens."""
    return (self.vocab,)  # pyright: ignore[reportAttributeAccessIssue]

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return ("label",) if self.classes else ()  # pyright: ignore[reportAttributeAccessIssue]

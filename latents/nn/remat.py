"""What the backward pass recomputes."""

from typing import Any, Literal

import flax.linen as nn
import jax

Remat = Literal["none", "block", "dots"]
POLICIES: dict[str, Any] = {"block": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}


def recomputed(block: Any, how: Remat, static: tuple[int, ...] = ()) -> Any:
  """A module's class -> the same, whose inside is recomputed in the backward pass.

  how: "none" keeps all; "block" keeps the inputs of each block alone; "dots" keeps the outputs of linear layers too,
  and recomputes what is cheap: norms, activations, attention. static: arguments that are no arrays, by place.
  """
  return block if how == "none" else nn.remat(block, static_argnums=static, policy=POLICIES[how])

"""The defaults of a head."""

import flax.linen as nn
import jax

from latents.errors import UserError
from latents.types import Array, Latent

COLD = 1e-6  # a temperature below it is 0: logits over it may be beyond float32


class Head(nn.Module):
  """See the room's contract in `__init__.py`. Defaults of a head on z."""

  dim: int

  discrete = False
  likelihood = True

  @property
  def vocabs(self) -> tuple[int, ...]:
    """How many codes it knows, where it reads codes."""
    return ()

  @property
  def out(self) -> int:
    """Numbers of the network for an element."""
    raise NotImplementedError

  def read(self, latent: Latent) -> Array:
    """Latent -> elements [B,*s,dim] float32."""
    z = latent.z
    if z is None or z.shape[-1] != self.dim:
      found = "no z" if z is None else f"{z.shape[-1]} numbers a position"
      raise UserError(f"{type(self).__name__} models elements of {self.dim} numbers, but the latent has {found}")
    return z

  def write(self, x: Array) -> Latent:
    """Elements [B,*s,dim] -> Latent."""
    return Latent(z=x)

  def nll(self, given: Array, x: Array) -> Array:
    """given [...,out], x [...,dim] -> [...] nats."""
    raise NotImplementedError

  def draw(self, keys: Array, given: Array, other: Array | None, guidance: float, temperature: float) -> Array:
    """keys [B], given and other [B,out] -> [B,dim]."""
    raise NotImplementedError


def categorical(keys: Array, logits: Array, temperature: float = 1.0) -> Array:
  """keys [B], logits [B,K] -> [B] int32: each row by its own key; temperature 0: the likeliest."""
  if temperature < COLD:
    return logits.argmax(-1)
  return jax.vmap(jax.random.categorical)(keys, logits / temperature)

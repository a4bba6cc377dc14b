"""Volume normalisation of EnCodec (Defossez et al. 2022, arXiv:2210.13438; its 48 kHz model)."""

import flax.linen as nn
import jax.numpy as jnp

from latents.types import Array, Encoded

EPS = 1e-8  # a gain of silence


class Gain(nn.Module):
  """[B,*S,C] -> Encoded(inner(x / gain), {"gain": [B,1]}): the inner encoder sees every signal equally loud.

  gain: the root mean square over *S of the mean over channels, plus 1e-8. `decoders.Gained` multiplies it back, so that
  decode(encode(a x)) = a decode(encode(x)) for a > 0.
  """

  inner: nn.Module

  @property
  def last(self) -> tuple[str, ...]:
    """The inner encoder's."""
    return ("inner", *self.inner.last)  # pyright: ignore[reportAttributeAccessIssue]

  @property
  def stride(self) -> int:
    """The inner encoder's."""
    return self.inner.stride  # pyright: ignore[reportAttributeAccessIssue]

  def __call__(self, x: Array, *, train: bool) -> Encoded:
    """See the class."""
    mono = x.astype(jnp.float32).mean(-1).reshape(len(x), -1)
    gain = jnp.sqrt(jnp.square(mono).mean(1, keepdims=True)) + EPS
    return Encoded(h=self.inner(x / gain.reshape(-1, *(1,) * (x.ndim - 1)), train=train), side={"gain": gain})

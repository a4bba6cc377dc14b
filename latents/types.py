"""The values that pass between parts, and the axis letters that every docstring uses.

Axis letters: `B` batch, `*S` signal axes (`H W`, `T H W` or `T`), `*s` latent axes or `N` tokens,
`C` channels, `D` latent dim, `E` features, `V` vocabulary, `G` groups or levels of codes,
`L` condition length. A scalar is `[]`.

Signals are float32 in [-1, 1] everywhere inside; data sources may hand over uint8 (0..255), which
`to_signal` maps to [-1, 1] on the device, so that a quarter of the bytes cross the bus. Text is bytes
or tokens, int32 [B,T], inside too; what reconstructs it gives logits [B,T,V] in training and int32 [B,T] else.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import struct

Array = Any  # jax.Array, numpy.ndarray or jax.ShapeDtypeStruct: all carry shape and dtype; None where it says so
Terms = Mapping[str, Array]  # name -> scalar [], unweighted, mean over batch and elements
# What is known of each example: "label" [B] int32, "text" [B,L,E], ...; "drop" [B] bool: rows of which nothing is.
Cond = Mapping[str, Array]
Batch = dict[str, Array]  # "x" [B,*S,C]; "label" int32 [B]; "index" int32 [B]; "mask" bool [B] (padding)


class Latent(struct.PyTreeNode):
  """What a bottleneck makes and a decoder reads.

  z: [B,*s,D] float32, what the decoder reads (straight-through if discrete); None = embed codes.
  codes: [B,*s] or [B,*s,G] int32; None for a continuous latent.
  mask: [B,*s] bool, the tokens that are kept (variable-length latents); None = all.
  terms: the bottleneck's losses; each must have a weight of the same name in the experiment.
  logs: diagnostics (usage, perplexity, ...): logged, never part of the objective.
  side: name -> [B,..], what the encoder itself measures beside z and the decoder is told (a gain). A cache keeps it.
  given: what the data say of the signal and a conditioned decoder is told (`Cond`); no part of what is compressed, so
  no cache keeps it and no prior sees it here.
  Codes of several grids (a bottleneck's `layout`) are one sequence [B,N], grid after grid, each in raster order.
  """

  z: Array = None
  codes: Array = None
  mask: Array = None
  terms: Terms = struct.field(default_factory=dict)
  logs: Terms = struct.field(default_factory=dict)
  side: Mapping[str, Array] = struct.field(default_factory=dict)
  given: Cond | None = None


class Encoded(struct.PyTreeNode):
  """What an encoder gives that measures something beside its features. h [B,*s,E]; side: see `Latent`."""

  h: Array
  side: Mapping[str, Array] = struct.field(default_factory=dict)


Stored = Any  # what a cache keeps: an array [B,*s,..], or Encoded(that array, side) where the encoder measures a side


class Decoded(struct.PyTreeNode):
  """What a decoder gives in training.

  x: [B,*S,C] reconstruction, or the one-step estimate of x of a generative decoder; of text logits [B,T,V].
  terms: {} for feed-forward decoders; {"flow": []} and the like for generative ones.
  target: what x is compared with, where that is not the signal (a transformed signal, another tokenizer's codes,
  features); constant for all gradients. None = the signal.
  """

  x: Array
  terms: Terms = struct.field(default_factory=dict)
  target: Array = None


class Seen(struct.PyTreeNode):
  """One training pass as the losses see it. Gradients flow back through x_hat, z and taps; the rest is constant.

  signal: [B,*S,C] what was encoded. target: what x_hat is compared with, `signal` unless the decoder says otherwise.
  x_hat: Decoded.x. z: [B,*s,D] Latent.z. codes, mask: of the latent. taps: outputs of parts of the model by the path
  of the part ("decoder/trunk/blocks_3"), as far as a loss asks for them. step: [] int32. given: the batch's other
  entries by name (label [B], ...).
  """

  signal: Array
  target: Array
  x_hat: Array
  z: Array
  codes: Array
  mask: Array
  taps: dict[str, Array]
  step: Array
  given: Mapping[str, Array] = struct.field(default_factory=dict)


def to_signal(x: Array) -> Array:
  """[..] uint8 in 0..255 or float in [-1,1] -> float32 in [-1,1] (x / 127.5 - 1). Other integers (text) stay."""
  if x.dtype == jnp.uint8:
    return x.astype(jnp.float32) / 127.5 - 1.0
  if jnp.issubdtype(x.dtype, jnp.integer):
    return x
  return x.astype(jnp.float32)


def to_uint8(x: Array) -> Array:
  """[..] float in [-1,1] -> uint8: floor(clip(127.5 x + 128, 0, 255)), DiT's rounding."""
  return jnp.floor(jnp.clip(127.5 * x + 128.0, 0, 255)).astype(jnp.uint8)


def aside(default: Any) -> Any:
  """A field of a declaration that is not part of a stage's address: changing it makes no other model."""
  return dataclasses.field(default=default, metadata={"address": False})


def later(neutral: Any, *, default: Any = dataclasses.MISSING, address: bool = True) -> Any:
  """A field that a part did not always have. `neutral` is what its absence meant, and its default: while it has that
  value it stands neither in the address nor in experiment.json, so that what was made before it was there stays what
  it is. A default that changes is given as `default`; `neutral` never changes. address: False as of `aside`."""
  value = neutral if default is dataclasses.MISSING else default
  about = {"neutral": neutral, "address": address}
  if isinstance(value, Mapping):
    return dataclasses.field(default_factory=lambda: dict(value), metadata=about)
  return dataclasses.field(default=value, metadata=about)

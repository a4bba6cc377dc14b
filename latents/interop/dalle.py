"""DALL-E's discrete VAE in the names of its release (Ramesh et al. 2021, arXiv:2102.12092; the package `dall_e`).

The release is two files, encoder.pkl and decoder.pkl, each a whole module, which is a program; this layout is their two
state dicts in one file, their names after "encoder/" and "decoder/" (the message of `readers` says how to make it).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from latents.autoencoders import Autoencoder
from latents.bottlenecks import Gumbel
from latents.decoders import DVAEDecoder, LogitLaplaceDecoder
from latents.encoders import DVAEEncoder
from latents.errors import UserError
from latents.interop.mapping import KERNEL, POINTWISE, SAME, Table

Shapes = Mapping[str, tuple[int, ...]]

_CONV = {"kernel": ("w", KERNEL), "bias": ("b", SAME)}
_BLOCK = {"conv{k}": ("res_path.conv_{k}", _CONV), "shortcut": ("id_path", _CONV)}
_GROUPS = {"group{i}_block{j}": ("group_{i}.block_{j}", _BLOCK), "conv_out": ("output.conv", _CONV)}

DALLE = Table.of({
  "encoder": ("encoder/blocks", {"conv_in": ("input", _CONV), **_GROUPS}),
  "bottleneck": ("decoder/blocks", {"codebook": ("input.w", POINTWISE)}),
  "decoder": ("decoder/blocks", {"inner": ("", {"bias": ("input.b", SAME), **_GROUPS})}),
})  # fmt: skip


def model_of(shapes: Shapes, config: Mapping[str, Any], need: Callable[[str], tuple[int, ...]]) -> Autoencoder:
  """The autoencoder whose arrays have these shapes, by our paths. need: a path -> its shape, or a UserError that names
  the array. UserError where the two halves differ in what only one of them says here."""
  ch, vocab = need("encoder/conv_in/kernel")[-1], need("encoder/conv_out/kernel")[-1]
  rows, dim = need("bottleneck/codebook")
  sides = [_side(side, shapes, need) for side in ("encoder", "decoder/inner")]
  if rows != vocab or sides[0] != (sides[1][0][::-1], sides[1][1]):
    raise UserError(f"the encoder has {vocab} codes and groups {sides[0]}, the decoder {rows} and {sides[1]}: no dVAE")
  widths, blocks = sides[0]
  if any(width % ch for width in widths):
    raise UserError(f"groups of {widths} channels are no multiples of the first layer's {ch}")
  fields: dict[str, Any] = {"ch": ch, "mult": tuple(width // ch for width in widths), "blocks": blocks}
  channels = need("decoder/inner/conv_out/kernel")[-1]
  return Autoencoder(
    encoder=DVAEEncoder(out=vocab, **fields),
    bottleneck=Gumbel(vocab=vocab, dim=dim, cooling=0, project=False),  # it is cold already
    decoder=LogitLaplaceDecoder(DVAEDecoder(channels=channels, **fields)),
  )


def _side(side: str, shapes: Shapes, need: Callable[[str], tuple[int, ...]]) -> tuple[tuple[int, ...], int]:
  """(the widths of one half's groups, blocks of a group)."""
  found = [m for name in shapes if (m := re.match(rf"{side}/group(\d+)_block(\d+)/", name))]
  groups, blocks = (max((int(m[k]) for m in found), default=1) for k in (1, 2))
  return tuple(need(f"{side}/group{i}_block1/conv4/kernel")[-1] for i in range(1, groups + 1)), blocks


def check_model(model: Any) -> None:
  """UserError for a model that this layout does not hold."""
  parts = [getattr(model, name, None) for name in ("encoder", "bottleneck", "decoder")]
  parts.append(getattr(parts[2], "inner", None))
  kinds = (DVAEEncoder, Gumbel, LogitLaplaceDecoder, DVAEDecoder)
  for part, kind in zip(parts, kinds, strict=True):
    if type(part) is not kind:
      wanted = ", ".join(kind.__name__ for kind in kinds)
      raise UserError(f"this layout holds {wanted}, and the run has {type(part or model).__name__}")
  one, two, _, three = parts
  if two.project or (one.ch, one.mult, one.blocks) != (three.ch, three.mult, three.blocks):  # pyright: ignore
    raise UserError("DALL-E's dVAE has halves of one size, and logits straight from the encoder")

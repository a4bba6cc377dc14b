"""The deep compression autoencoder in diffusers' layout, AutoencoderDC (Chen et al. 2024, arXiv:2410.10733)."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from latents.autoencoders import Autoencoder
from latents.bottlenecks import NoBottleneck
from latents.decoders import DCDecoder
from latents.encoders import DCEncoder
from latents.errors import UserError
from latents.interop.mapping import CONV, CONV1, DENSE, KERNEL, NORM, POINTWISE, SAME, Table

Shapes = Mapping[str, tuple[int, ...]]

_RES = {"conv1": ("conv1", CONV), "conv2": ("conv2", {"kernel": ("weight", KERNEL)}), "norm": ("norm", NORM)}
_ATTENTION = {
  "qkv": (("to_q", "to_k", "to_v"), {"kernel": ("weight", DENSE)}),
  "scale{k}_depthwise": ("to_qkv_multiscale.{k}.proj_in", {"kernel": ("weight", KERNEL)}),
  "scale{k}_mix": ("to_qkv_multiscale.{k}.proj_out", {"kernel": ("weight", POINTWISE)}),
  "out": ("to_out", {"kernel": ("weight", DENSE)}),
  "norm": ("norm_out", NORM),
}
_GATED = {
  "expand": ("conv_inverted", CONV1), "depthwise": ("conv_depth", CONV), "norm": ("norm", NORM),
  "project": ("conv_point", {"kernel": ("weight", POINTWISE)}),
}  # fmt: skip
_RESAMPLED = {"conv": ("conv", CONV)}  # what changes the resolution stands among the blocks of its level
_PART = {**_RES, **_RESAMPLED, "attention": ("attn", _ATTENTION), "gated": ("conv_out", _GATED)}
_ENDS = {"conv_in": ("conv_in", {**CONV, **_RESAMPLED}), "conv_out": ("conv_out", {**CONV, **_RESAMPLED})}
_STATE = {"mean": ("running_mean", SAME), "var": ("running_var", SAME), "count": ("num_batches_tracked", SAME)}
_STATES = {"norm": ("norm", _STATE), "attention": ("attn", {"norm": ("norm_out", _STATE)})}

DIFFUSERS = Table.of({
  "encoder": ("encoder", {**_ENDS, "level{i}_part{j}": ("down_blocks.{i}.{j}", _PART)}),
  "decoder": ("decoder", {**_ENDS, "norm_out": ("norm_out", NORM), "level{i}_part{j}": ("up_blocks.{i}.{j}", _PART)}),
  "batch_stats": ("", {"decoder": ("decoder", {"level{i}_part{j}": ("up_blocks.{i}.{j}", _STATES)})}),
})  # fmt: skip


def model_of(shapes: Shapes, config: Mapping[str, Any], need: Callable[[str], tuple[int, ...]]) -> Autoencoder:
  """The autoencoder whose arrays have these shapes, by our paths.

  config: read for what no shape shows: shortcuts at the latent, the activations of the decoder's blocks (where nothing
  is said: ReLU with batch norm, SiLU with RMS norm), the size of a head without scales (32). need: a path -> its shape,
  or a UserError that names the array.
  """
  one, three = _side("encoder", shapes, config, need), _side("decoder", shapes, config, need)
  levels = len(three["widths"])
  norms: Any = tuple("batch" if _batch_norm(i, shapes) else "rms" for i in range(levels))
  if "layer_norm" in (config.get("decoder_norm_types") or ()):  # its arrays look like RMS norm's
    raise UserError("config.json: norms are rms_norm or batch_norm, not layer_norm")
  acts: Any = config.get("decoder_act_fns") or ["relu" if norm == "batch" else "silu" for norm in norms]
  acts = tuple([acts] * levels if isinstance(acts, str) else acts)
  if len(acts) != levels or set(acts) - {"silu", "relu"} or config.get("decoder_conv_act_fn", "relu") != "relu":
    raise UserError(f"config.json: activations are silu or relu, one a level, and relu at the end, not {acts}")
  last = "decoder/conv_out/kernel" if three["depths"][0] else "decoder/conv_out/conv/kernel"
  wide, channels = need(last)[-1], need(_first(one["depths"]))[-2]
  return Autoencoder(
    encoder=DCEncoder(
      out=need("encoder/conv_out/kernel")[-1], strided=_strided(one, need),
      shortcut_out=_said(config, "encoder_out_shortcut"), **one,
    ),
    bottleneck=NoBottleneck(),
    decoder=DCDecoder(
      channels=channels, interpolate=_interpolated(three, wide == channels, need), norms=norms, acts=acts,
      shortcut_in=_said(config, "decoder_in_shortcut"), **three,
    ),
  )  # fmt: skip


def _first(depths: tuple[int, ...]) -> str:
  return "encoder/conv_in/kernel" if depths[0] else "encoder/conv_in/conv/kernel"


def _said(config: Mapping[str, Any], name: str) -> bool:
  return bool(config.get(name, True))


def _batch_norm(level: int, shapes: Shapes) -> bool:
  return any(name.startswith(f"batch_stats/decoder/level{level}_part") for name in shapes)


def _side(side: str, shapes: Shapes, config: Mapping[str, Any], need: Callable) -> dict[str, Any]:
  """The fields that both halves have."""
  found = [m for name in shapes if (m := re.match(rf"{side}/level(\d+)_part(\d+)/(conv1|attention|conv)/", name))]
  if not found:
    need(f"{side}/level1_part0/conv1/kernel")
  kinds = {(int(m[1]), int(m[2])): m[3] for m in found}
  levels = max(level for level, _ in kinds) + 1
  depths = tuple(sum(at == i and kind != "conv" for (at, _), kind in kinds.items()) for i in range(levels))
  places = [next((f"{side}/level{i}_part{j}/{kind}" for (at, j), kind in sorted(kinds.items()) if at == i
                  and kind != "conv"), None) for i in range(levels)]  # fmt: skip
  widths = []
  for i, place in enumerate(places):
    if place is None and i:
      raise UserError(f"{side}: level {i} has no blocks, and only level 0 may have none")
    end = "/qkv/kernel" if place and place.endswith("attention") else "/kernel"
    widths.append(need(f"{place}{end}")[-2] if place else 0)
  widths[0] = widths[0] or _width(side, config, widths[1])
  first = next((f"{place}" for place in places if place and place.endswith("attention")), None)
  sizes = [need(f"{first}/scale{k}_depthwise/kernel")[0] for k in range(_scales(first, shapes))]
  mixed = [name for name in shapes if re.fullmatch(rf"{side}/.*/scale0_mix/kernel", name)]
  head = shapes[mixed[0]][0] if mixed else config.get("attention_head_dim", 32)
  return {
    "widths": tuple(widths),
    "depths": depths,
    "attention": tuple(i for i, place in enumerate(places) if place and place.endswith("attention")),
    "scales": tuple(sizes),
    "head": head,
  }


def _scales(place: str | None, shapes: Shapes) -> int:
  return sum(1 for name in shapes if re.fullmatch(rf"{place}/scale\d+_depthwise/kernel", name))


def _width(side: str, config: Mapping[str, Any], other: int) -> int:
  """The width of a level 0 without blocks, which no array has: as the config says, else half of the next."""
  said = config.get(f"{side}_block_out_channels")
  return int(said[0]) if said else other // 2


def _strided(one: Mapping[str, Any], need: Callable) -> bool:
  """Whether the convolution that halves gives all channels itself."""
  i = 0 if one["depths"][0] else 1
  if i + 1 < len(one["widths"]):
    return need(f"encoder/level{i}_part{one['depths'][i]}/conv/kernel")[-1] == one["widths"][i + 1]
  return need("encoder/conv_in/conv/kernel")[-1] == one["widths"][1]


def _interpolated(three: Mapping[str, Any], whole: bool, need: Callable) -> bool:
  """Whether the convolution that doubles gives no more channels than there will be. whole: so it is with the last."""
  if not three["depths"][0]:
    return whole
  return need("decoder/level0_part0/conv/kernel")[-1] == three["widths"][0]


def check_model(model: Any) -> tuple[DCEncoder, NoBottleneck, DCDecoder]:
  """The three parts of a model that this layout holds; UserError for another."""
  parts = tuple(getattr(model, name, None) for name in ("encoder", "bottleneck", "decoder"))
  for part, kind in zip(parts, (DCEncoder, NoBottleneck, DCDecoder), strict=True):
    if type(part) is not kind:
      found = type(model).__name__ if part is None else type(part).__name__
      raise UserError(f"this layout holds a DCEncoder, NoBottleneck and a DCDecoder, and the run has {found}")
  if parts[1].dim is not None:  # pyright: ignore[reportOptionalMemberAccess]
    raise UserError("AutoencoderDC has no layer between its halves, this model projects its latents")
  return parts  # pyright: ignore[reportReturnType]


def config_of(model: Autoencoder, statistics: Mapping[str, Any], signal: tuple[int, ...]) -> dict[str, Any]:
  """What diffusers' `config.json` says of a model of ours, whose latents have these statistics.

  UserError for one that AutoencoderDC cannot be. It has one scale for all latents: 1 / rms, as SANA's.
  """
  one, _, three = check_model(model)
  if one.head != three.head or not (one.shortcut and three.shortcut):
    raise UserError("AutoencoderDC has heads of one size, and shortcuts at every change of resolution")
  mean, std = (np.asarray(statistics[key], np.float64) for key in ("mean", "std"))
  scale = 1 / math.sqrt(float((mean**2 + std**2).mean()))
  return {
    "_class_name": "AutoencoderDC",
    "in_channels": signal[-1],
    "latent_channels": one.out,
    "attention_head_dim": one.head,
    "downsample_block_type": "Conv" if one.strided else "pixel_unshuffle",
    "upsample_block_type": "interpolate" if three.interpolate else "pixel_shuffle",
    "encoder_out_shortcut": one.shortcut_out,
    "decoder_in_shortcut": three.shortcut_in,
    "decoder_norm_types": [f"{norm}_norm" for norm in three.norms],
    "decoder_act_fns": list(three.acts),
    "decoder_conv_act_fn": "relu",
    "scaling_factor": float(f"{scale:.9g}"),
    **_half("encoder", one),
    **_half("decoder", three),
  }


def _half(side: str, part: DCEncoder | DCDecoder) -> dict[str, Any]:
  levels = range(len(part.widths))
  return {
    f"{side}_block_types": ["EfficientViTBlock" if i in part.attention else "ResBlock" for i in levels],
    f"{side}_block_out_channels": list(part.widths),
    f"{side}_layers_per_block": list(part.depths),
    f"{side}_qkv_multiscales": [list(part.scales) if i in part.attention else [] for i in levels],
  }

"""The convolutional autoencoder of latent diffusion in the layouts of its releases, and its sizes by an array's shape.

diffusers' AutoencoderKL (the `vae` of Stable Diffusion 1 to 3, XL and FLUX), and the checkpoints of latent-diffusion,
taming-transformers and FLUX themselves (Rombach et al. 2022, arXiv:2112.10752), which count a decoder's levels from
the other end and keep attention as 1x1 convolutions.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from latents.autoencoders import Autoencoder
from latents.bottlenecks import KL
from latents.decoders import ConvDecoder
from latents.encoders import ConvEncoder
from latents.errors import UserError
from latents.interop.mapping import CONV, CONV1, LINEAR, NORM, Table, Tree
from latents.nn.norm import groups_of

Shapes = Mapping[str, tuple[int, ...]]


def _block(shortcut: str) -> Tree:
  return {
    "norm1": ("norm1", NORM), "conv1": ("conv1", CONV), "norm2": ("norm2", NORM), "conv2": ("conv2", CONV),
    "shortcut": (shortcut, CONV),
  }  # fmt: skip


RES = _block("conv_shortcut")
ATTENTION = {  # the second names are those before diffusers 0.17, which the first releases still have
  "norm": ("group_norm", NORM),
  "q": ("(to_q|query)", LINEAR),
  "k": ("(to_k|key)", LINEAR),
  "v": ("(to_v|value)", LINEAR),
  "out": ("(to_out.0|proj_attn)", LINEAR),
}
_MIDDLE = {
  "mid_block0": ("mid_block.resnets.0", RES),
  "mid_attention": ("mid_block.attentions.0", ATTENTION),
  "mid_block1": ("mid_block.resnets.1", RES),
  "norm_out": ("conv_norm_out", NORM),
}
_ENDS = {"conv_in": ("conv_in", CONV), "conv_out": ("conv_out", CONV)}
_PROJECT = {"project": ("quant_conv", CONV1)}

DIFFUSERS_HALVES: Tree = {
  "encoder": ("encoder", {
    **_ENDS, **_MIDDLE,
    "level{i}_block{j}": ("down_blocks.{i}.resnets.{j}", RES),
    "level{i}_attention{j}": ("down_blocks.{i}.attentions.{j}", ATTENTION),
    "level{i}_down": ("down_blocks.{i}.downsamplers.0", {"conv": ("conv", CONV)}),
  }),
  "decoder": ("", {
    "project": ("post_quant_conv", CONV),
    **{ours: (f"decoder.{theirs}", below) for ours, (theirs, below) in {**_ENDS, **_MIDDLE}.items()},
    "level{k}_block{j}": ("decoder.up_blocks.{~k}.resnets.{j}", RES),
    "level{k}_attention{j}": ("decoder.up_blocks.{~k}.attentions.{j}", ATTENTION),
    "level{k}_up": ("decoder.up_blocks.{~k}.upsamplers.0", {"conv": ("conv", CONV)}),
  }),
}  # fmt: skip
DIFFUSERS = Table.of({**DIFFUSERS_HALVES, "bottleneck": ("", _PROJECT)})

_LDM_RES = _block("nin_shortcut")
_LDM_ATTENTION = {
  "norm": ("norm", NORM), "q": ("q", CONV1), "k": ("k", CONV1), "v": ("v", CONV1), "out": ("proj_out", CONV1),
}  # fmt: skip
_LDM_MIDDLE = {
  **_ENDS,
  "mid_block0": ("mid.block_1", _LDM_RES),
  "mid_attention": ("mid.attn_1", _LDM_ATTENTION),
  "mid_block1": ("mid.block_2", _LDM_RES),
  "norm_out": ("norm_out", NORM),
}

LDM_HALVES: Tree = {
  "encoder": ("encoder", {
    **_LDM_MIDDLE,
    "level{i}_block{j}": ("down.{i}.block.{j}", _LDM_RES),
    "level{i}_attention{j}": ("down.{i}.attn.{j}", _LDM_ATTENTION),
    "level{i}_down": ("down.{i}.downsample", {"conv": ("conv", CONV)}),
  }),
  "decoder": ("", {
    "project": ("post_quant_conv", CONV),
    **{ours: (f"decoder.{theirs}", below) for ours, (theirs, below) in _LDM_MIDDLE.items()},
    "level{k}_block{j}": ("decoder.up.{k}.block.{j}", _LDM_RES),
    "level{k}_attention{j}": ("decoder.up.{k}.attn.{j}", _LDM_ATTENTION),
    "level{k}_up": ("decoder.up.{k}.upsample", {"conv": ("conv", CONV)}),
  }),
}  # fmt: skip
LDM_IGNORED = ("loss.", "model_ema.")  # of a checkpoint
LDM = Table.of({**LDM_HALVES, "bottleneck": ("", _PROJECT)}, LDM_IGNORED)


def model_of(shapes: Shapes, config: Mapping[str, Any], need: Callable[[str], tuple[int, ...]]) -> Autoencoder:
  """The autoencoder whose arrays have these shapes, by our paths. config, need: see `halves_of`."""
  encoder, decoder = halves_of(shapes, config, need)
  projected = "bottleneck/project/kernel" in shapes
  moments = need("bottleneck/project/kernel")[-1] if projected else encoder.out
  return Autoencoder(encoder=encoder, bottleneck=KL(dim=moments // 2, projected=projected), decoder=decoder)


def halves_of(
  shapes: Shapes, config: Mapping[str, Any], need: Callable[[str], tuple[int, ...]]
) -> tuple[ConvEncoder, ConvDecoder]:
  """The encoder and the decoder whose arrays have these shapes, by our paths.

  config: what the release says beside them, read for what no shape shows: the groups of the norms ("norm_num_groups",
  32 where nothing is said, as in every release). need: a path -> its shape, or a UserError that names the array.
  """
  if config.get("act_fn", "silu") not in ("silu", "swish"):
    raise UserError(f"config.json: the activation is silu, not {config['act_fn']!r}")
  groups = config.get("norm_num_groups", 32)
  if not isinstance(groups, int) or groups < 1:
    raise UserError(f"norm_num_groups is {groups!r}: it must be a whole number above 0")
  sides = {side: _side(side, shapes, need) for side in ("encoder", "decoder")}
  widths = [width for side in sides.values() for width in side.pop("widths")]
  if wrong := next((width for width in widths if width % groups), None):
    raise UserError(f"{groups} groups do not divide {wrong} channels: a config.json beside the file must say how many")
  norm: dict[str, Any] = {"groups": groups, "least": 1}
  into = shapes.get("decoder/project/kernel")
  return (
    ConvEncoder(out=need("encoder/conv_out/kernel")[-1], **sides["encoder"], **norm),
    ConvDecoder(
      channels=need("decoder/conv_out/kernel")[-1], project=into is not None,
      entry=into[-1] if into and into[-1] != into[-2] else 0, **sides["decoder"], **norm,
    ),
  )  # fmt: skip


def _side(side: str, shapes: Shapes, need: Callable[[str], tuple[int, ...]]) -> dict[str, Any]:
  """The fields of one half, and the widths of its levels; a level has as many blocks as the one with most."""
  found = [m for name in shapes if (m := re.match(rf"{side}/level(\d+)_(block|attention)(\d+)/", name))]
  levels = max((int(m[1]) for m in found), default=0) + 1
  blocks = max((int(m[3]) for m in found if m[2] == "block"), default=0) + 1
  widths = [need(f"{side}/level{i}_block0/conv1/kernel")[-1] for i in range(levels)]
  stem = need("encoder/conv_in/kernel")[-1] if side == "encoder" else widths[0]
  even = all(width % stem == 0 for width in widths)
  ch = stem if even else math.gcd(*widths)
  return {
    "ch": ch,
    "mult": tuple(width // ch for width in widths),
    "blocks": blocks if side == "encoder" else blocks - 1,
    "attention": tuple(sorted({int(m[1]) for m in found if m[2] == "attention"})),
    "mid_attention": f"{side}/mid_attention/q/kernel" in shapes,
    "widths": widths,
    **({} if even or side == "decoder" else {"stem": stem}),
  }


def config_of(model: Autoencoder, statistics: Mapping[str, Any], signal: tuple[int, ...]) -> dict[str, Any]:
  """What diffusers' `config.json` says of a model of ours, whose latents have these statistics.

  UserError for one that AutoencoderKL cannot be. What is equal in all channels is written as scale and shift,
  z normalised = scale (z - shift), else as the mean and standard deviation of each.
  """
  one, two, three = check_model(model)
  sizes = sizes_of("AutoencoderKL", one, three, signal)
  if one.out != 2 * two.dim:
    raise UserError(f"AutoencoderKL's encoder gives 2 x {two.dim} features for {two.dim} channels, this one {one.out}")
  if three.entry not in (0, two.dim):
    raise UserError(f"AutoencoderKL's decoder reads {two.dim} channels, this one {three.entry}")
  return {
    **sizes,
    "latent_channels": two.dim,
    "use_quant_conv": two.projected,
    "use_post_quant_conv": three.project,
    **units(statistics),
  }


def sizes_of(name: str, one: ConvEncoder, three: ConvDecoder, signal: tuple[int, ...]) -> dict[str, Any]:
  """What `config.json` says of the two halves. name: the class of diffusers. UserError for halves that it lacks."""
  widths, others = ([side.ch * m for m in side.mult] for side in (one, three))
  here, there = (widths, one.mid_attention), (others, three.mid_attention)
  if here != there or one.blocks != three.blocks or (one.stem or one.ch) != widths[0]:
    raise UserError(f"{name} has encoder and decoder of the same sizes, and a first layer as wide as level 0")
  groups = _groups(one, three)
  if len(groups) > 1:
    raise UserError(f"{name} has one number of groups in all norms, this model {', '.join(map(str, sorted(groups)))}")
  down, up = (["Attn" if i in side.attention else "" for i in range(len(widths))] for side in (one, three))
  return {
    "_class_name": name,
    "act_fn": "silu",
    "block_out_channels": widths,
    "down_block_types": [f"{kind}DownEncoderBlock2D" for kind in down],
    "up_block_types": [f"{kind}UpDecoderBlock2D" for kind in up[::-1]],
    "in_channels": signal[-1],
    "out_channels": three.channels,
    "layers_per_block": one.blocks,
    "mid_block_add_attention": one.mid_attention,
    "norm_num_groups": groups.pop(),
    "sample_size": signal[0],
  }


def check_model(model: Any) -> tuple[ConvEncoder, KL, ConvDecoder]:
  """The three parts of a model that this file's layouts hold; UserError for another."""
  parts = parts_of(model, KL)
  two: Any = parts[1]
  if not two.projected and two.spread != 1:
    raise UserError(f"this layout has no place for a spread of {two.spread} without a projection")
  if two.variance != "element":
    raise UserError(f"this layout has a variance for each number of a latent, this run's is '{two.variance}'")
  return parts


def parts_of(model: Any, bottleneck: type) -> tuple[ConvEncoder, Any, ConvDecoder]:
  """The three parts of a model whose halves are convolutional; UserError for other parts, or another bottleneck."""
  parts = tuple(getattr(model, name, None) for name in ("encoder", "bottleneck", "decoder"))
  for part, kind in zip(parts, (ConvEncoder, bottleneck, ConvDecoder), strict=True):
    if type(part) is not kind:
      found = type(model).__name__ if part is None else type(part).__name__
      raise UserError(
        f"this layout holds a ConvEncoder, {bottleneck.__name__} and a ConvDecoder, and the run has {found}"
      )
  return parts  # pyright: ignore[reportReturnType]


def check_ldm(model: Any) -> None:
  """As `check_model`, see `check_groups`."""
  one, _, three = check_model(model)
  check_groups(one, three)


def check_groups(one: ConvEncoder, three: ConvDecoder) -> None:
  """No file of latent-diffusion or taming says how many groups its norms have: their code has 32."""
  if (groups := _groups(one, three)) != {32}:
    said = ", ".join(map(str, sorted(groups)))
    raise UserError(f"latent-diffusion's code has 32 groups in all norms, this model {said}")


def _groups(*sides: ConvEncoder | ConvDecoder) -> set[int]:
  return {groups_of(side.ch * m, side.groups, side.least) for side in sides for m in side.mult}


def units(statistics: Mapping[str, Any]) -> dict[str, Any]:
  """The statistics of an artefact in diffusers' words: scaling_factor, shift_factor; or latents_mean, latents_std."""
  mean, std = (_channels(statistics[key]) for key in ("mean", "std"))
  if len(set(mean)) > 1 or len(set(std)) > 1:
    return {"scaling_factor": 1.0, "latents_mean": mean, "latents_std": std}
  shift = float(f"{mean[0]:.9g}")
  return {"scaling_factor": float(f"{1 / std[0]:.9g}"), **({"shift_factor": shift} if shift else {})}


def _channels(values: Any) -> list[float]:
  values = values if isinstance(values, list) else [values]
  if any(isinstance(value, list) for value in values):
    raise UserError("AutoencoderKL's latents have one unit a channel, this run's one an element of the grid")
  return [float(value) for value in values]

"""U-Nets in the layouts of diffusers: UNet2DConditionModel (Stable Diffusion 1 and 2) and UNet2DModel.

diffusers' `attention_head_dim` is the number of heads in the first of them, and the channels of a head in the second.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from latents.backbones import UNet
from latents.diffusion import Betas, DPMSolver2M, Process, Steps, Strided
from latents.errors import UserError
from latents.interop.conv import ATTENTION, RES
from latents.interop.mapping import CONV, DENSE, LINEAR, NORM, SAME, Table, Tree
from latents.nn.norm import groups_of
from latents.nn.time import FROM_0
from latents.priors import FlowPrior

Shapes = Mapping[str, tuple[int, ...]]

_WEIGHT: Tree = {"kernel": ("weight", DENSE)}
_RES: Tree = {**RES, "time": ("time_emb_proj", LINEAR)}
_SPATIAL: Tree = {
  "norm": ("norm", NORM), "in": ("proj_in", CONV), "out": ("proj_out", CONV),
  "blocks_{n}": ("transformer_blocks.{n}", {
    "norm1": ("norm1", NORM), "norm2": ("norm2", NORM), "norm3": ("norm3", NORM),
    "attention": ("attn1", {"qkv": (("to_q", "to_k", "to_v"), _WEIGHT), "out": ("to_out.0", LINEAR)}),
    "cross": ("attn2", {"q": ("to_q", _WEIGHT), "kv": (("to_k", "to_v"), _WEIGHT), "out": ("to_out.0", LINEAR)}),
    "mlp": ("ff", {"up": ("net.0.proj", LINEAR), "down": ("net.2", LINEAR)}),
  }),
}  # fmt: skip


def _tree(attention: Tree) -> Tree:
  between = {"conv": ("conv", CONV), **_RES}
  return {
    "conv_in": ("conv_in", CONV), "norm_out": ("conv_norm_out", NORM), "conv_out": ("conv_out", CONV),
    "time": ("time_embedding", {"fc1": ("linear_1", LINEAR), "fc2": ("linear_2", LINEAR)}),
    "label": ("class_embedding", {"embedding": ("weight", SAME)}),
    "down_{i}_{j}": ("down_blocks.{i}.resnets.{j}", _RES),
    "down_{i}_{j}_attention": ("down_blocks.{i}.attentions.{j}", attention),
    "down_{i}_half": ("down_blocks.{i}.downsamplers.0", between),
    "middle_0": ("mid_block.resnets.0", _RES),
    "middle_attention": ("mid_block.attentions.0", attention),
    "middle_1": ("mid_block.resnets.1", _RES),
    "up_{k}_{j}": ("up_blocks.{~k}.resnets.{j}", _RES),
    "up_{k}_{j}_attention": ("up_blocks.{~k}.attentions.{j}", attention),
    "up_{k}_double": ("up_blocks.{~k}.upsamplers.0", between),
  }  # fmt: skip


CONDITION = Table.of(_tree(_SPATIAL), refused=(
  ("add_embedding.", "it is told the picture's size beside the text (SDXL), our U-Net is not"),
))  # fmt: skip
PLAIN = Table.of(_tree(ATTENTION))
FIXED = {  # what no array shows, and our U-Net has no other way to do
  "act_fn": "silu", "flip_sin_to_cos": True, "freq_shift": 0, "norm_eps": 1e-5, "center_input_sample": False,
  "mid_block_scale_factor": 1, "time_embedding_type": "positional", "dual_cross_attention": False,
  "only_cross_attention": False, "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": False,
}  # fmt: skip
WORDS = 77  # tokens of a text where nothing says it: CLIP's


def model_of(
  shapes: Shapes, config: Mapping[str, Any], need: Callable[[str], tuple[int, ...]], plain: bool = False
) -> UNet:
  """The U-Net whose arrays have these shapes, by our paths.

  config: what the release says, read for what no shape shows: heads (8), groups of the norms (32), padding. need: a
  path -> its shape, or a UserError that names the array. plain: a UNet2DModel.
  """
  for name, wanted in FIXED.items():
    if name in config and config[name] not in (wanted, {"silu": "swish"}.get(str(wanted), wanted)):
      raise UserError(f"config.json: {name} is {config[name]!r}, our U-Net has {wanted!r}")
  found = [m for path in shapes if (m := re.match(r"down_(\d+)_(\d+)(_attention)?/(?:blocks_(\d+)/)?", path))]
  levels, blocks = (max((int(m[k]) for m in found), default=0) + 1 for k in (1, 2))
  widths = [need(f"down_{i}_0/conv1/kernel")[-1] for i in range(levels)]
  stem, out = need("conv_in/kernel")[-1], need("conv_out/kernel")[-1]
  even = all(width % stem == 0 for width in widths)
  ch = stem if even else math.gcd(*widths)
  fields: dict[str, Any] = {
    "ch": ch,
    "stem": 0 if even else stem,
    "mult": tuple(width // ch for width in widths),
    "blocks": blocks,
    "attention": tuple(sorted({int(m[1]) for m in found if m[3]})),
    "film": need("down_0_0/time/kernel")[-1] == 2 * widths[0],
    "classes": shapes["label/embedding"][0] - 1 if "label/embedding" in shapes else 0,
    "out": None if out == shapes["conv_in/kernel"][-2] else out,
    "resample": _resample(shapes, config),
    "groups": _groups(config, widths),
    "clock": FROM_0,
  }
  head = config.get("num_attention_heads") or config.get("attention_head_dim", 8)
  if plain:
    if config.get("attn_norm_num_groups") not in (None, config.get("norm_num_groups", 32)):
      raise UserError("config.json: attn_norm_num_groups is other than norm_num_groups, our U-Net has one number")
    bare = "middle_attention/norm/scale" not in shapes
    fields |= {"heads": 1} if head is None else {"head": head}
    return UNet(**fields, bare=bare)
  depth, project = [0] * levels, need("middle_attention/in/kernel")
  for m in found:
    depth[int(m[1])] = max(depth[int(m[1])], int(m[4] or -1) + 1)
  depth[-1] = max(int(m[1]) for path in shapes if (m := re.match(r"middle_attention/blocks_(\d+)/", path))) + 1
  linear = len(project) == 2
  if linear and not config:
    raise UserError("a config.json beside the file must say how many heads it has")
  same = {depth[i] for i in {*fields["attention"], levels - 1}}
  return UNet(
    **fields,
    heads=tuple(head) if isinstance(head, list | tuple) else head,
    depth=same.pop() if len(same) == 1 else tuple(depth),
    linear=linear,
    text=(WORDS, need("middle_attention/blocks_0/cross/kv/kernel")[0]),
  )


def _resample(shapes: Shapes, config: Mapping[str, Any]) -> str:
  if any(path.endswith(("_half/conv1/kernel", "_double/conv1/kernel")) for path in shapes):
    return "block"
  return "both" if config.get("downsample_padding", 1) else "end"


def _groups(config: Mapping[str, Any], widths: list[int]) -> int:
  groups = config.get("norm_num_groups", 32)
  if not isinstance(groups, int) or groups < 1:
    raise UserError(f"norm_num_groups is {groups!r}: it must be a whole number above 0")
  if wrong := next((width for width in widths if width % groups), None):
    raise UserError(f"{groups} groups do not divide {wrong} channels: a config.json beside the file must say how many")
  return 0 if groups == 32 and min(widths) >= 128 else groups


def latent(backbone: UNet, shapes: Shapes) -> tuple[int, ...]:
  """The smallest [*s,D] that it takes."""
  side = 2 ** (len(backbone.mult) - 1)
  return side, side, shapes["conv_in/kernel"][-2]


def prior_of(backbone: UNet, config: Mapping[str, Any]) -> FlowPrior:
  """Stable Diffusion's prior (the noise on its path, guidance 7.5), or for a UNet2DModel DDPM's; 25 steps."""
  del config
  path = Betas(0.00085, 0.012, rise="root") if backbone.text else Betas()
  return FlowPrior(
    backbone=backbone, times=Steps(), shift=1.0, sampler=DPMSolver2M(25), guidance=7.5 if backbone.text else 1.0,
    process=Process(path=path, predict="noise"), grid=Strided(),
  )  # fmt: skip


def config_of(model: UNet, units: Mapping[str, Any], shape: tuple[int, ...], plain: bool = False) -> dict[str, Any]:
  """What diffusers' `config.json` says of a U-Net of ours over latents [H,W,D]. UserError for one that it cannot be."""
  del units
  check_model(model, plain)
  levels = range(len(model.mult))
  widths = [model.ch * m for m in model.mult]
  heads = [width // model.head if model.head else _at(model.heads, i) for i, width in zip(levels, widths, strict=True)]
  kinds = ["" if i not in model.attention else "Attn" if plain else "CrossAttn" for i in levels]
  said: dict[str, Any] = {
    "_class_name": "UNet2DModel" if plain else "UNet2DConditionModel",
    "act_fn": "silu",
    "block_out_channels": widths,
    "down_block_types": [_kind(model, kind, "Down") for kind in kinds],
    "up_block_types": [_kind(model, kind, "Up") for kind in kinds[::-1]],
    "downsample_padding": int(model.resample != "end"),
    "in_channels": shape[-1],
    "out_channels": model.out or shape[-1],
    "layers_per_block": model.blocks,
    "norm_num_groups": _groups_of(model),
    "resnet_time_scale_shift": "scale_shift" if model.film else "default",
    "num_class_embeds": model.classes + 1 if model.classes else None,
    "sample_size": shape[0],
    "flip_sin_to_cos": True,
    "freq_shift": 0,
  }
  if plain:
    kind = "resnet" if model.resample == "block" else "conv"
    groups = said["norm_num_groups"] if model.film and not model.bare else None
    return said | {
      "attention_head_dim": model.head or None,
      "attn_norm_num_groups": groups,
      "downsample_type": kind,
      "upsample_type": kind,
    }
  return said | {
    "attention_head_dim": heads[0] if len(set(heads)) == 1 else heads,
    "cross_attention_dim": model.text[1],
    "transformer_layers_per_block": model.depth if isinstance(model.depth, int) else list(model.depth),
    "use_linear_projection": model.linear,
  }


def _kind(model: UNet, attention: str, way: str) -> str:
  """What diffusers calls a level."""
  if model.resample == "block" and not attention:
    return f"Resnet{way}sampleBlock2D"
  return f"{attention}{way}Block2D"


def check_model(model: Any, plain: bool = False) -> None:
  """UserError for a backbone that the layout does not hold."""
  if type(model) is not UNet:
    raise UserError(f"this layout holds a UNet, and the run has {type(model).__name__}")
  if plain and (model.text or model.context or model.depth):
    raise UserError("UNet2DModel has plain attention: this U-Net has spatial transformers")
  if not plain and (not model.text or model.context or model.resample == "block"):
    raise UserError(
      "UNet2DConditionModel attends to texts and has convolutions between its levels: this U-Net does not"
    )
  if plain and not model.head and model.heads != 1:
    raise UserError("UNet2DModel has heads of as many channels at every level: this U-Net says how many heads it has")
  if plain and model.bare and not model.film:
    raise UserError("UNet2DModel's middle attention has a norm where time is added")
  if (model.stem or model.ch) != model.ch * model.mult[0]:
    raise UserError("this layout has a first layer as wide as level 0")
  if model.clock != FROM_0:
    raise UserError(f"this layout counts steps from 0, with a clock of {FROM_0}: this U-Net has {model.clock}")
  _groups_of(model)


def _groups_of(model: UNet) -> int:
  groups = {groups_of(model.ch * m, model.groups or 32, 1 if model.groups else 4) for m in model.mult}
  if len(groups) > 1:
    raise UserError(f"this layout has one number of groups in all norms, this model {sorted(groups)}")
  return groups.pop()


def _at(value: int | tuple[int, ...], level: int) -> int:
  return value if isinstance(value, int) else value[level]

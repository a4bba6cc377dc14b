"""DiT, SiT and LightningDiT in the names of their own repositories, and the priors that they were trained as.

facebookresearch/DiT (arXiv:2212.09748), willisma/SiT (arXiv:2401.08740), hustvl/LightningDiT (arXiv:2501.01423). What
is turned on the way: SiT's and LightningDiT's time is 1 at the data and their velocity is data - noise, so the last
layer changes its sign and `DiT.clock` turns the time; DiT counts its steps from 0. SiT's last layer gives as many
channels again, which nobody reads (`DiT.spare`). The tables of positions are fixed: they are compared, dropped and not
written.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from latents.backbones import DiT
from latents.diffusion import DDPM, Betas, Euler, LogitNormal, Process, Steps, Strided, Uniform
from latents.errors import UserError
from latents.interop.mapping import LINEAR, SAME, Arrays, Table, Turn
from latents.nn.position import rotary, sincos
from latents.nn.time import FROM_0
from latents.priors import FlowPrior

Shapes = Mapping[str, tuple[int, ...]]
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # of S, B, L and XL: no array shows it
GUIDED = 3  # channels that the code of all three guides, whatever the latent
FORWARD = (-1.0, 1.0)  # what SiT's networks are told for t in [0,1]: 1 - t
SHIFT = 1 / 0.3  # of LightningDiT's times in sampling

_MINUS = Turn(lambda a: -a.T, lambda a: -a.T)
NEGATIVE = {"kernel": ("weight", _MINUS), "bias": ("bias", _MINUS)}
SCALE = {"scale": ("weight", SAME)}


def patches(side: int) -> Turn:
  """A convolution of patches [O,C,p,q] <-> a linear layer [p q C,O]."""

  def take(w: np.ndarray) -> np.ndarray:
    if w.ndim != 4 or w.shape[2:] != (side, side):
      told = "x".join(map(str, w.shape[2:])) if w.ndim == 4 else f"{w.ndim} axes"
      raise UserError(f"x_embedder.proj.weight has patches of {told}, and this layout has {side}x{side}: {_others()}")
    return w.transpose(2, 3, 1, 0).reshape(-1, w.shape[0])

  def give(w: np.ndarray) -> np.ndarray:
    if w.shape[0] % side**2:
      raise UserError(f"{w.shape[0]} numbers are no patch of {side}x{side}: {_others()}")
    return w.reshape(side, side, -1, w.shape[-1]).transpose(3, 2, 0, 1)

  return Turn(take, give)


def _others() -> str:
  return "dit, dit-4, dit-8, sit, lightning-dit and lightning-dit-2 are of patches 2, 4, 8, 2, 1 and 2"


def _table(side: int, mlp: tuple[str, str], last: Any) -> Table:
  linear = {"fc1": (mlp[0], LINEAR), "fc2": (mlp[1], LINEAR)}
  norms = {"q_norm": ("q_norm", SCALE), "k_norm": ("k_norm", SCALE)}
  return Table.of(
    {
      "embed": ("x_embedder.proj", {"kernel": ("weight", patches(side)), "bias": ("bias", SAME)}),
      "time": ("t_embedder.mlp", {"fc1": ("0", LINEAR), "fc2": ("2", LINEAR)}),
      "label": ("y_embedder.embedding_table", {"embedding": ("weight", SAME)}),
      "blocks_{i}": ("blocks.{i}", {
        "modulation": ("adaLN_modulation.1", LINEAR),
        "norm1": ("norm1", SCALE), "norm2": ("norm2", SCALE),
        "attention": ("attn", {"qkv": ("qkv", LINEAR), "out": ("proj", LINEAR), **norms}),
        "mlp": ("mlp", linear),
      }),
      "final_modulation": ("final_layer.adaLN_modulation.1", LINEAR),
      "final_norm": ("final_layer.norm_final", SCALE),
      "final": ("final_layer.linear", last),
    },
    ignored=("pos_embed", "feat_rope."),
  )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Family:
  """What the checkpoints of one repository have in common; a layout is made of it (`latents.interop.layouts`)."""

  side: int
  kind: str  # "dit", "sit" or "lightning-dit"

  @property
  def lightning(self) -> bool:
    """Whether it has RMSNorm, SwiGLU and rotary positions."""
    return self.kind == "lightning-dit"

  @property
  def clock(self) -> tuple[float, float]:
    """The backbone's."""
    return FROM_0 if self.kind == "dit" else FORWARD

  @property
  def table(self) -> Table:
    """Both directions."""
    mlp = ("w12", "w3") if self.lightning else ("fc1", "fc2")
    return _table(self.side, mlp, LINEAR if self.kind == "dit" else NEGATIVE)

  def model(self, shapes: Shapes, config: Mapping[str, Any], need: Callable[[str], tuple[int, ...]]) -> DiT:
    """The network whose arrays have these shapes. config: "num_heads", which no array shows, but of published widths or
    where queries and keys have norms; UserError where nothing says it."""
    depth = 1 + max((int(m[1]) for path in shapes if (m := re.match(r"blocks_(\d+)/", path))), default=0)
    rows, width = need("embed/kernel")
    out = need("final/kernel")[-1]
    normed = shapes.get("blocks_0/attention/q_norm/scale")
    heads = config.get("num_heads") or (width // normed[0] if normed else HEADS.get(width))
    if not isinstance(heads, int) or heads < 1 or width % heads:
      raise UserError(f"nothing says how many heads share a width of {width}: a config.json must have num_heads")
    double = out == 2 * rows
    return DiT(
      depth, width, heads, self.side, classes=need("label/embedding")[0] - 1, clock=self.clock,
      out=2 * rows // self.side**2 if double and self.kind == "dit" else None, spare=double and self.kind != "dit",
      norm="rms" if "final_norm/scale" in shapes else "layer", mlp="swiglu" if self.lightning else "gelu",
      rope=self.lightning, qk_norm=normed is not None,
    )  # fmt: skip

  def check(self, backbone: Any) -> None:
    """UserError for a backbone that the repository's code is not."""
    if type(backbone) is not DiT:
      raise UserError(f"{self.kind} holds a DiT, and the run has {type(backbone).__name__}")
    wanted = {
      "patch": self.side, "position": "sincos", "mlp": "swiglu" if self.lightning else "gelu", "rope": self.lightning,
      "bottleneck": 0, "context": 0, "text": (), "clock": self.clock, "mlp_ratio": 4.0,
      **({} if self.lightning else {"norm": "layer", "qk_norm": False}),
    }  # fmt: skip
    for name, value in wanted.items():
      if (found := getattr(backbone, name)) != value:
        raise UserError(f"{self.kind} has {name} = {value!r}, and the run's backbone {found!r}")
    if not backbone.classes:
      raise UserError(f"{self.kind} has labels, and the run's backbone reads none")

  def latent(self, backbone: DiT, shapes: Shapes) -> tuple[int, ...]:
    """[*s,D] of a small latent that it takes."""
    return (2 * self.side, 2 * self.side, shapes["embed/kernel"][0] // self.side**2)

  def prior(self, backbone: DiT, config: Mapping[str, Any]) -> FlowPrior:
    """As it was trained, and as its authors sample: DDPM's 250 steps with the learned variance; 250 steps of Euler,
    LightningDiT's times shifted (in sampling alone: the mean of the times of training takes it back)."""
    del config
    if self.kind == "dit":
      learned = "learned" if backbone.out else "none"
      process = Process(path=Betas(), predict="noise", variance=learned)
      sampler = DDPM(250, variance="learned" if backbone.out else "large")
      return FlowPrior(
        backbone=backbone, times=Steps(), shift=1.0, sampler=sampler, process=process, grid=Strided(), guidance=1.5,
        guided_channels=GUIDED,
      )  # fmt: skip
    if self.kind == "sit":
      return FlowPrior(
        backbone=backbone, times=Uniform(), shift=1.0, sampler=Euler(250), guidance=1.5, guided_channels=GUIDED
      )
    times, guided = LogitNormal(mean=-math.log(SHIFT)), (0.0, 0.875)
    return FlowPrior(
      backbone=backbone, times=times, shift=SHIFT, sampler=Euler(250), guidance=6.7, interval=guided,
      guided_channels=GUIDED,
    )  # fmt: skip


def compare(arrays: Arrays, what: str) -> None:
  """UserError where a table of positions in a file is not the one that is computed here."""
  for name, array in arrays.items():
    if name == "pos_embed":
      wanted, found = sincos, array.reshape(-1, array.shape[-1])
    elif name == "feat_rope.freqs_cos":
      wanted, found = (lambda grid, head: np.repeat(np.cos(rotary(grid, head)), 2, -1)), array
    else:
      continue
    side = math.isqrt(len(found))
    if side**2 != len(found) or np.abs(wanted((side, side), found.shape[-1]) - found).max() > 1e-4:
      raise UserError(f"{what}: {name} holds other positions than the fixed ones of a square grid")

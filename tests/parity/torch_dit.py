"""DiT, SiT and LightningDiT written in PyTorch from their equations, with the arrays' names of their own repositories.

arXiv:2212.09748 section 3, 2401.08740, 2501.01423 section 4. `kind` says which: SiT is DiT's network, of which half of
the output channels is not read; LightningDiT has RMSNorm, SwiGLU, rotary positions beside the fixed ones, and no
learned variance.
"""

from typing import Any

import torch
import torch.nn.functional as f
from torch import nn


def angles_of(side: int, count: int) -> Any:
  """[side^2, 2 count]: row times each frequency, then column times each."""
  rates = 10000.0 ** (-torch.arange(count, dtype=torch.float64) / count)
  rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
  return torch.cat([rows.reshape(-1, 1) * rates, columns.reshape(-1, 1) * rates], 1)


def table(side: int, width: int) -> Any:
  """[1, side^2, width]: sines and cosines of the column, then of the row."""
  column_first = angles_of(side, width // 4).reshape(-1, 2, width // 4).flip(1)
  return torch.cat([column_first.sin(), column_first.cos()], -1).reshape(1, side**2, width).float()


def norm(width: int, lightning: bool) -> nn.Module:
  return nn.RMSNorm(width, eps=1e-6) if lightning else nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)


class Rope(nn.Module):
  def __init__(self, side: int, head: int) -> None:
    super().__init__()
    angles = angles_of(side, head // 4).repeat_interleave(2, -1)
    self.register_buffer("freqs_cos", angles.cos().float())
    self.register_buffer("freqs_sin", angles.sin().float())

  def forward(self, x: Any) -> Any:
    """x [B,heads,N,F]: (a + ib) e^(i angle) of neighbours a, b."""
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
    return x * self.freqs_cos + turned * self.freqs_sin


class Attention(nn.Module):
  def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
    super().__init__()
    self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
    if qk_norm:
      self.q_norm, self.k_norm = (nn.RMSNorm(width // heads, eps=1e-6) for _ in range(2))

  def forward(self, x: Any, rope: Any) -> Any:
    b, n, width = x.shape
    q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
    if hasattr(self, "q_norm"):
      q, k = self.q_norm(q), self.k_norm(k)
    if rope is not None:
      q, k = rope(q), rope(k)
    return self.proj(f.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width))


class SwiGLU(nn.Module):
  def __init__(self, width: int) -> None:
    super().__init__()
    hidden = int(2 / 3 * 4 * width)
    self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

  def forward(self, x: Any) -> Any:
    gate, up = self.w12(x).chunk(2, -1)
    return self.w3(f.silu(gate) * up)


class Gelu(nn.Module):
  def __init__(self, width: int) -> None:
    super().__init__()
    self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

  def forward(self, x: Any) -> Any:
    return self.fc2(f.gelu(self.fc1(x), approximate="tanh"))


def modulated(layer: nn.Module, x: Any, shift: Any, scale: Any) -> Any:
  return layer(x) * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
  def __init__(self, width: int, heads: int, lightning: bool, qk_norm: bool) -> None:
    super().__init__()
    self.norm1, self.norm2 = norm(width, lightning), norm(width, lightning)
    self.attn = Attention(width, heads, qk_norm)
    self.mlp = SwiGLU(width) if lightning else Gelu(width)
    self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

  def forward(self, x: Any, c: Any, rope: Any) -> Any:
    shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, -1)
    x = x + gate1[:, None] * self.attn(modulated(self.norm1, x, shift1, scale1), rope)
    return x + gate2[:, None] * self.mlp(modulated(self.norm2, x, shift2, scale2))


class Final(nn.Module):
  def __init__(self, width: int, out: int, lightning: bool) -> None:
    super().__init__()
    self.norm_final, self.linear = norm(width, lightning), nn.Linear(width, out)
    self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

  def forward(self, x: Any, c: Any) -> Any:
    return self.linear(modulated(self.norm_final, x, *self.adaLN_modulation(c).chunk(2, -1)))


class Times(nn.Module):
  def __init__(self, width: int) -> None:
    super().__init__()
    self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

  def forward(self, t: Any) -> Any:
    angles = t[:, None] * 10000.0 ** (-torch.arange(128, device=t.device) / 128)
    return self.mlp(torch.cat([angles.cos(), angles.sin()], -1))


class Labels(nn.Module):
  def __init__(self, classes: int, width: int) -> None:
    super().__init__()
    self.embedding_table = nn.Embedding(classes + 1, width)


class Net(nn.Module):
  """x [B,C,side,side], t [B] as the repository counts it, y [B] -> [B,C or 2C,side,side]."""

  def __init__(self, kind: str, depth: int, width: int, heads: int, patch: int, channels: int, classes: int, side: int,
               qk_norm: bool = False) -> None:  # fmt: skip
    super().__init__()
    lightning = kind == "lightning-dit"
    self.kind, self.patch, self.channels, self.side = kind, patch, channels, side // patch
    self.x_embedder = nn.Module()
    self.x_embedder.proj = nn.Conv2d(channels, width, patch, patch)
    self.t_embedder, self.y_embedder = Times(width), Labels(classes, width)
    self.pos_embed = nn.Parameter(table(self.side, width), requires_grad=False)
    if lightning:
      self.feat_rope = Rope(self.side, width // heads)
    self.blocks = nn.ModuleList([Block(width, heads, lightning, qk_norm) for _ in range(depth)])
    self.final_layer = Final(width, patch**2 * channels * (1 if lightning else 2), lightning)

  def forward(self, x: Any, t: Any, y: Any) -> Any:
    h = self.x_embedder.proj(x).flatten(2).transpose(1, 2) + self.pos_embed
    c = self.t_embedder(t) + self.y_embedder.embedding_table(y)
    for block in self.blocks:
      h = block(h, c, getattr(self, "feat_rope", None))
    h, p = self.final_layer(h, c), self.patch
    h = h.view(len(x), self.side, self.side, p, p, -1).permute(0, 5, 1, 3, 2, 4)
    h = h.reshape(len(x), -1, self.side * p, self.side * p)
    return h[:, : self.channels] if self.kind == "sit" else h

  def guided(self, x: Any, t: Any, y: Any, null: int, scale: float) -> Any:
    """The repositories' guided forward: of the first three channels alone, which are all that they guide."""
    with_label, without = self(x, t, y), self(x, t, torch.full_like(y, null))
    first = without[:, :3] + scale * (with_label[:, :3] - without[:, :3])
    return torch.cat([first, with_label[:, 3:]], 1)


def random_net(seed: int, *given: Any, **options: Any) -> Net:
  """With weights that leave nothing at 0."""
  torch.manual_seed(seed)
  net = Net(*given, **options).eval()
  with torch.no_grad():
    for name, parameter in net.named_parameters():
      if name != "pos_embed":
        parameter.normal_(1.0 if "norm" in name else 0.0, 0.1)
  return net

"""U-ViT against itself written in PyTorch from its paper (2209.12152, section 3), with the same random weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as f
from torch import nn

from latents.backbones import UViT
from latents.interop.mapping import CONV, LINEAR, NORM, SAME, Table
from latents.train.state import nest
from tests.parity.test_dit import patches


class Block(nn.Module):
  def __init__(self, width: int, heads: int, skip: bool) -> None:
    super().__init__()
    self.heads = heads
    self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
    self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
    self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
    if skip:
      self.skip_linear = nn.Linear(2 * width, width)

  def forward(self, x: Any, skip: Any) -> Any:
    if skip is not None:
      x = self.skip_linear(torch.cat([x, skip], -1))
    b, n, width = x.shape
    q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
    x = x + self.proj(f.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width))
    return x + self.fc2(f.gelu(self.fc1(self.norm2(x))))


class Net(nn.Module):
  """x [B,C,side,side], t [B] in 0..1000, y [B] or None."""

  def __init__(
    self, depth: int, width: int, heads: int, patch: int, channels: int, classes: int, side: int, conv: bool
  ) -> None:
    super().__init__()
    self.width, self.half, self.patch, self.side, self.extras = (
      width,
      depth // 2,
      patch,
      side // patch,
      1 + (classes > 0),
    )
    self.embed = nn.Conv2d(channels, width, patch, patch)
    if classes:
      self.label_emb = nn.Embedding(classes + 1, width)
    self.pos_embed = nn.Parameter(torch.zeros(1, self.extras + self.side**2, width))
    self.blocks = nn.ModuleList([Block(width, heads, i > depth // 2) for i in range(depth)])
    self.norm, self.decoder_pred = nn.LayerNorm(width), nn.Linear(width, patch**2 * channels)
    self.final_layer = nn.Conv2d(channels, channels, 3, padding=1) if conv else nn.Identity()

  def forward(self, x: Any, t: Any, y: Any) -> Any:
    h = self.embed(x).flatten(2).transpose(1, 2)
    angles = t[:, None] * 10000.0 ** (-torch.arange(self.width // 2) / (self.width // 2))
    h = torch.cat([torch.cat([angles.cos(), angles.sin()], -1)[:, None], h], 1)
    if y is not None:
      h = torch.cat([self.label_emb(y)[:, None], h], 1)
    h, kept = h + self.pos_embed, []
    for i, block in enumerate(self.blocks):
      h = block(h, kept.pop() if i > self.half else None)
      if i < self.half:
        kept.append(h)
    h, p = self.decoder_pred(self.norm(h))[:, self.extras :], self.patch
    h = h.view(len(x), self.side, self.side, p, p, -1).permute(0, 5, 1, 3, 2, 4)
    return self.final_layer(h.reshape(len(x), -1, self.side * p, self.side * p))


def table(patch: int) -> Table:
  return Table.of(
    {
      "embed": ("embed", {"kernel": ("weight", patches(patch)), "bias": ("bias", SAME)}),
      "label": ("label_emb", {"embedding": ("weight", SAME)}),
      "blocks_{i}": ("blocks.{i}", {
        "skip": ("skip_linear", LINEAR), "norm1": ("norm1", NORM), "norm2": ("norm2", NORM),
        "attention": ("", {"qkv": ("qkv", LINEAR), "out": ("proj", LINEAR)}),
        "mlp": ("", {"fc1": ("fc1", LINEAR), "fc2": ("fc2", LINEAR)}),
      }),
      "norm_out": ("norm", NORM), "final": ("decoder_pred", LINEAR), "conv_out": ("final_layer", CONV),
    },
    ignored=("pos_embed",),
  )  # fmt: skip


@pytest.mark.parametrize(
  "sizes", [(5, 32, 4, 2, 4, 10, 8, True), (3, 24, 2, 1, 3, 0, 4, False), (7, 16, 1, 4, 5, 2, 8, False)]
)
def test_outputs_agree(sizes):
  depth, width, heads, patch, channels, classes, side, conv = sizes
  torch.manual_seed(0)
  net = Net(*sizes).eval()
  with torch.no_grad():
    for name, parameter in net.named_parameters():
      parameter.normal_(1.0 if "norm" in name and "weight" in name else 0.0, 0.1)
  weights = {name: array.numpy() for name, array in net.state_dict().items()}
  ours = table(patch).take(weights, "U-ViT") | {"positions": weights["pos_embed"][0]}
  model, params = UViT(depth, width, heads, patch, classes, conv=conv), {"params": nest(ours)}
  x = np.random.default_rng(0).normal(size=(3, side, side, channels)).astype(np.float32)
  tau, label = np.array([0.001, 0.5, 1.0], np.float32), np.array([0, 1, classes])
  cond = {"label": label} if classes else None
  shapes = jax.eval_shape(model.init, jax.random.key(0), x, tau, cond)
  assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes)
  with torch.no_grad():
    given = torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(1000 * tau)
    expected = net(*given, torch.from_numpy(label) if classes else None).numpy()
  got = np.asarray(jax.jit(model.apply)(params, x, jnp.asarray(tau), cond)).transpose(0, 3, 1, 2)
  assert np.abs(expected).max() > 0.1
  assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()

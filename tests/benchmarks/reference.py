"""The reference of the benchmarks of training and sampling: the same networks and losses in PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as f  # pyright: ignore[reportMissingImports]
from diffusers import AutoencoderKL, UNet2DConditionModel  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from tests.parity import torch_dit


def data(task: str, batch: int, classes: int) -> list[Any]:
  """Arrays as the reference takes them: channels first."""
  rng = np.random.default_rng(0)
  if task == "autoencoder":
    return [rng.uniform(-1, 1, (batch, 3, 64, 64)).astype(np.float32)]
  return [rng.normal(size=(batch, 8, 16, 16)).astype(np.float32), np.arange(batch) % classes]


def place(device: str) -> Any:
  """The device of a side of "cpu" (one thread) or "gpu"; products in TF32 there, as jax does by default."""
  if device == "cpu":
    torch.set_num_threads(1)
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
  return torch.device("cuda" if device == "gpu" else "cpu")


def autoencoder(widths: tuple[int, ...] = (32, 64, 128, 128), dim: int = 4) -> tuple[Any, Callable]:
  """diffusers' AutoencoderKL; mean squared error and the KL per element."""
  model = AutoencoderKL(
    block_out_channels=widths,
    down_block_types=("DownEncoderBlock2D",) * len(widths),
    up_block_types=("UpDecoderBlock2D",) * len(widths),
    layers_per_block=2,
    latent_channels=dim,
  )

  def loss(model: Any, x: Any) -> Any:
    posterior = model.encode(x).latent_dist
    x_hat = model.decode(posterior.sample()).sample
    return torch.nn.functional.mse_loss(x_hat, x) + 1e-6 * posterior.kl().mean() / posterior.mean[0].numel()

  return model, loss


VGG = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # width and convolutions of each stage, torchvision's vgg16


def _lpips_shapes() -> dict[str, tuple[int, ...]]:
  found, index, before = {}, 0, 3
  for stage, (width, depth) in enumerate(VGG):
    for _ in range(depth):
      found |= {f"features.{index}.weight": (width, before, 3, 3), f"features.{index}.bias": (width,)}
      before, index = width, index + 2
    found[f"lin{stage}.model.1.weight"] = (1, width, 1, 1)
    index += 1
  return found


LPIPS = _lpips_shapes()  # the arrays that `lpips` takes, by torchvision's names and those of the package lpips


def lpips(w: dict[str, Any]) -> Callable:
  """(x, x_hat) [B,3,H,W] -> [B,1,1,1]: LPIPS v0.1 on VGG16 (1801.03924); the package lpips passes the two alike."""
  ends = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
  shift, scale = (torch.tensor(v, device=w["features.0.bias"].device)[:, None, None] for v in ends)

  def features(h: Any) -> list[Any]:
    taps, index, h = [], 0, (h - shift) / scale
    for stage, (_, depth) in enumerate(VGG):
      h = f.max_pool2d(h, 2) if stage else h
      for _ in range(depth):
        h = f.conv2d(h, w[f"features.{index}.weight"], w[f"features.{index}.bias"], padding=1)
        h, index = f.relu(h, inplace=True), index + 2
      taps.append(h / ((h**2).sum(1, keepdim=True).sqrt() + 1e-10))
      index += 1
    return taps

  def distance(x: Any, x_hat: Any) -> Any:
    pairs = enumerate(zip(features(x), features(x_hat), strict=True))
    return sum(f.conv2d((a - b) ** 2, w[f"lin{i}.model.1.weight"]).mean((2, 3), keepdim=True) for i, (a, b) in pairs)

  return distance


def patchgan(ch: int = 64, layers: int = 3) -> Any:
  """taming's discriminator (1611.04076, 2012.09841): 4-wide convolutions, batch norm but in the first, leaky ReLU."""
  net, before = nn.Sequential(), 3
  for i in range(layers + 1):
    width, normed = ch * min(2**i, 8), i > 0
    net.add_module(f"conv{i}", nn.Conv2d(before, width, 4, 2 if i < layers else 1, 1, bias=not normed))
    if normed:
      net.add_module(f"norm{i}", nn.BatchNorm2d(width, track_running_stats=False))
    net.add_module(f"act{i}", nn.LeakyReLU(0.2, True))
    before = width
  net.add_module("conv_out", nn.Conv2d(before, 1, 4, 1, 1))
  return net


def dit(classes: int) -> tuple[Any, Callable]:
  """DiT-S/2 (2212.09748): 12 blocks of width 384 with 6 heads, adaLN-Zero; flow matching on posterior draws."""
  width, heads, depth = 384, 6, 12

  def modulate(x: Any, shift: Any, scale: Any) -> Any:
    return x * (1 + scale[:, None]) + shift[:, None]

  class Block(nn.Module):
    def __init__(self) -> None:
      super().__init__()
      self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
      self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
      self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
      self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Any, c: Any) -> Any:
      shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(f.silu(c)).chunk(6, -1)
      b, n, _ = x.shape
      q, k, v = self.qkv(modulate(self.norm(x), shift1, scale1)).view(b, n, 3, heads, -1).permute(2, 0, 3, 1, 4)
      h = f.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width)
      x = x + gate1[:, None] * self.out(h)
      h = self.down(f.gelu(self.up(modulate(self.norm(x), shift2, scale2)), approximate="tanh"))
      return x + gate2[:, None] * h

  class Net(nn.Module):
    def __init__(self) -> None:
      super().__init__()
      self.embed = nn.Linear(16, width)
      self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
      self.label = nn.Embedding(classes + 1, width)
      self.blocks = nn.ModuleList([Block() for _ in range(depth)])
      self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
      self.modulation, self.final = nn.Linear(width, 2 * width), nn.Linear(width, 16)
      self.register_buffer("position", torch.randn(1, 64, width) * 0.5)

    def forward(self, z: Any, t: Any, label: Any) -> Any:
      b = len(z)
      tokens = z.view(b, 4, 8, 2, 8, 2).permute(0, 2, 4, 3, 5, 1).reshape(b, 64, 16)
      rates = torch.exp(-9.21 * torch.arange(128, device=z.device) / 128)
      angles = 1000 * t[:, None] * rates
      c = self.time(torch.cat([angles.cos(), angles.sin()], -1)) + self.label(label)
      h = self.embed(tokens) + self.position
      for block in self.blocks:
        h = block(h, c)
      shift, scale = self.modulation(f.silu(c)).chunk(2, -1)
      h = self.final(modulate(self.norm(h), shift, scale))
      return h.view(b, 8, 8, 2, 2, 4).permute(0, 5, 1, 3, 2, 4).reshape(b, 4, 16, 16)

  return Net(), flow(classes)


def flow(classes: int, direction: float = 0.0) -> Callable:
  """Flow matching on posterior draws [B,8,16,16] and labels [B], a tenth of which is dropped: (model, stored, label) ->
  loss. direction: weight of 1 - cosine."""

  def loss(model: Any, stored: Any, label: Any) -> Any:
    mean, logvar = stored.chunk(2, 1)
    z = mean + (0.5 * logvar.clamp(-30, 20)).exp() * torch.randn_like(mean)
    tau, eps = torch.sigmoid(torch.randn(len(z), device=z.device)), torch.randn_like(z)
    mixed = (1 - tau[:, None, None, None]) * z + tau[:, None, None, None] * eps
    label = torch.where(torch.rand(len(z), device=z.device) < 0.1, classes, label)
    made = model(mixed, tau, label)
    value = f.mse_loss(made, eps - z)
    return value + direction * (1 - f.cosine_similarity(made, eps - z, 1)).mean() if direction else value

  return loss


def lightning(classes: int) -> tuple[Any, Callable]:
  """LightningDiT (2501.01423) of DiT-S/2's size."""
  return torch_dit.Net("lightning-dit", 12, 384, 6, 2, 4, classes, 16), flow(classes, 1.0)


def unet(classes: int) -> tuple[Any, Callable]:
  """diffusers' UNet2DConditionModel of two levels, whose condition is one learned token of 256 numbers a class."""

  class Net(nn.Module):
    def __init__(self) -> None:
      super().__init__()
      self.net = UNet2DConditionModel(
        in_channels=4, out_channels=4, block_out_channels=(128, 256), layers_per_block=1, attention_head_dim=4,
        cross_attention_dim=256, down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
      )  # fmt: skip
      self.label = nn.Embedding(classes + 1, 256)

    def forward(self, z: Any, t: Any, label: Any) -> Any:
      return self.net(z, 1000 * t, encoder_hidden_states=self.label(label)[:, None]).sample

  return Net(), flow(classes)


TASKS = {"autoencoder": lambda classes: autoencoder(), "dit": dit, "lightning": lightning, "unet": unet}


def transformer(classes: int, vocab: int, length: int, width: int, depth: int, heads: int) -> Any:
  """LlamaGen's kind (2406.06525): RMSNorm, SwiGLU, no biases, learned positions, the class as token 0.

  forward(tokens [B], i, cache) -> logits [B,V] of token i; cache: per block keys and values [B,heads,L,F].
  """
  hidden = -(-(8 * width // 3) // 256) * 256

  class Block(nn.Module):
    def __init__(self) -> None:
      super().__init__()
      self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
      self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
      self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
      self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Any, i: int, keys: Any, values: Any) -> Any:
      q, k, v = self.qkv(self.norm1(x)).view(len(x), 3, heads, -1).unbind(1)
      keys[:, :, i], values[:, :, i] = k, v
      h = f.scaled_dot_product_attention(q[:, :, None], keys[:, :, : i + 1], values[:, :, : i + 1])
      x = x + self.out(h.reshape(len(x), width))
      h = self.norm2(x)
      return x + self.down(f.silu(self.gate(h)) * self.up(h))

  class Net(nn.Module):
    def __init__(self) -> None:
      super().__init__()
      self.embed, self.label = nn.Embedding(vocab, width), nn.Embedding(classes + 1, width)
      self.positions = nn.Parameter(0.02 * torch.randn(length, width))
      self.blocks = nn.ModuleList([Block() for _ in range(depth)])
      self.norm, self.head = nn.RMSNorm(width, eps=1e-5), nn.Linear(width, vocab, bias=False)

    def cache(self, batch: int, place: Any) -> list[Any]:
      shape = (batch, heads, length, width // heads)
      return [(torch.zeros(shape, device=place), torch.zeros(shape, device=place)) for _ in range(depth)]

    def forward(self, before: Any, label: Any, i: int, cache: list[Any]) -> Any:
      h = (self.label(label) if i == 0 else self.embed(before)) + self.positions[i]
      for block, (keys, values) in zip(self.blocks, cache, strict=True):
        h = block(h, i, keys, values)
      return self.head(self.norm(h))

  return Net()

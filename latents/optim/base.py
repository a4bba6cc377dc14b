"""The contract of an optimiser."""

import abc
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from latents.types import Array

Tree = Any
Decays = Callable[[str, Array], bool]


class Optimizer(abc.ABC):
  """A frozen dataclass that gives an optax transformation.

  Each has lr: peak learning rate, never scaled by the batch or the number of devices. clip: largest global norm; 0 =
  none. warmup: updates of linear warm-up, from lr / warmup at the first to lr after the last of them. schedule:
  constant, or cosine to `final` * lr at `steps`; at update `over` where one has that field and it is not 0, and then it
  stays there; or "root", lr up to update `over` (0 = the warm-up's end) and lr sqrt(over / t) after it. decays:
  which leaves the weight decay is of (`DECAYS`). The schedule counts the updates of its own
  network: one that begins later warms up then, and `steps` are those that are left to it.
  """

  lr: float  # annotations of a class that is no dataclass: the order of a member's own fields is its own
  clip: float
  warmup: int
  schedule: Literal["constant", "cosine", "root"]
  final: float
  decays: str
  over = 0  # a field where one has it

  @abc.abstractmethod
  def transform(self, schedule: optax.Schedule, decays: Decays | None) -> optax.GradientTransformation:
    """The update rule. schedule: the learning rate by the number of updates. decays: whether a leaf decays, by its path
    ("encoder/conv_in/kernel") and itself; None = all do."""

  def project(self, params: Tree) -> Tree:
    """What becomes of the parameters after an update (a normalisation, say); here: nothing."""
    return params

  def rate(self, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step, for a run of `steps` steps."""
    warmup = min(self.warmup, steps)
    if self.schedule == "cosine":
      after = optax.cosine_decay_schedule(self.lr, max((self.over or steps) - warmup, 1), alpha=self.final)
    elif self.schedule == "root":
      level = self.over or warmup or 1
      after = lambda count: self.lr * jnp.sqrt(level / jnp.maximum(count + warmup, level))  # noqa: E731
    else:
      after = optax.constant_schedule(self.lr)
    if not warmup:
      return after
    return optax.join_schedules([optax.linear_schedule(self.lr / warmup, self.lr, warmup), after], [warmup])

  def make(self, steps: int) -> optax.GradientTransformation:
    """The optax transformation for a run of `steps` steps, clipping first."""
    clip = [optax.clip_by_global_norm(self.clip)] if self.clip else []
    return optax.chain(*clip, self.transform(self.rate(steps), DECAYS[self.decays]))


def is_kernel(path: str) -> bool:
  """Whether the leaf at a path is a kernel of a layer."""
  return path.rpartition("/")[2] == "kernel"


def is_matrix(path: str, leaf: Array) -> bool:
  """Whether the leaf at a path has two axes or more, and is no bias or scale of several heads or stacked layers."""
  return leaf.ndim >= 2 and path.rpartition("/")[2] not in ("bias", "scale")


# "kernels": no biases, scales of norms, embeddings, or whatever has another name than "kernel". "matrices": embeddings
# and positions too, as nanoGPT (`configure_optimizers`) and after it LlamaGen decay all that has two axes.
DECAYS: dict[str, Decays | None] = {"all": None, "kernels": lambda path, _: is_kernel(path), "matrices": is_matrix}


def mask(decays: Decays | None) -> Callable[[Tree], Tree] | None:
  """A rule on leaves -> optax's mask, a function of the parameters; None -> None."""
  if decays is None:
    return None
  return lambda params: jax.tree_util.tree_map_with_path(lambda path, leaf: decays(path_of(path), leaf), params)


def path_of(path: tuple) -> str:
  """jax's path of a leaf in nested dicts -> "a/b/c"."""
  return "/".join(str(getattr(key, "key", key)) for key in path)

"""Sampling: prior.sample -> frozen.decode, in chunks of one compiled size."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from latents import media
from latents.declare import Experiment
from latents.errors import UserError
from latents.frozen import Frozen
from latents.machine import hosts
from latents.nn.streams import streams
from latents.train import sharding
from latents.train.build_step import InMesh
from latents.types import Latent


class Sampler:
  """Draws latents and signals from a finished experiment.

  arrays: what `Frozen` needs of stage 1. prior: the prior's variables. Both lie on the mesh, and so do the
  chunks while they are drawn. A draw depends on (seed, its number, its label, guidance) and on the chunk
  size, not on how many are asked for, nor on the mesh.
  """

  def __init__(self, experiment: Experiment, mesh: jax.sharding.Mesh, arrays: Any, prior: Any, chunk: int = 64):
    if experiment.stage2 is None:
      raise UserError(f"{experiment.name} has no prior (stage 2), so it cannot sample")
    self.frozen, self.prior = Frozen(experiment.stage1.model), experiment.stage2.prior
    self.mesh, self.arrays, self.variables = mesh, arrays, prior
    self.chunk = -(-chunk // sharding.parts(mesh)) * sharding.parts(mesh)
    self.kind = media.kind(experiment.stage2.data.kind)
    one, two = experiment.stage1, experiment.stage2
    self.conditioner = two.conditioner
    asked = [stage.conditioner for stage, part in ((two, two.prior), (one, one.model)) if part.conditions]
    self.classes = asked[0].count(two.data.classes) if asked else 0  # conditions that can be asked for
    self.tell = one.conditioner.asked if one.model.conditions else lambda _: None  # what the decoder is told
    latent = self.frozen.shape(arrays, experiment.stage2.data.shape)
    self.shape = (latent.codes if self.prior.discrete else latent.z).shape
    self._draw = InMesh(mesh, jax.jit(self._draw_chunk, static_argnums=3))
    self._decode = InMesh(mesh, jax.jit(lambda arrays, latent, key: self.frozen.decode(arrays, latent, key=key)))

  def _draw_chunk(self, variables: Any, labels: Any, key: Any, guidance: float | None) -> Latent:
    prior: Any = self.prior
    cond = self.conditioner.asked(labels)
    drawn = prior.apply(variables, cond, shape=self.shape, guidance=guidance, method="sample", rngs=streams(key))
    return drawn.replace(given=self.tell(labels))

  def labels(self, labels: Sequence[int] | None, number: int | None) -> np.ndarray:
    """int32 labels to draw: those asked for, repeated up to `number`; all classes in turn by default."""
    if labels is not None and not self.classes:
      raise UserError("this experiment has no labels; leave --labels out")
    turn = list(labels) if labels is not None else list(range(max(self.classes, 1)))
    for label in turn:
      if not 0 <= label < max(self.classes, 1):
        raise UserError(f"label {label} is not one of 0 to {self.classes - 1}")
    number = len(turn) if number is None else number
    if number < 1 or not turn:
      raise UserError(f"cannot draw {number} samples of {len(turn)} labels")
    return np.asarray([turn[i % len(turn)] for i in range(number)], np.int32)

  def named(self, words: Sequence[str], names: tuple[str, ...]) -> list[int]:
    """The numbers of conditions by their names; names: of the data's labels. UserError with the nearest."""
    return [self.conditioner.number(word, names) for word in words]

  def latents(self, labels: np.ndarray, seed: int, guidance: float | None) -> Iterator[tuple[Latent, int]]:
    """Chunks of normalised latents, each with the number of its rows that were asked for."""
    for first in range(0, len(labels), self.chunk):
      part = labels[first : first + self.chunk]
      full = np.concatenate([part, np.zeros(self.chunk - len(part), np.int32)])
      key = jax.random.fold_in(jax.random.key(seed), first)
      yield self._draw(self.variables, sharding.spread(full, self.mesh), key, guidance), len(part)

  def chunks(self, labels: np.ndarray, *, seed: int = 0, guidance: float | None = None) -> Iterator[np.ndarray]:
    """int32 labels [N] -> samples [n,*S,C] float32 in [-1,1] (clipped; text int32 [n,T]), a chunk at a time."""
    for number, (latent, rows) in enumerate(self.latents(labels, seed, guidance)):
      key = jax.random.fold_in(jax.random.key(seed), 2**30 + number)
      yield self.kind.clip(hosts.gather(self._decode(self.arrays, latent, key))[:rows])

  def signals(self, labels: np.ndarray, *, seed: int = 0, guidance: float | None = None) -> np.ndarray:
    """int32 labels [N] -> samples [N,*S,C] float32 in [-1,1] (clipped)."""
    return np.concatenate(list(self.chunks(labels, seed=seed, guidance=guidance)))

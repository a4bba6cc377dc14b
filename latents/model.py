"""`latents.load(run)`: a finished run as an object with encode, decode, reconstruct and sample."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from latents import artefact
from latents.errors import UserError
from latents.experiment import Experiment, Mesh
from latents.folder import Folder, open_folder
from latents.frozen import Frozen, streams
from latents.sample import Sampler
from latents.train import build_step, sharding
from latents.train.state import flatten, nest
from latents.types import Latent


class Model:
  """A run's autoencoder and prior on this machine's devices. Signals are [B,*S,C] float in [-1,1]."""

  def __init__(self, experiment: Experiment, arrays: dict[str, Any], prior: Any = None, fingerprint: str = ""):
    self.experiment, self.arrays, self.prior, self.fingerprint = experiment, arrays, prior, fingerprint
    self.frozen = Frozen(experiment.stage1.model)
    self._encode = jax.jit(lambda a, x, k: self.frozen.encode(a, x, key=k, train=False))
    self._decode = jax.jit(
      lambda a, z, k, steps: self.frozen.decode(a, z, key=k, steps=steps), static_argnames="steps"
    )
    self._decodings = jax.jit(self._all_decodings)

  def encode(self, x: Any) -> Latent:
    """x [B,*S,C] in [-1,1] -> normalised Latent (the mode): what a prior models."""
    x = np.asarray(x)
    channels = self.experiment.stage1.data.shape[-1]
    if x.ndim != len(self.experiment.stage1.data.shape) + 1 or x.shape[-1] != channels:
      raise UserError(f"encode takes [B,*S,{channels}] in [-1,1], not an array of shape {x.shape}")
    return self._encode(self.arrays, jnp.asarray(x, jnp.float32), jax.random.key(0))

  def decode(self, latent: Latent, *, steps: int | None = None, seed: int = 0) -> np.ndarray:
    """Normalised Latent -> x [B,*S,C] in [-1,1] (clipped). steps, seed: for generative decoders."""
    bare = latent.replace(terms={}, logs={})
    return np.clip(np.asarray(self._decode(self.arrays, bare, jax.random.key(seed), steps=steps)), -1, 1)

  def reconstruct(self, x: Any, *, steps: int | None = None, seed: int = 0) -> np.ndarray:
    """decode(encode(x))."""
    return self.decode(self.encode(x), steps=steps, seed=seed)

  def decodings(self, x: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """Every way to decode that the model offers (numbers of steps, prefixes): name -> x [B,*S,C]."""
    bare = self.encode(x).replace(terms={}, logs={})
    out = self._decodings(self.arrays, bare, jax.random.key(seed))
    return {name: np.clip(np.asarray(y), -1, 1) for name, y in out.items()}

  def sample(
    self,
    labels: Sequence[int] | None = None,
    *,
    number: int | None = None,
    seed: int = 0,
    guidance: float | None = None,
  ) -> np.ndarray:
    """Samples [N,*S,C] in [-1,1]: one a label, or `number` over the labels in turn."""
    return self.sampler.signals(self.sampler.labels(labels, number), seed=seed, guidance=guidance)

  @functools.cached_property
  def sampler(self) -> Sampler:
    """The sampler of stage 2; UserError if the run has none that is finished."""
    if self.experiment.stage2 is not None and self.prior is None:
      raise UserError("stage 2 of this run is not finished: the same `latents run` command goes on with it")
    return Sampler(self.experiment, self.arrays, self.prior)

  def _all_decodings(self, arrays: Any, latent: Latent, key: Any) -> dict[str, Any]:
    latent = self.frozen.restore_scale(arrays, latent)
    model: Any = self.experiment.stage1.model
    return model.apply(arrays["variables"], latent, method="decodings", rngs=streams(key))


def stage1_arrays(experiment: Experiment, made: artefact.Artefact, where: str) -> dict[str, Any]:
  """A stage-1 artefact -> the numpy tree `Frozen` takes, its names and shapes checked."""
  wanted = build_step.abstract_autoencoder(experiment)
  artefact.check_shapes(where, made.weights, flatten(wanted["variables"]))
  variables = {"params": {}, **nest(made.weights)}
  statistics = made.facts["statistics"]
  scale = {k: np.asarray(statistics[k], np.float32) for k in ("mean", "std")}
  if any(v.shape != wanted["mean"].shape for v in scale.values()):
    raise UserError(f"{where} has statistics of {scale['mean'].shape}, the experiment needs {wanted['mean'].shape}")
  return {"variables": variables, **scale}


def load(run: str | Path) -> Model:
  """The model of a finished run from its folder alone. UserError if the folder is not a run's."""
  return load_folder(open_folder(Path(run)))


def load_folder(folder: Folder) -> Model:
  """As `load`, of a folder that is open."""
  experiment = folder.experiment
  one = folder.artefact(1)
  if one is None:
    raise UserError(f"{folder.path} has no finished stage 1: the same `latents run` command goes on with it")
  mesh = sharding.make_mesh(Mesh())  # the run's own mesh may be a pod's: here, what this machine has
  arrays = sharding.place(stage1_arrays(experiment, one, str(folder.stage(1))), mesh)
  two = folder.artefact(2) if experiment.stage2 is not None else None
  if two is None:
    return Model(experiment, arrays, None, one.fingerprint)
  if two.facts.get("stage1") != one.fingerprint:
    raise UserError(f"{folder.stage(2)} was trained on another stage 1 than {folder.stage(1)} holds")
  wanted = build_step.abstract_prior(experiment)
  artefact.check_shapes(str(folder.stage(2)), two.weights, flatten(wanted))
  prior = sharding.place({"params": {}, **nest(two.weights)}, mesh)
  return Model(experiment, arrays, prior, one.fingerprint)

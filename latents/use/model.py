"""`latents.load(run)`: a finished run as an object with encode, decode, reconstruct and sample."""

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from flax import struct

from latents import media
from latents.declare import Experiment, Mesh, admit
from latents.errors import UserError, first_line
from latents.frozen import Frozen
from latents.machine import hosts
from latents.nn.streams import check_seed, streams
from latents.optim import is_width
from latents.recodes import Fitted
from latents.store import artefact
from latents.store.folder import Folder, open_folder
from latents.train import build_step, sharding
from latents.train.build_step import InMesh
from latents.train.state import flatten, nest
from latents.types import Batch, Cond, Latent
from latents.use import given, measures, recoded
from latents.use.given import finite, whole
from latents.use.sample import DECLARED, How, Labels, Sampler
from latents.use.tiled import Tiled


class Model:
  """A run's autoencoder and prior on this machine's devices. Signals are [B,*S,C] float in [-1,1]."""

  def __init__(
    self, experiment: Experiment, mesh: jax.sharding.Mesh, arrays: dict[str, Any], prior: Any, fingerprint: str,
    fitted: Fitted | None = None,
  ):  # fmt: skip
    self.experiment, self.mesh, self.arrays, self.prior = experiment, mesh, arrays, prior
    self.fingerprint, self.fitted = fingerprint, fitted
    self.kind = media.kind(experiment.stage1.data.kind)
    self.frozen = Frozen(experiment.stage1.model)
    self._encode = InMesh(mesh, jax.jit(lambda a, x, k: self.frozen.encode(a, x, key=k, train=False)))
    self._decode = InMesh(
      mesh, jax.jit(lambda a, z, k, steps: self.frozen.decode(a, z, key=k, steps=steps), static_argnums=3)
    )
    self._decodings = InMesh(mesh, jax.jit(self._all_decodings))
    self._fitting: set[tuple[str, str]] = set()
    self._samplers: dict[tuple[int, How], Sampler] = {}

  def __repr__(self) -> str:
    signal, latent = (tuple(a) for a in (self.shape, self.latent_shape))
    kind = "codes" if self.like.z is None or self.like.codes is not None else "continuous"
    told = f", labels {', '.join(self.names[:12])}{', ...' * (len(self.names) > 12)}" if self.names else ""
    prior = "no prior" if self.prior is None else type(self.experiment.stage2.prior).__name__  # pyright: ignore
    return f"<Model {self.experiment.name}: {self.kind.name} {signal}, latents {latent} ({kind}), {prior}{told}>"

  @property
  def shape(self) -> tuple[int, ...]:
    """[*S,C] of the signals that it was trained on."""
    return self.experiment.stage1.data.shape

  @property
  def latent_shape(self) -> tuple[int, ...]:
    """Of one latent of such a signal: z [*s,D], or codes where the bottleneck gives nothing else."""
    latent = self.like
    return (latent.codes if latent.z is None else latent.z).shape

  @property
  def names(self) -> tuple[str, ...]:
    """What the labels are called, in their order; () without labels."""
    return (self.experiment.stage2 or self.experiment.stage1).data.names

  @functools.cached_property
  def like(self) -> Latent:
    """Shapes of one latent of such a signal."""
    return self.frozen.shape(self.arrays, self.shape)

  def encode(self, x: Any) -> Latent:
    """x [B,*S,C] in [-1,1], or uint8 in 0..255 -> normalised Latent (the mode): what a prior models. UserError, one
    line, for other shapes and values."""
    x = given.signals(x, self.kind, self.shape)
    self._fits(lambda a, x: self.frozen.encode(a, x, key=jax.random.key(0), train=False), x, "encoder", "signals")
    latent = self._encode(self.arrays, sharding.spread(x, self.mesh), jax.random.key(0))
    latent = self._host(latent.replace(terms={}, logs={}), len(x))
    return latent if latent.z is None else latent.replace(z=self._sound(latent.z, "encoder"))

  def _sound(self, x: np.ndarray, part: Literal["encoder", "decoder"]) -> np.ndarray:
    """What a part has made. UserError where it is no numbers."""
    return finite(x, "the latents" if part == "encoder" else "what is decoded", self.frozen.overflow(part))

  def decode(self, latent: Any, *, steps: int | None = None, seed: int = 0) -> np.ndarray:
    """Normalised Latent, or an array of z [B,*s,D] or of codes (whole numbers) -> x [B,*S,C] in [-1,1] (clipped).

    steps, seed: for generative decoders. UserError, one line, for what does not fit.
    """
    latent = given.latents(latent, self.like, measures.layout(self.experiment, self.arrays).vocab)
    if steps is not None and whole(steps, "steps") < 1:
      raise UserError(f"steps is {steps}: it must be at least 1")
    key = jax.random.key(check_seed(seed))
    self._fits(lambda a, z: self.frozen.decode(a, z, key=key, steps=steps), latent, "decoder", "latents")
    x = self._decode(self.arrays, self._spread(latent), key, steps)
    return self.kind.clip(self._sound(self._host(x, _rows(latent)), "decoder"))

  def reconstruct(self, x: Any, *, labels: Any = None, steps: int | None = None, seed: int = 0) -> np.ndarray:
    """decode(encode(x)). labels: [B] int32, for a decoder that is told them; None = it is told nothing."""
    return self.decode(self.encode(x).replace(given=self.told(labels, len(x))), steps=steps, seed=seed)

  def tiled(self, side: int) -> Tiled:
    """This model for large pictures, which it sees in tiles of at most side x side pixels."""
    return Tiled(self, side)

  def told(self, labels: Any, count: int) -> Cond | None:
    """What the decoder is told of `count` examples of these labels. UserError for labels that are none."""
    batch = {}
    if labels is not None:
      batch["label"], classes = np.asarray(labels), self.experiment.stage1.data.classes
      right = batch["label"].dtype.kind in "iu" and batch["label"].shape == (count,)
      if not right or not all(0 <= label < classes for label in batch["label"]):
        raise UserError(f"labels are one of 0 to {classes - 1} for each of the {count} examples")
      batch["label"] = batch["label"].astype(np.int32)
    return self.given(batch)

  def given(self, batch: Batch) -> Cond | None:
    """What the decoder is told of a batch; None for one that reads nothing, or where the batch says nothing."""
    stage = self.experiment.stage1
    return stage.conditioner(batch) if stage.model.conditions else None

  def decodings(self, x: Any, seed: int = 0, given: Cond | None = None) -> dict[str, np.ndarray]:
    """Every way to decode that the model offers (numbers of steps, prefixes), in its order: name -> x [B,*S,C]."""
    latent = self._encode(self.arrays, sharding.spread(self._typed(x), self.mesh), jax.random.key(0))
    if latent.z is not None:
      self._sound(self._host(latent.z, len(x)), "encoder")
    latent = latent.replace(given=jax.tree.map(lambda a: sharding.spread(np.asarray(a), self.mesh), given))
    out = self._host(self._decodings(self.arrays, latent.replace(terms={}, logs={}), jax.random.key(seed)), len(x))
    return {name: self.kind.clip(self._sound(y, "decoder")) for name, y in zip(out.names, out.values, strict=True)}

  def sample(
    self, labels: Labels = None, *, number: int | None = None, seed: int = 0, guidance: float | None = None,
    prompt: Any = None, **how: Any,
  ) -> np.ndarray:  # fmt: skip
    """Samples [N,*S,C] in [-1,1]: one a label, or `number` over the labels in turn.

    labels: numbers or names; None = all in turn, [None] = of which nothing is known. prompt: codes [P,n] that samples
    begin with, or [P,*s] with -1 where they are to be drawn, in turn. how: steps, temperature, top_k, top_p.
    """
    sampler, chosen, begun = self._asked(labels, number, prompt, how)
    return sampler.signals(chosen, seed=seed, guidance=guidance, prompt=begun)

  def sample_latents(
    self, labels: Labels = None, *, number: int | None = None, seed: int = 0, guidance: float | None = None,
    prompt: Any = None, **how: Any,
  ) -> Latent:  # fmt: skip
    """The normalised latents of the same samples: `decode` makes them signals."""
    sampler, chosen, begun = self._asked(labels, number, prompt, how)
    drawn = sampler.latents(chosen, seed, guidance, begun)
    parts = [self._host(latent.replace(terms={}, logs={}), rows) for latent, rows in drawn]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)

  def _asked(self, labels: Any, number: int | None, prompt: Any, how: dict[str, Any]) -> tuple[Sampler, Any, Any]:
    sampler = self.drawing(how=How.named(how))
    if prompt is None:
      return sampler, sampler.labels(labels, number), None
    chosen = sampler.begun(labels, number, len(given.array(prompt, "a prompt is an array of codes")))
    return sampler, chosen, sampler.prompt(prompt, len(chosen))

  @property
  def sampler(self) -> Sampler:
    """The sampler of stage 2; UserError if the run has none that is finished."""
    return self.drawing()

  def drawing(self, batch: int = 64, how: How = DECLARED) -> Sampler:
    """A sampler that draws at most `batch` samples at a time."""
    if self.experiment.stage2 is not None and self.prior is None:
      raise UserError("stage 2 of this run is not finished: the same `latents run` command goes on with it")
    if (batch, how) not in self._samplers:
      made = Sampler(self.experiment, self.mesh, self.arrays, self.prior, batch, how, self.fitted)
      self._samplers[batch, how] = made
    return self._samplers[batch, how]

  def _fits(self, call: Any, given: Any, part: str, what: str) -> None:
    """UserError where a part of the model does not take a shape; nothing is computed."""
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype), (self.arrays, given))
    if (seen := (part, str(shapes[1]))) in self._fitting:
      return
    try:
      jax.eval_shape(call, *shapes)
    except UserError:
      raise
    except Exception as error:  # noqa: BLE001  (whatever its layers raise)
      found = ", ".join(str(a.shape) for a in jax.tree.leaves(shapes[1]))
      own = self.shape if what == "signals" else self.latent_shape
      raise UserError(
        f"the {part} takes no {what} of shape {found} (its own are [B,{','.join(map(str, own))}]): {first_line(error)}"
      ) from None
    self._fitting.add(seen)

  def _typed(self, x: Any) -> np.ndarray:
    return np.asarray(x, np.int32 if self.kind.dtype == "int32" else np.float32)

  def _spread(self, latent: Latent) -> Latent:
    return jax.tree.map(lambda a: sharding.spread(a, self.mesh), latent.replace(terms={}, logs={}))

  def _host(self, tree: Any, rows: int) -> Any:
    """Global arrays [B',...] -> numpy [rows,...], on every process."""
    return jax.tree.map(lambda a: a[:rows], hosts.gather(tree))

  def _all_decodings(self, arrays: Any, latent: Latent, key: Any) -> "_Decodings":
    latent = self.frozen.restore_scale(arrays, latent)
    model: Any = self.experiment.stage1.model
    out = model.apply(arrays["variables"], latent, method="decodings", rngs=streams(key))
    return _Decodings(tuple(out), tuple(out.values()))


@struct.dataclass
class _Decodings:
  """In the order in which a model offers them: a dict leaves `jax.jit` in that of its keys."""

  names: tuple[str, ...] = struct.field(pytree_node=False)
  values: tuple[Any, ...] = ()


def _rows(latent: Latent) -> int:
  return jax.tree.leaves(latent.replace(terms={}, logs={}))[0].shape[0]


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


def load(run: str | Path, parts: Iterable[type] = (), decoder: str | Path | None = None) -> Model:
  """The model of a finished run from its folder alone. parts: classes of one's own that it is made of, which stand
  outside `latents`. decoder: another run, whose decoder is used in place of this one's. UserError if a folder is not a
  run's, or if the other run has other latents."""
  admit(parts)
  # the run's own mesh may be a pod's: here, what this machine has
  mesh = sharding.make_mesh(Mesh())
  return load_folder(_open(run), mesh, None if decoder is None else _open(decoder))


def _open(run: str | Path) -> Folder:
  try:
    return open_folder(Path(run).expanduser())
  except TypeError:
    raise UserError(f"load takes the path of a run's folder, not {run!r}") from None


def load_folder(folder: Folder, mesh: jax.sharding.Mesh, decoder: Folder | None = None) -> Model:
  """As `load`, of a folder that is open, with its arrays laid out on a mesh."""
  experiment, one = folder.experiment, _stage1(folder)
  shown = one if decoder is None else _stage1(decoder)
  if decoder is not None:
    if shown.latents != one.latents:
      raise UserError(f"{decoder.path} has other latents than {folder.path}: its decoder cannot read them")
    experiment = dataclasses.replace(experiment, stage1=decoder.experiment.stage1)
  average = experiment.evaluation.average
  place = (decoder or folder).stage(1)
  first = artefact.with_average(shown, place, average)
  arrays = sharding.place(stage1_arrays(experiment, first, str(place)), mesh)
  two = folder.artefact(2) if experiment.stage2 is not None else None
  if two is None:
    return Model(experiment, mesh, arrays, None, shown.fingerprint)
  if two.facts.get("stage1") not in (one.latents, one.fingerprint):  # the second: as it was written before
    raise UserError(f"{folder.stage(2)} was trained on another stage 1 than {folder.stage(1)} holds")
  own, two = two, artefact.with_average(two, folder.stage(2), average)
  if is_width(average) and first is shown and two is own:
    raise UserError(f"{folder.path} has no average of width {average} yet: `latents average RUN --width {average}`")
  wanted = build_step.abstract_prior(experiment)
  artefact.check_shapes(str(folder.stage(2)), two.weights, flatten(wanted))
  prior = sharding.place({"params": {}, **nest(two.weights)}, mesh)
  fitted = None
  if folder.experiment.stage2 is not None and folder.experiment.stage2.recode is not None:
    place = folder.stage(2)
    fitted = recoded.bound(experiment, arrays, one, artefact.read_recode(place), str(place / artefact.RECODE))
  return Model(experiment, mesh, arrays, prior, shown.fingerprint, fitted)


def _stage1(folder: Folder) -> artefact.Artefact:
  folder.check_version()
  one = folder.artefact(1)
  if one is None:
    raise UserError(f"{folder.path} has no finished stage 1: the same `latents run` command goes on with it")
  return one

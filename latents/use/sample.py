"""Sampling: prior.sample -> frozen.decode, in chunks of a few compiled sizes."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from latents import media
from latents.data import choice
from latents.declare import Experiment, draws
from latents.errors import UserError, nearest
from latents.frozen import Frozen
from latents.machine import hosts, progress
from latents.nn.streams import check_seed, streams
from latents.recodes import Fitted
from latents.train import sharding
from latents.train.build_step import InMesh
from latents.types import Latent
from latents.use import given
from latents.use.given import OPEN, finite, real, whole

MOST, MOST_STEPS = 10_000_000, 1_000_000  # samples of one call, steps of a sampler: beyond it is a slip
NOTHING = -1  # in an array of labels: a sample of which nothing is known
Labels = int | str | None | Sequence[int | str | None]


@dataclasses.dataclass(frozen=True)
class How:
  """How a prior draws: the steps of its sampler, temperature, top_k and top_p of its draws; None = the experiment's.

  UserError for what is no number.
  """

  steps: int | None = None
  temperature: float | None = None
  top_k: int | None = None
  top_p: float | None = None

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):  # plain numbers, so that it is hashable
      if (value := getattr(self, field.name)) is not None:
        made = (whole if field.name in ("steps", "top_k") else real)(value, field.name)
        object.__setattr__(self, field.name, made)

  @classmethod
  def named(cls, asked: Mapping[str, Any]) -> "How":
    """Of keywords; UserError for one that is none of them, with the nearest."""
    known = [field.name for field in dataclasses.fields(cls)]
    for name in asked:
      if name not in known:
        raise UserError(f"'{name}' says nothing of how to draw{nearest(name, known)}: {', '.join(known)} do")
    return cls(**asked)

  def of(self, prior: Any) -> Any:
    """The prior that draws so. UserError for one that cannot, and for numbers that it cannot have."""
    prior = stepped(prior, self.steps)
    for name in ("temperature", "top_k", "top_p"):
      if (value := getattr(self, name)) is not None:
        prior = _with(prior, name, value)
    draws("prior", prior)
    return prior


DECLARED = How()


class Sampler:
  """Draws latents and signals from a finished experiment.

  arrays: what `Frozen` needs of stage 1. prior: the prior's variables. Both lie on the mesh, and so do the
  chunks while they are drawn: at most `chunk` samples at a time, of compiled sizes that are powers of two. A draw
  depends on (seed, its number, its label, guidance, steps) and on `chunk`; neither on how many are asked for nor on the
  mesh, but for rounding. how: the prior draws, in place of the experiment's way. fitted: what expands a prior's merged
  tokens; `mended` counts, over all samples so far, the codes that found no place on the grid and the places without one
  (`Fitted.expand`).
  """

  def __init__(
    self, experiment: Experiment, mesh: jax.sharding.Mesh, arrays: Any, prior: Any, chunk: int = 64,
    how: How = DECLARED, fitted: Fitted | None = None,
  ):  # fmt: skip
    if experiment.stage2 is None:
      raise UserError(f"{experiment.name} has no prior (stage 2), so it cannot sample")
    if chunk < 1:
      raise UserError(f"a batch of {chunk} samples: it must be at least 1")
    self.frozen, self.prior = Frozen(experiment.stage1.model), how.of(experiment.stage2.prior)
    self.mesh, self.arrays, self.variables = mesh, arrays, prior
    self.chunk = -(-chunk // sharding.parts(mesh)) * sharding.parts(mesh)
    self.kind = media.kind(experiment.stage2.data.kind)
    one, two = experiment.stage1, experiment.stage2
    self.conditioner, self.names = two.conditioner, two.data.names
    asked = [stage.conditioner for stage, part in ((two, two.prior), (one, one.model)) if part.conditions]
    self.classes = asked[0].count(two.data.classes) if asked else 0  # conditions that can be asked for
    self.tell = one.conditioner.asked if one.model.conditions else lambda _: None  # what the decoder is told
    self._spent: dict[
      int, list[float]
    ] = {}  # size of a chunk -> seconds of each that was drawn, without the compiler's
    self._since, self._ready = 0.0, set()  # when the last chunk was begun; what is compiled
    latent = self.frozen.shape(arrays, experiment.stage2.data.shape)
    self.fitted, self.mended = fitted, {"codes": 0, "cut": 0, "filled": 0}
    self.shape = (latent.codes if self.prior.discrete else latent.z).shape
    if fitted is not None:
      self.shape = (fitted.recode.length,)
    self._draw = InMesh(mesh, jax.jit(self._draw_chunk, static_argnums=3))
    self._decode = InMesh(mesh, jax.jit(lambda arrays, latent, key: self.frozen.decode(arrays, latent, key=key)))

  def _draw_chunk(self, variables: Any, labels: Any, key: Any, guidance: float | None, prompt: Any = None) -> Latent:
    prior: Any = self.prior
    cond, told = self.conditioner.asked(jnp.maximum(labels, 0)), self.tell(jnp.maximum(labels, 0))
    cond, told = (c if c is None else {**c, "drop": labels == NOTHING} for c in (cond, told))
    options: dict[str, Any] = {"shape": self.shape, "guidance": guidance}
    if self.fitted is not None:
      options["walk"] = self.fitted.walk
    if prompt is not None:
      options["prompt"] = prompt
    drawn = prior.apply(variables, cond, **options, method="sample", rngs=streams(key))
    return drawn.replace(given=told)

  def labels(self, labels: Labels, number: int | None) -> np.ndarray:
    """int32 labels to draw: those asked for, repeated up to `number`; all classes in turn by default, of which a turn
    that is not full is a fixed choice.

    labels: one or several numbers or names; None among several is a sample of which nothing is known. UserError.
    """
    if labels is not None and not self.classes:
      raise UserError("this experiment has no labels; leave --labels out")
    if labels is None:
      every = list(range(max(self.classes, 1)))
      count = len(every) if number is None else min(max(whole(number, "the number of samples"), 0), MOST)
      labels = every * (count // len(every)) + sorted(choice(len(every), count % len(every)).tolist())
    elif isinstance(labels, str) or np.ndim(labels) != 1:  # pyright: ignore
      labels = [labels]  # pyright: ignore
    turn = [self._label(label) for label in labels]  # pyright: ignore
    number = len(turn) if number is None else whole(number, "the number of samples")
    if number > MOST:
      raise UserError(f"{MOST:,} samples at most, not {number}")
    if number < 1 or not turn:
      raise UserError(f"cannot draw {number} samples of {len(turn)} labels")
    return np.asarray([turn[i % len(turn)] for i in range(number)], np.int32)

  def begun(self, labels: Labels, number: int | None, prompts: int) -> np.ndarray:
    """int32 labels of samples that begin with so many prompts, each of which is used: as `labels`, but nothing is known
    of a prompt unless it is said. UserError where a label must be."""
    if labels is None and self.classes:
      labels = [None]
    if number is None:
      number = max(len(self.labels(labels, None)), prompts)
    return self.labels(labels, number)

  def _label(self, label: int | str | None) -> int:
    if label is None:
      if not getattr(self.prior, "label_drop", 0.0):
        raise UserError(
          "samples without a label cannot be had: the prior was trained with a label always (label_drop 0)"
        )
      return NOTHING
    if isinstance(label, str):
      if not label.isdecimal() or label in self.conditioner.words(self.names):
        return self.conditioner.number(label, self.names)
      label = int(label)
    label = whole(label, "a label")
    if not 0 <= label < max(self.classes, 1):
      raise UserError(f"label {label} is not one of 0 to {self.classes - 1}")
    return label

  def named(self, words: Sequence[str], names: tuple[str, ...]) -> list[int]:
    """The numbers of conditions by their names; names: of the data's labels. UserError with the nearest."""
    return [self.conditioner.number(word, names) for word in words]

  def prompt(self, codes: Any, number: int) -> np.ndarray:
    """Codes that `number` samples begin with (`given.prompt`), as `latents` takes them. UserError."""
    if not self.prior.prompts:
      raise UserError(f"a prompt is of codes, but {type(self.prior).__name__} draws vectors")
    if self.fitted is not None:
      raise UserError("a prompt is of codes, but this prior draws merged tokens")
    return given.prompt(codes, number, self.shape, self.prior.vocab_of_tokens, self.prior.together)

  def latents(
    self, labels: np.ndarray, seed: int, guidance: float | None, prompt: np.ndarray | None = None
  ) -> Iterator[tuple[Latent, int]]:
    """Chunks of normalised latents, each with the number of its rows that were asked for. UserError, at once."""
    check_seed(seed)
    if guidance is not None and not math.isfinite(guidance := real(guidance, "guidance")):
      raise UserError(f"guidance is {guidance}: it must be a finite number")
    if guidance not in (None, 1.0) and self.prior.conditions and not getattr(self.prior, "label_drop", 1.0):
      raise UserError(f"guidance {guidance} cannot be had: the prior was trained with a label always (label_drop 0)")
    return self._latents(labels, seed, guidance, prompt)

  def _latents(
    self, labels: np.ndarray, seed: int, guidance: float | None, prompt: np.ndarray | None
  ) -> Iterator[tuple[Latent, int]]:
    for asked, rows in self._asked(labels, seed, guidance, prompt):
      if (what := ("draw", len(asked[1]), guidance, prompt is None)) not in self._ready:
        self._draw.prepare(*asked)
        self._ready.add(what)
      self._since = time.perf_counter()
      latent = jax.block_until_ready(self._draw(*asked))
      if self.fitted is not None:
        latent = self._expanded(self.fitted, latent, rows)
      yield latent, rows

  def _asked(
    self, labels: np.ndarray, seed: int, guidance: float | None, prompt: np.ndarray | None
  ) -> Iterator[tuple[tuple[Any, ...], int]]:
    """What each chunk is drawn with, and its rows that were asked for."""
    parts = sharding.parts(self.mesh)
    for first in range(0, len(labels), self.chunk):
      part = labels[first : first + self.chunk]
      size = min(self.chunk, parts * 2 ** math.ceil(math.log2(-(-len(part) // parts))))
      full = np.concatenate([part, np.zeros(size - len(part), np.int32)])
      key = jax.random.fold_in(jax.random.key(seed), first)
      begun = None
      if prompt is not None:
        begun = prompt[first : first + self.chunk]
        begun = np.pad(begun, ((0, size - len(begun)), *[(0, 0)] * (begun.ndim - 1)), constant_values=OPEN)
        begun = sharding.spread(begun, self.mesh)
      yield (self.variables, sharding.spread(full, self.mesh), key, guidance, begun), len(part)

  def _expanded(self, fitted: Fitted, latent: Latent, rows: int) -> Latent:
    """Merged tokens -> the codes that they stand for; the first `rows` samples are those that were asked for."""
    codes, cut, filled = fitted.expand(hosts.gather(latent.codes))
    for name, number in (("codes", codes[:rows].size), ("cut", cut[:rows].sum()), ("filled", filled[:rows].sum())):
      self.mended[name] += int(number)
    return latent.replace(codes=sharding.spread(codes, self.mesh))

  def chunks(
    self, labels: np.ndarray, *, seed: int = 0, guidance: float | None = None, shown: bool = False,
    prompt: np.ndarray | None = None,
  ) -> Iterator[np.ndarray]:  # fmt: skip
    """int32 labels [N] -> samples [n,*S,C] float32 in [-1,1] (clipped; text int32 [n,T]), a chunk at a time.

    shown: with a bar. prompt: see `prompt`. UserError for samples that are not finite.
    """
    drawn = self.latents(labels, seed, guidance, prompt)
    if shown and len(labels):  # what cannot be drawn is said before the bar is there; the trace is kept
      self._draw.shapes(*next(self._asked(labels, seed, guidance, prompt))[0])
    with progress.bar("samples", len(labels), "sample") if shown else contextlib.nullcontext() as bar:
      for number, (latent, rows) in enumerate(drawn):
        key = jax.random.fold_in(jax.random.key(seed), 2**30 + number)
        drawing, size = time.perf_counter() - self._since, len(jax.tree.leaves(latent)[0])
        if ("decode", size) not in self._ready:
          self._ready.add(("decode", size))
          self._decode.prepare(self.arrays, latent, key)
        begun = time.perf_counter()
        made = hosts.gather((latent.z, self._decode(self.arrays, latent, key)))
        self._spent.setdefault(size, []).append(drawing + time.perf_counter() - begun)
        for array in jax.tree.leaves(made[0]):  # a decoder may make letters of latents that are no numbers
          finite(array[:rows], "the samples")
        finite(made[1][:rows], "the samples", self.frozen.overflow("decoder"))
        if bar is not None:
          bar.update(rows)
        yield self.kind.clip(made[1][:rows])

  def seconds(self) -> float | None:
    """Wall seconds of one sample, prior and decoder, in chunks of the largest size that was drawn, once they were
    compiled; None where none was."""
    size = max(self._spent, default=0)
    return float(np.mean(self._spent[size])) / size if size else None

  def signals(self, labels: np.ndarray, **options: Any) -> np.ndarray:
    """int32 labels [N] -> samples [N,*S,C] float32 in [-1,1] (clipped); options as of `chunks`."""
    return np.concatenate(list(self.chunks(labels, **options)))


def stepped(prior: Any, steps: int | None) -> Any:
  """The prior with so many steps of its sampler. UserError for one that has none."""
  if steps is None:
    return prior
  if not 1 <= whole(steps, "steps") <= MOST_STEPS:
    raise UserError(f"a sampler takes 1 to {MOST_STEPS:,} steps, not {steps}")
  if (sampler := getattr(prior, "sampler", None)) is None:
    if not hasattr(prior, "steps"):
      raise UserError(f"{type(prior).__name__} has no steps to set")
    return prior.clone(steps=whole(steps, "steps"))
  return prior.clone(sampler=dataclasses.replace(sampler, steps=whole(steps, "steps")))


def _with(prior: Any, name: str, value: float) -> Any:
  """The prior, or each part of a chain, with another value of one option."""
  if (parts := getattr(prior, "priors", None)) is not None:
    return prior.clone(priors=tuple(_with(part, name, value) for part in parts))
  if not hasattr(prior, name):
    raise UserError(f"{type(prior).__name__} has no {name} to set")
  return prior.clone(**{name: value})

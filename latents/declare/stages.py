"""The declaration: an experiment as one frozen tree of parts.

Fields marked `types.aside` (where data lie, how often to log, how to sample) make no other stage.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from latents.autoencoders import Autoencoder, Stacked
from latents.conditioners import Conditioner, Labels
from latents.data import Source, place
from latents.errors import UserError
from latents.evaluate import Measure
from latents.losses import Loss, Weight
from latents.losses.balancer import Rule
from latents.optim import Adam, Average, Optimizer
from latents.priors import Prior
from latents.recodes import Recode
from latents.types import Terms, aside, later

Units = float | tuple[float, ...]  # of all channels together, or of each


@dataclasses.dataclass(frozen=True)
class Mesh:
  """Devices along each axis; -1 = all that remain. The batch is split over data and fsdp.

  data: copies of the model. fsdp: parameters, optimiser and EMA split, gathered when used.
  tensor: widths of layers split.
  """

  data: int = -1
  fsdp: int = 1
  tensor: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Released:
  """Weights that others trained, in a file that cannot execute code.

  path: where it lies (no part of the address; what it holds is said by `sha256`, which is checked). layout: whose names
  its arrays have; "latents": those of an artefact's weights, others as `latents.interop` lists them. statistics: of
  its latents, (scale, shift) as a release says them, each a number or one a channel, z normalised = scale (z - shift);
  "measured": on the data of the stage that begins with them. path may be hf:OWNER/NAME[@REVISION]:FILE.
  """

  path: str = place()
  sha256: str
  layout: Literal[
    "latents", "diffusers-kl", "ldm-kl", "diffusers-dc", "diffusers-vq", "diffusers-vq-reg", "taming",
    "taming-gumbel", "ldm-vq", "dalle", "diffusers-unet", "diffusers-unet2d", "dit", "dit-4", "dit-8", "sit",
    "lightning-dit", "lightning-dit-2", "llamagen", "taming-gpt",
  ] = "latents"  # fmt: skip
  statistics: Literal["measured"] | tuple[Units, Units] = "measured"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
  """Weights that a stage begins with: those at `source` of another stage, put at `into` of this one's model.

  stage: the whole declaration of that stage. It is trained first, under its own seed if it has one, else the
  experiment's, and shared by its address; its data may be other than this stage's. A Stage2 is one that is trained on
  the latents of the stage 1 beside which this one stands (a teacher, a guide); a Stage1 begins with no Stage2.
  source, into: paths of parts ("" = the whole model, "decoder", "decoder/trunk"); "losses/NAME" is the network of a
  loss. Every array at `source` must have its place at `into`, with the same shape. Codebooks come with the parameters,
  and what normalises the latents of `stage` is put beside `into` for a model that asks for it (`Stacked`).
  """

  stage: "Stage1 | Stage2 | Released"
  source: str = ""
  into: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage1:
  """Training of the autoencoder.

  losses: by the name that is logged; each term of the model must have one.
  steps, batch: number of updates and global batch. microbatches: equal parts of the batch that are taken one
  after another, for the memory of one part. Gradients and logged values are means over the parts; a codebook's
  moving average goes on from part to part, and batch norm's statistics are a part's.
  ema: rate of the average that is kept and used (0 = none). log_every, save_every: steps between lines of the log
  and between checkpoints. workers: processes that load data (0 = threads). patience: updates in a row that may be
  skipped for being non-finite before the run stops.
  start: stages whose weights the model begins with. trained: paths of the parts that are trained; all others stay as
  they begin, to the bit. seed: this stage's own (None: the experiment's). keep_checkpoints: every one, also once it is
  finished (`latents average` makes averages of other widths of them); else the newest two, until then.
  conditioner: what a decoder that reads conditions is told of each example.
  normalise: what a prior's unit is: z has mean 0 and standard deviation 1 over the training set in every channel, in
  every element of the grid (which then is the only one), in all numbers together, or is as the model gives it.
  balancer: what becomes of the losses' gradients at x_hat (losses/balancer.py). averages: beside `ema`, by name.
  held_out_every: steps between measurements of the losses on held-out examples, for the log; 0 = none.
  """

  data: Source
  model: Autoencoder | Stacked
  losses: Mapping[str, Loss]
  steps: int
  batch: int
  start: tuple[Start, ...] = later(())
  trained: tuple[str, ...] = later(("",))
  microbatches: int = 1
  optimizer: Optimizer = Adam()
  ema: float = 0.999
  log_every: int = aside(10)
  save_every: int = aside(500)
  workers: int = aside(0)
  patience: int = aside(20)
  seed: int | None = later(None)
  keep_checkpoints: bool = later(False, address=False)
  conditioner: Conditioner = later(Labels())
  normalise: Literal["channel", "element", "scalar", "none"] = later("channel")
  balancer: Rule | None = later(None)
  averages: Mapping[str, Average] = later({})
  held_out_every: int = later(0, address=False)

  def weighed(self, terms: Terms) -> Mapping[str, Loss]:
    """The losses by name."""
    return self.losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage2:
  """Training of the prior on the latents of the frozen stage 1.

  data: usually stage 1's; another crop or size where the autoencoder is used on larger grids.
  cache: encode the data once (both mirrored copies) instead of in every step. losses: beside the prior's own terms,
  which count once where nothing here weighs them. conditioner: what the prior is told of each example. recode: what
  merges the codes to fewer tokens, which the prior models in their place (`latents.recodes`), fitted on the training
  codes; it needs `cache`. Others as `Stage1`.
  """

  data: Source
  prior: Prior
  steps: int
  batch: int
  losses: Mapping[str, Loss] = later({})
  start: tuple[Start, ...] = later(())
  trained: tuple[str, ...] = later(("",))
  microbatches: int = 1
  optimizer: Optimizer = Adam()
  ema: float = 0.9999
  cache: bool = False
  log_every: int = aside(10)
  save_every: int = aside(500)
  workers: int = aside(0)
  patience: int = aside(20)
  seed: int | None = later(None)
  keep_checkpoints: bool = later(False, address=False)
  conditioner: Conditioner = later(Labels())
  averages: Mapping[str, Average] = later({})
  held_out_every: int = later(0, address=False)
  recode: Recode | None = later(None)

  def weighed(self, terms: Terms) -> Mapping[str, Loss]:
    """The losses by name, with a weight of 1 for each of the prior's terms that has none."""
    return {**{name: Weight() for name in terms}, **self.losses}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """What `latents evaluate` measures: numbers of held-out examples and of samples, and the batch.

  lpips: a file of LPIPS(squeeze) weights; without it LPIPS is left out. features: measure the distances
  on EfficientNet-Lite0 features; None = if its weights are installed. classifier:
  have a classifier judge the samples' labels, and measure their distance from the training set (small
  images, seen as pixels; short sounds, heard as the energies of mel bands).
  metrics: of reconstructions, latents or samples (see `latents.evaluate`), measured beside the usual ones of the
  signals and the latent, which the fields above switch; one of the same class as a usual one takes its place. The
  prior's held-out loss is measured always. average: the name of the average of the parameters that is evaluated and
  sampled, of the stages that have one of that name; "" = each stage's `ema`; a number: the power average of that width,
  which `latents average` has made.
  """

  images: int = 300
  samples: int = 300
  batch: int = 100
  lpips: str | None = None
  features: bool | None = None
  classifier: bool = False
  metrics: tuple[Measure, ...] = later((), address=False)
  average: str = later("")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """One system: a stage 1, a stage 2 (or None), a seed, a mesh and what is measured."""

  name: str
  stage1: Stage1
  stage2: Stage2 | None
  seed: int = 0
  mesh: Mesh = aside(Mesh())
  evaluation: Evaluation = aside(Evaluation())

  def seed_of(self, stage: Stage1 | Stage2) -> int:
    """The seed of a stage: its own, or the experiment's."""
    return self.seed if stage.seed is None else stage.seed

  def stage(self, number: int) -> Stage1 | Stage2:
    """Stage 1 or 2. ValueError where there is none."""
    found = self.stage1 if number == 1 else self.stage2
    if found is None:
      raise ValueError(f"{self.name} has no stage {number}")
    return found


def bases(stage: Stage1 | Stage2) -> dict[str, Stage1 | Stage2]:
  """The stages that must be finished before this one: those that it begins with, and the teachers of its losses; by
  their place in the declaration, as flags spell it. UserError for what is no Start or no loss (a stored declaration is
  untrusted)."""
  for i, start in enumerate(stage.start):
    if not isinstance(start, Start):
      raise UserError(f"start.{i} is {type(start).__name__}, not a Start")
  found = {f"start.{i}.stage": start.stage for i, start in enumerate(stage.start)}
  for name, loss in stage.losses.items():
    if not isinstance(loss, Loss):
      raise UserError(f"losses.{name} is {type(loss).__name__}, not a loss")
    if loss.stage is not None:
      found[f"losses.{name}{_path_to(loss, loss.stage)}"] = loss.stage
  return {name: made for name, made in found.items() if isinstance(made, Stage1 | Stage2)}


def _path_to(tree: Any, part: Any) -> str:
  """ ".teacher.stage": where a part stands in a tree of dataclasses; "" where it does not."""
  for field in dataclasses.fields(tree) if dataclasses.is_dataclass(tree) else ():
    value = getattr(tree, field.name)
    if value is part:
      return f".{field.name}"
    if dataclasses.is_dataclass(value) and (inner := _path_to(value, part)):
      return f".{field.name}{inner}"
  return ""


def prolonged(stage: Stage1, steps: int) -> Stage1:
  """A stage that goes on where `stage` ended: from its averaged weights, with a fresh optimiser and schedule."""
  return dataclasses.replace(stage, start=(Start(stage=stage),), steps=steps)

"""The declaration: an experiment as one frozen tree of parts.

Fields marked `types.aside` (where data lie, how often to log, how to sample) make no other stage.
"""

import dataclasses
from collections.abc import Mapping

from latents.autoencoders import Autoencoder
from latents.data import Source
from latents.losses import Loss, Weight
from latents.optim import Adam
from latents.priors import Prior
from latents.types import Terms, aside, later


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
class Start:
  """Weights that a stage begins with: those at `source` of another stage, put at `into` of this one's model.

  stage: the whole declaration of that stage; it is trained first, under the same seed, and shared by its address.
  source, into: paths of parts ("" = the whole model, "decoder", "decoder/trunk").
  """

  stage: "Stage1"
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
  they begin, to the bit.
  """

  data: Source
  model: Autoencoder
  losses: Mapping[str, Loss]
  steps: int
  batch: int
  start: tuple[Start, ...] = later(())
  trained: tuple[str, ...] = later(("",))
  microbatches: int = 1
  optimizer: Adam = Adam()
  ema: float = 0.999
  log_every: int = aside(10)
  save_every: int = aside(500)
  workers: int = aside(0)
  patience: int = aside(20)

  def weighed(self, terms: Terms) -> Mapping[str, Loss]:
    """The losses by name."""
    return self.losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage2:
  """Training of the prior on the latents of the frozen stage 1.

  data: usually stage 1's; another crop or size where the autoencoder is used on larger grids.
  cache: encode the data once (both mirrored copies) instead of in every step. losses: beside the prior's own terms,
  which count once where nothing here weighs them. Others as `Stage1`.
  """

  data: Source
  prior: Prior
  steps: int
  batch: int
  losses: Mapping[str, Loss] = later({})
  trained: tuple[str, ...] = later(("",))
  microbatches: int = 1
  optimizer: Adam = Adam()
  ema: float = 0.9999
  cache: bool = False
  log_every: int = aside(10)
  save_every: int = aside(500)
  workers: int = aside(0)
  patience: int = aside(20)

  def weighed(self, terms: Terms) -> Mapping[str, Loss]:
    """The losses by name, with a weight of 1 for each of the prior's terms that has none."""
    return {**{name: Weight() for name in terms}, **self.losses}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """What `latents evaluate` measures: numbers of held-out examples and of samples, and the batch.

  lpips: a file of LPIPS(squeeze) weights; without it LPIPS is left out. features: measure the distances
  on EfficientNet-Lite0 features; None = if its weights are installed (extra `perceptual`). classifier:
  have a classifier judge the samples' labels, and measure their distance from the training set (small
  images, seen as pixels; short sounds, heard as the energies of mel bands).
  """

  images: int = 300
  samples: int = 300
  batch: int = 100
  lpips: str | None = None
  features: bool | None = None
  classifier: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """One system: a stage 1, a stage 2 (or None), a seed, a mesh and what is measured."""

  name: str
  stage1: Stage1
  stage2: Stage2 | None
  seed: int = 0
  mesh: Mesh = aside(Mesh())
  evaluation: Evaluation = aside(Evaluation())

"""What no run can have is said before anything is begun."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from latents.declare.address import addresses
from latents.declare.stages import Experiment, Released, Stage1, Stage2, bases
from latents.declare.stored import Form
from latents.errors import UserError, nearest
from latents.evaluate import Measure
from latents.nn.streams import check_seed
from latents.optim import Optimizer, is_width
from latents.recodes import Recode

DTYPES = ("float32", "bfloat16", "float16")
LEAST = {
  "steps": 0, "batch": 1, "microbatches": 1, "log_every": 1, "save_every": 1, "workers": 0, "patience": 1,
  "held_out_every": 0,
}  # fmt: skip
LEAST_OF_A_LOSS = {
  "every": 1, "r1_every": 1, "ramp": 0, "lead": 0, "clamp": 0, "lecam": 0, "r1": 0, "capacity": 0, "rise": 0,
}  # fmt: skip
# field -> (the numbers that it may be, in words; whether a number is one)
RATES: Mapping[str, tuple[str, Any]] = {
  "lr": ("above 0", lambda x: x > 0),
  "adam_lr": ("above 0", lambda x: x > 0),
  "eps": ("above 0", lambda x: x > 0),
  "betas": ("in [0, 1)", lambda x: 0 <= x < 1),
  "momentum": ("in [0, 1)", lambda x: 0 <= x < 1),
  "decay": ("at least 0", lambda x: x >= 0),
  "clip": ("at least 0 (0 = none)", lambda x: x >= 0),
  "warmup": ("at least 0", lambda x: x >= 0),
  "final": ("at least 0", lambda x: x >= 0),
}
DRAWS: Mapping[str, tuple[str, Any]] = {
  "label_drop": ("in [0, 1]", lambda x: 0 <= x <= 1),
  "temperature": ("at least 0 (0 = the likeliest)", lambda x: x >= 0),
  "top_k": ("at least 0 (0 = all), below 2^31", lambda x: 0 <= x < 2**31),
  "top_p": ("in (0, 1] (1 = all)", lambda x: 0 < x <= 1),
  "choice": ("at least 0 (0 = the surest)", lambda x: x >= 0),
  "smoothing": ("in [0, 1)", lambda x: 0 <= x < 1),
}


def check(experiment: Experiment) -> None:
  """UserError naming the first number of a declaration that no run can have, or the first stage that cannot stand
  where it stands."""
  for place, stage in every_stage(experiment):
    _numbers(place, stage)
    _values(place, stage)
    _starts(place, stage)
    if isinstance(stage, Stage2):
      _codes(place, stage, experiment.stage1)
  for name in ("images", "samples", "batch"):
    if getattr(experiment.evaluation, name) < 1:
      raise UserError(f"evaluation.{name} is {getattr(experiment.evaluation, name)}: it must be at least 1")
  for metric in experiment.evaluation.metrics:
    if not isinstance(metric, Measure):
      raise UserError(f"evaluation.metrics holds {type(metric).__name__}, which is no metric (see latents.evaluate)")
  named = {name for _, stage in every_stage(experiment) for name in stage.averages}
  if (name := experiment.evaluation.average) and name not in named and not is_width(name):
    raise UserError(f"evaluation.average is '{name}', which no stage keeps{nearest(name, named)}")
  check_seed(experiment.seed)
  guidance = experiment.stage2.prior.guidance if experiment.stage2 is not None else 1.0
  if not math.isfinite(guidance):
    raise UserError(f"stage2.prior.guidance is {guidance}: it must be a finite number")


def trainable(place: str, stage: Stage1 | Stage2) -> None:
  """UserError naming the first number of a stage with which nothing would be learned, or nothing drawn. For stages that
  are yet to be trained: one that is finished is what it is."""
  _optimizer(f"{place}.optimizer", stage.optimizer, stage.steps)
  for name, loss in stage.losses.items():
    for field, low in LEAST_OF_A_LOSS.items():
      if getattr(loss, field, low) < low:
        raise UserError(f"{place}.losses.{name}.{field} is {getattr(loss, field)}: it must be at least {low}")
    if loss.optimizer_of is not None:
      _optimizer(f"{place}.losses.{name}.optimizer", loss.optimizer_of, loss.updates(stage.steps))
  if isinstance(stage, Stage2):
    draws(f"{place}.prior", stage.prior)


def draws(place: str, prior: Any) -> None:
  """UserError for the first number of a prior with which nothing can be drawn."""
  _within(place, prior, DRAWS)


def _optimizer(place: str, optimizer: Optimizer, updates: int) -> None:
  """updates: how many of them there will be; 0 = none, and then any warm-up is as long as another."""
  _within(place, optimizer, RATES)
  if 0 < updates < optimizer.warmup:
    raise UserError(f"{place}.warmup is {optimizer.warmup}: it must be at most {updates}, the number of updates")


def _within(place: str, part: Any, allowed: Mapping[str, tuple[str, Any]]) -> None:
  for name, (words, right) in allowed.items():
    found = getattr(part, name, ())
    for value in found if isinstance(found, tuple) else (found,):
      if not ((isinstance(value, int) or math.isfinite(value)) and right(value)):
        raise UserError(f"{place}.{name} is {found}: it must be {words}")


def every_stage(experiment: Experiment) -> Iterator[tuple[str, Stage1 | Stage2]]:
  """(place, stage) of both stages and of all that must be finished before them; a stage comes after those.

  UserError for a cycle: a declaration is a tree, unless somebody has changed a mapping in it afterwards.
  """

  def walk(place: str, stage: Stage1 | Stage2, above: tuple[int, ...]) -> Iterator[tuple[str, Stage1 | Stage2]]:
    if id(stage) in above:
      raise UserError(f"{place} is a stage that it stands in: stages that wait for each other are never trained")
    for name, base in bases(stage).items():
      yield from walk(f"{place}.{name}", base, (*above, id(stage)))
    yield place, stage

  yield from walk("stage1", experiment.stage1, ())
  if experiment.stage2 is not None:
    yield from walk("stage2", experiment.stage2, ())


def every_address(experiment: Experiment, form: Form = "address") -> list[str]:
  """The addresses of all stages that a run of it needs, with those that must be finished before them."""
  found = []
  for _, stage in every_stage(experiment):
    if isinstance(stage, Stage1):
      found.append(addresses(dataclasses.replace(experiment, stage1=stage, stage2=None), form)[0])
    else:
      found.append(str(addresses(dataclasses.replace(experiment, stage2=stage), form)[1]))
  return found


def _numbers(place: str, stage: Stage1 | Stage2) -> None:
  for name, low in LEAST.items():
    if getattr(stage, name) < low:
      raise UserError(f"{place}.{name} is {getattr(stage, name)}: it must be at least {low}")
  if stage.batch % stage.microbatches:
    raise UserError(f"{place}.batch is {stage.batch}: it does not divide into {stage.microbatches} microbatches")
  if not 0 <= stage.ema < 1:
    raise UserError(f"{place}.ema is {stage.ema}: it must be in [0, 1)")
  for name, average in stage.averages.items():
    if "/" in name or not 0 <= average.rate < 1:
      raise UserError(f"{place}.averages.{name}: its name has no '/' and its rate is in [0, 1)")
  if stage.seed is not None:
    check_seed(stage.seed, f"{place}.seed")


def _values(place: str, tree: Any) -> None:
  """The words of all fields `dtype`, and numbers that are none."""
  if dataclasses.is_dataclass(tree):
    for field in dataclasses.fields(tree):
      if field.name not in ("parent", "stage", "start"):  # those stages are looked at themselves
        _values(f"{place}.{field.name}", getattr(tree, field.name, None))
  elif isinstance(tree, Mapping):
    for name, value in tree.items():
      _values(f"{place}.{name}", value)
  elif isinstance(tree, tuple):
    for number, value in enumerate(tree):
      _values(f"{place}.{number}", value)
  elif isinstance(tree, float) and math.isnan(tree):
    raise UserError(f"{place} is nan: it must be a number")
  elif place.endswith(".dtype") and tree not in DTYPES:
    raise UserError(f"{place} is {tree!r}{nearest(str(tree), DTYPES)}: one of {', '.join(DTYPES)}")


def _codes(place: str, stage: Stage2, one: Stage1) -> None:
  """A code that the prior does not know would make its loss not a number, hours later."""
  if stage.recode is not None:
    return _recode(place, stage, stage.recode, one)
  found, known = one.model.bottleneck.vocab, stage.prior.vocabs
  found = (found,) * len(known) if isinstance(found, int) else found
  if known and found is not None and found != known:
    told = ["and".join(f" {n} " for n in vocabs).strip() for vocabs in (known, found)]
    raise UserError(f"the prior knows {told[0]} codes, but the bottleneck has {told[1]}")
  return None


def _recode(place: str, stage: Stage2, recode: Recode, one: Stage1) -> None:
  """Merged tokens are of codes, cached, and as many as the prior knows."""
  if not isinstance(recode, Recode):
    raise UserError(f"{place}.recode is {type(recode).__name__}, not a recode (see latents.recodes)")
  name, vocab = type(recode).__name__, one.model.bottleneck.vocab
  if not stage.cache:
    raise UserError(f"{place}.recode is fitted on the latent cache: set --{place}.cache True")
  if vocab is None:
    raise UserError(f"{place}.recode: {name} merges codes, but the bottleneck is continuous")
  if isinstance(vocab, tuple):
    raise UserError(f"{place}.recode: {name} merges codes of one grid, but the bottleneck has {len(vocab)}")
  if recode.length < 1:
    raise UserError(f"{place}.recode.length is {recode.length}: it must be at least 1")
  if recode.sample < 0:
    raise UserError(f"{place}.recode.sample is {recode.sample}: it must be at least 0 (0 = all)")
  known, found = stage.prior.vocabs, recode.tokens(vocab) + 1
  if known != (found,):
    told = " and ".join(map(str, known)) or "no"
    raise UserError(f"the prior knows {told} codes, but {name} gives {found}: merged tokens, and one for the end")
  if (length := getattr(getattr(stage.prior, "backbone", None), "length", recode.length)) != recode.length:
    raise UserError(f"the prior models {length} tokens, but {place}.recode.length is {recode.length}")


def _starts(place: str, stage: Stage1 | Stage2) -> None:
  for number, start in enumerate(stage.start):
    where = f"{place}.start.{number}"
    if not isinstance(start.stage, Stage1 | Stage2 | Released):
      raise UserError(f"{where} is no Start with a stage 1, a stage 2 or released weights")
    if isinstance(stage, Stage1) and isinstance(start.stage, Stage2):
      raise UserError(f"{where}.stage is a stage 2: a stage 1 begins with weights of a stage 1, or released ones")
    if isinstance(start.stage, Released) and len(start.stage.sha256) != 64:
      raise UserError(f"{where}.stage.sha256 is not the 64 hex digits of a SHA-256 (`sha256sum FILE` prints them)")
    if isinstance(start.stage, Released) and not isinstance(start.stage.statistics, str):
      scale = start.stage.statistics[0]
      if not all(0 < s < math.inf for s in (scale if isinstance(scale, tuple) else (scale,))):
        raise UserError(f"{where}.stage.statistics: a scale is a number above 0, not {scale}")

"""What no run can have is said before anything is begun."""

from latents.declare.stages import Experiment
from latents.errors import UserError


def check(experiment: Experiment) -> None:
  """UserError naming the first number of a declaration that no run can have."""
  least = {"steps": 0, "batch": 1, "microbatches": 1, "log_every": 1, "save_every": 1, "workers": 0, "patience": 1}
  for place, stage in (("stage1", experiment.stage1), ("stage2", experiment.stage2)):
    for name, low in least.items() if stage is not None else ():
      if getattr(stage, name) < low:
        raise UserError(f"{place}.{name} is {getattr(stage, name)}: it must be at least {low}")
    if stage is not None and stage.batch % stage.microbatches:
      raise UserError(f"{place}.batch is {stage.batch}: it does not divide into {stage.microbatches} microbatches")
    if stage is not None and not 0 <= stage.ema < 1:
      raise UserError(f"{place}.ema is {stage.ema}: it must be in [0, 1)")
  for name in ("images", "samples", "batch"):
    if getattr(experiment.evaluation, name) < 1:
      raise UserError(f"evaluation.{name} is {getattr(experiment.evaluation, name)}: it must be at least 1")
  if experiment.seed < 0:
    raise UserError(f"seed is {experiment.seed}: it must be at least 0")

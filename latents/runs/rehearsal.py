"""Before anything is written: do the parts fit together, are the data there, will the disk hold it?"""

import math
import shutil
from typing import Any, Literal

import jax
import jax.numpy as jnp

from latents.data import Source, evaluation_batches
from latents.declare import Experiment, Stage1, Stage2, trainable
from latents.errors import UserError
from latents.frozen import Frozen
from latents.nn.streams import streams
from latents.recodes import Walk
from latents.runs import begin
from latents.store.folder import Folder
from latents.train import partition, stage2
from latents.train.build_step import Program, abstract_autoencoder, build_step
from latents.types import Latent
from latents.use import score

STATES = 3.5  # two checkpoints, one that is being written, and the weights, in sizes of a state


def rehearse(folder: Folder, mesh: jax.sharding.Mesh) -> Program | None:
  """Trace both steps, sampling and decoding, open the data, and compare sizes with the disk.

  Returns stage 1's program, traced; None for a run that was rehearsed before and is resumed: then the
  data alone are looked at. UserError for what would fail later.
  """
  experiment = folder.experiment
  stages: tuple[Literal[1, 2], ...] = (1, 2) if experiment.stage2 else (1,)
  waiting = [found for number in stages for found in _waiting(folder, number)]
  there = [n for n in stages[:-1] if _there(folder, n)]  # the data of stage 1 need not be here any more
  datas = [experiment.stage(n).data for n in stages if n not in there]
  datas += [base.experiment.stage(n).data for base, n in waiting]
  for data in {id(data): data for data in datas}.values():
    _open(data)
  score.load_metrics(experiment)
  if folder.declared():
    return None
  for base, number in waiting + [(folder, number) for number in stages if not folder.finished(number)]:
    trainable(base.title or f"stage{number}", base.experiment.stage(number))
  for stage in [base.experiment.stage(n) for base, n in waiting] + [experiment.stage(n) for n in stages]:
    check_told(stage)
  if experiment.stage2:
    _check_guidance(experiment.stage2)
    if experiment.stage2.recode is not None:  # merged tokens are of codes on a grid
      stage2.code_grid(Frozen(experiment.stage1.model), abstract_autoencoder(experiment), experiment.stage2.data.shape)
  made = {base.stage(n): (base, n, build_step(base.experiment, n, mesh)) for base, n in waiting}
  made |= {folder.stage(n): (folder, n, build_step(experiment, n, mesh)) for n in stages}
  for base, number, program in made.values():
    if base is not folder or number not in there:
      begin.check(base, number, program)
    program.step.shapes(program.state, program.frozen, program.batch)
  programs = [made[folder.stage(n)][2] for n in stages]
  if experiment.stage2:
    _check_sampling(experiment, programs[1])
  _check_disk(folder, [program for _, _, program in made.values()])
  return programs[0]


def _waiting(folder: Folder, number: int) -> list[tuple[Folder, Literal[1, 2]]]:
  """The stages that must be trained before one that is not finished, innermost first."""
  if _there(folder, number):
    return []
  found: list[tuple[Folder, Literal[1, 2]]] = []
  for base, which in begin.needed(folder, number):
    if not _there(base, which):
      found += [*_waiting(base, which), (base, which)]
  return found


def _there(folder: Folder, number: int) -> bool:
  """Whether a stage is finished, here or where it will be taken from."""
  return folder.finished(number) or (number == 1 and folder.lender(number) is not None)


def _open(data: Source) -> None:
  for split in ("train", "test"):
    with evaluation_batches(data, split=split, batch=1, limit=1) as found:
      x = next(found)["x"]
    if x.shape[1:] != data.shape:
      raise UserError(f"the {split} split gives examples of {x.shape[1:]}, not {data.shape}")


def check_told(stage: Stage1 | Stage2) -> None:
  """The decoder, or the prior, is given what it reads, and its labels are the data's, or there are none on its side."""
  name, part = ("decoder", stage.model) if isinstance(stage, Stage1) else ("prior", stage.prior)
  wanted, found, gives = part.classes, stage.data.classes, stage.conditioner.gives
  if missing := [entry for entry in part.conditions if entry not in gives]:
    told = type(stage.conditioner).__name__
    raise UserError(f"the {name} reads '{missing[0]}', but {told} gives {', '.join(gives)}")
  if wanted and wanted != found:
    raise UserError(f"the {name} has {wanted} labels, the data have {found or 'none'}")
  if part.conditions:
    count = stage.conditioner.count(found)
    if stage.steps and not (found and count):
      told = "there is nothing to tell" if found else "the data have no labels"
      raise UserError(f"what the {name} is told is chosen by the label of an example, but {told}")
  rate = getattr(part.encoder, "rate", None) if isinstance(stage, Stage1) else None
  if rate is not None and rate != stage.data.rate:
    raise UserError(
      f"the encoder hears sound at {rate} Hz, the data have {stage.data.rate or 'no sound'}: set both alike"
    )


def _check_guidance(stage: Stage2) -> None:
  if not stage.prior.conditions and stage.prior.guidance != 1.0:
    missing = "the data have no labels" if not stage.data.classes else "the prior has no labels"
    raise UserError(f"guidance {stage.prior.guidance} needs labels, but {missing}: set --stage2.prior.guidance 1")


def _check_sampling(experiment: Experiment, program: Program) -> None:
  stage, frozen = experiment.stage2, Frozen(experiment.stage1.model)
  assert stage is not None

  def sample(variables: Any, arrays: Any, labels: Any, x: Any) -> Any:
    key = jax.random.key(0)
    latent = frozen.encode(arrays, x, key=key, train=False)
    shape = (latent.codes if stage.prior.discrete else latent.z).shape[1:]
    shape = shape if stage.recode is None else (stage.recode.length,)
    cond = stage.conditioner.asked(labels)
    still = Walk(lambda batch: None, lambda state, token: (state, token))  # what finds places is not fitted yet
    walk: dict[str, Any] = {} if stage.recode is None else {"walk": still}
    drawn: Any = stage.prior.apply(variables, cond, shape=shape, **walk, method="sample", rngs=streams(key))
    one = experiment.stage1
    given = one.conditioner.asked(labels) if one.model.conditions else None
    if stage.recode is not None:  # the tokens are expanded on the host
      drawn = Latent(codes=latent.codes)
    return frozen.decode(arrays, drawn.replace(given=given), key=key)

  labels = jax.ShapeDtypeStruct((1,), jnp.int32)
  x = jax.ShapeDtypeStruct((1, *stage.data.shape), jnp.float32)
  variables = partition.merge(program.frozen["fixed"], program.state.ema)
  jax.eval_shape(sample, variables, program.frozen, labels, x)


def _check_disk(folder: Folder, programs: list[Program]) -> None:
  needed = sum(STATES * a.size * a.dtype.itemsize for p in programs for a in jax.tree.leaves(p.state))
  stage, frozen = folder.experiment.stage2, Frozen(folder.experiment.stage1.model)
  if stage is not None and stage.cache:
    x = jax.ShapeDtypeStruct((1, *stage.data.shape), jnp.float32)
    stored = jax.eval_shape(frozen.store, programs[-1].frozen, x)
    needed += 2 * 4 * stage.recode.length * len(stage.data.records("train")) if stage.recode else 0
    needed += 2 * math.prod(stored.shape) * stored.dtype.itemsize * len(stage.data.records("train"))
  there = next(p for p in (folder.path, *folder.path.absolute().parents) if p.exists())
  free = shutil.disk_usage(there).free
  if free < needed:
    raise UserError(f"{there} has {free / 2**20:.0f} MiB free; this run needs {needed / 2**20:.0f} MiB")

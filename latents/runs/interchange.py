"""Weights of others to a run whose stage 1, or stage 2, is finished, and such a stage to the files that others read."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from latents import interop
from latents.conditioners import Labels, Text
from latents.data import Source, Unnamed, source
from latents.declare import Experiment, Mesh, Released, Stage1, Stage2, Start, check
from latents.errors import UserError, first_line, nearest
from latents.frozen import Frozen
from latents.interop import gpt, hub
from latents.losses import Weight
from latents.machine.disk import check_folder, disk_errors, on_disk
from latents.pretrained.readers import read_weights
from latents.runs import begin
from latents.runs.run import share
from latents.runs.training import bring, say
from latents.store.choose import choose_folder
from latents.store.folder import Folder, open_folder
from latents.train import sharding
from latents.train.build_step import abstract_autoencoder, build_step

CONFIG = "config.json"
CLASSES = (
  "AutoencoderKL", "AutoencoderDC", "VQModel", "UNet2DConditionModel", "UNet2DModel", "DiT", "SiT", "LightningDiT",
  *gpt.CLASSES.values(),
)  # fmt: skip
MODEL = "diffusion_pytorch_model"
NAMED = (f"{MODEL}.safetensors", f"{MODEL}.bin")  # in a folder
NAMED_OF_ONE = (*NAMED, f"vae/{MODEL}.safetensors", "ae.safetensors", "dalle.safetensors")
NAMED_OF_PRIORS = (*NAMED, f"unet/{MODEL}.safetensors", f"transformer/{MODEL}.safetensors", "model.safetensors")
SIDE = 256  # pixels of the pictures that a release was made for, where it does not say
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
Pair = tuple[Any, Any]  # (scale, shift), each a number or a tuple of one a channel


@dataclasses.dataclass(frozen=True)
class File:
  """Weights that were asked for. path: where they lie. told: what the declaration calls them (with a hub's revision).
  config: what stands beside them; {} for nothing."""

  path: Path
  told: str
  config: Mapping[str, Any]


def bring_in(
  asked: str, layout: str | None, runs: Path, name: str, statistics: tuple[float, float] | None = None,
  data: str | None = None, size: int | None = None, data_dir: str | None = None, on: Path | None = None,
  texts: str | None = None,
) -> Folder:  # fmt: skip
  """Make the run `runs/NAME`, whose stage 1 are the weights of a file, a folder or hf:OWNER/NAME, and return it.

  layout: of `interop.LAYOUTS`, or a release of `interop.RELEASES`, whose units are known; None: as the names of the
  arrays say. statistics: (scale, shift) of the latents where the release is none of these (codes need none). data: to
  measure them on. size: pixels a side of the pictures. on: a run whose stage 1 makes the latents of a prior, whose
  backbone the weights then are. texts: what that prior may be asked for, see `_prior`. UserError, one line; nothing is
  left of what failed.
  """
  release = interop.RELEASES.get(layout or "")
  if layout is not None and release is None and layout not in interop.LAYOUTS:
    known = [*interop.RELEASES, *interop.LAYOUTS]
    raise UserError(f"there is no layout '{layout}'{nearest(layout, known)}: one of {', '.join(known)}")
  file = find(asked, NAMED_OF_ONE if on is None else NAMED_OF_PRIORS)
  arrays = read_weights(str(file.path))
  if layout not in interop.LAYOUTS:
    layout = (release and release.layout) or interop.guess(arrays, file.told)
  if (interop.LAYOUTS[layout].prior is None) != (on is None):
    raise UserError(
      f"{file.told} is {layout}, an autoencoder: it is a stage 1 itself, --on is for the weights of a prior" if on else
      f"{file.told} is {layout}, the network of a prior: say --on RUN, whose stage 1 makes its latents"
    )  # fmt: skip
  model, ours = interop.read(layout, arrays, file.config, file.told)
  if on is not None:
    if statistics or data:
      raise UserError("--statistics and --data are of the latents, which the run of --on makes")
    released = Released(path=file.told, sha256=_sha256(file.path), layout=layout)  # pyright: ignore
    del arrays, ours
    return _made(_prior(model, file.config, released, share(on, runs), name, size, texts), runs, name)
  if (read := interop.channels(ours)) != model.decoder.channels:
    raise UserError(
      f"{file.told} encodes {read} channels and decodes {model.decoder.channels}: a stage 1 gives back what it is given"
    )
  latent = interop.outline(model, read)
  dim = latent.z.shape[-1]
  if release is not None and dim != release.channels:
    raise UserError(f"{file.told} has latents of {dim} channels, that release has {release.channels}")
  known = (release.scale, release.shift) if release else _said(file)
  if latent.codes is not None:
    known = known or (1.0, 0.0)  # a prior sees codes, which have no units
  units = "measured" if data else statistics or known
  if units is None:
    raise UserError(
      f"{file.told} does not say the units of its latents: --layout {', '.join(interop.RELEASES)} if it is one of "
      "these, --statistics SCALE,SHIFT, or --data to measure them"
    )
  del arrays, ours
  said = file.config.get("sample_size")
  side = size or (said if isinstance(said, int) and said > 0 else SIDE)
  released = Released(path=file.told, sha256=_sha256(file.path), layout=layout, statistics=units)  # pyright: ignore
  one = Stage1(
    data=_pictures(data, data_dir, side, model.decoder.channels), model=model, steps=0,
    losses={name: Weight(0.0) for name in latent.terms}, batch=8 if data else 1, start=(Start(stage=released),),
    trained=(), ema=0.0,
  )  # fmt: skip
  return _made(Experiment(name=name, stage1=one, stage2=None), runs, name)


def _prior(
  backbone: Any, config: Mapping[str, Any], released: Released, one: Stage1, name: str, size: int | None,
  texts: str | None,
) -> Experiment:  # fmt: skip
  """The declaration of a prior that others trained over a stage 1 that is there.

  texts: a file of embeddings (`conditioners.Text`), for a backbone that reads texts. UserError for latents that it does
  not take.
  """
  prior = interop.LAYOUTS[released.layout].prior(backbone, config)  # pyright: ignore
  data, labels = one.data, prior.classes
  if size is not None:
    data = dataclasses.replace(data, size=size)  # pyright: ignore
  if labels and data.classes not in (0, labels):
    raise UserError(f"the prior has {labels} labels, the data of that stage 1 have {data.classes}")
  read = getattr(backbone, "text", ())
  if texts and not read:
    raise UserError("--texts is for a prior that reads texts")
  two = Stage2(
    data=data, prior=prior, steps=0, batch=1, start=(Start(stage=released, into="backbone"),), trained=(), ema=0.0,
    conditioner=_told(read, texts) if read else Labels(classes=labels),
  )  # fmt: skip
  return Experiment(name=name, stage1=one, stage2=two)


def _told(read: tuple[int, int], texts: str | None) -> Text:
  """The texts of a file; none where no file is named. read: (L, E) of the backbone."""
  if texts is None:
    return Text(length=read[0], size=read[1])
  path = os.path.abspath(os.path.expanduser(on_disk(texts)))
  count = len(read_weights(path).get("text", ()))
  told = Text(texts=tuple(map(str, range(count))), length=read[0], size=read[1], path=path, sha256=_sha256(Path(path)))
  told.table  # noqa: B018  (a file that does not fit)
  return told


def _sha256(path: Path) -> str:
  with open(path, "rb") as opened:
    return hashlib.file_digest(opened, "sha256").hexdigest()


def _made(experiment: Experiment, runs: Path, name: str) -> Folder:
  check(experiment)
  folder = choose_folder(on_disk(runs), experiment, name)
  folder.check_version()
  mesh, two = sharding.make_mesh(Mesh()), experiment.stage2
  abstract_autoencoder(experiment)  # a size that the stride does not divide
  if two is not None:
    begin.check(folder, 2, build_step(experiment, 2, mesh))  # latents that the prior does not take
  elif experiment.stage1.start[0].stage.statistics == "measured":  # pyright: ignore
    experiment.stage1.data.records("train")  # what is missing is said before anything is written
  with folder.claimed():
    folder.write_declaration()
    bring(folder, 1, mesh)
    if two is not None:
      bring(folder, 2, mesh)
  return folder


def find(asked: str, named: Iterable[str] = NAMED_OF_ONE) -> File:
  """A file, a folder with one of the usual names in it, or a file of the hub, with the config.json beside it."""
  if hub.is_hub(asked):
    path, told = hub.fetch(asked)
    return File(path, told, _config(hub.beside(told, CONFIG)))
  path = Path(os.path.abspath(os.path.expanduser(on_disk(asked))))
  if path.is_dir():
    there = [path / name for name in named if (path / name).is_file()]
    if not there:
      raise UserError(f"{path} is a folder without {' or '.join(named)}: name the file")
    path = there[0]
  if not path.exists():
    raise UserError(f"{path} does not exist (files of the hub are hf:OWNER/NAME)")
  return File(path, str(path), _config(path.with_name(CONFIG)))


def _config(path: Path | None) -> dict[str, Any]:
  """What a config.json of one of CLASSES says; {} for none, or another's."""
  if path is None or not path.is_file():
    return {}
  try:
    found = json.loads(path.read_text())
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f"{path} cannot be read: {first_line(error)}") from None
  if not isinstance(found, dict):
    return {}
  if (name := found.get("_class_name")) in CLASSES:
    return found
  if name is None and {"n_head", "block_size"} & found.keys() and "model_type" not in found:
    names = ", ".join(gpt.CLASSES.values())
    raise UserError(f'{path} does not say whose numbers these are: "_class_name" must be one of {names}')
  return {}


def _said(file: File) -> Pair | None:
  """(scale, shift) as the config.json beside a file says, each a number or one a channel; None where it does not."""
  config = file.config
  scale, shift = config.get("scaling_factor"), config.get("shift_factor") or 0.0
  if scale is None:
    return None
  mean, std = config.get("latents_mean"), config.get("latents_std")
  if mean is None or std is None:
    found: Pair = (scale, shift)
  else:
    found = tuple(scale / s for s in std), tuple(mean)
  numbers = [x for side in found for x in (side if isinstance(side, tuple) else (side,))]
  if not all(isinstance(x, int | float) and math.isfinite(x) for x in numbers):
    raise UserError(f"{CONFIG} beside {file.told}: scaling_factor and shift_factor are no numbers")
  return tuple(tuple(map(float, x)) if isinstance(x, tuple) else float(x) for x in found)  # pyright: ignore


def _pictures(data: str | None, data_dir: str | None, side: int, channels: int) -> Source:
  if data is None:
    return Unnamed(path="", size=side, channels=channels)
  return source(data, size=side, data_dir=data_dir)


def send_out(run: Path, layout: str, out: Path, dtype: str = "float32") -> list[Path]:
  """Write the stage 1 of a run, or its prior's backbone, as a folder that others read: its weights in a layout, and
  what belongs beside them.

  The files. UserError for a model that the layout does not hold, for numbers that `dtype` cannot hold, and where
  something is there already; nothing is left of what failed.
  """
  interop.check_name(layout)
  folder, to = open_folder(on_disk(run)), interop.LAYOUTS[layout]
  two, number = folder.experiment.stage2, 1 if to.prior is None else 2
  made = folder.artefact(number) if number == 1 or two is not None else None
  if made is None:
    raise UserError(f"{run} has no finished stage {number}: the same `latents run` command goes on with it")
  files: dict[str, Any] = {}
  if number == 1 or two is None:
    model, units, shape = folder.experiment.stage1.model, made.facts["statistics"], folder.experiment.stage1.data.shape
  else:
    model, units, shape = getattr(two.prior, "backbone", None), {}, _latent(folder.experiment)
  to.check(model)
  if to.config:
    files[CONFIG] = to.config(model, units, shape)
  elif dtype == "float32" and number == 1:
    say(f"{layout} has no place for the units of the latents: {interop.units(units)}")
  ours = {name.removeprefix("params/").removeprefix("backbone/"): array for name, array in made.weights.items()}
  files[to.file] = interop.give(layout, ours, DTYPES[dtype])
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise UserError(f"--out {out} is there already: nothing was overwritten")
  check_folder(out)
  with disk_errors(out.absolute().parent):
    out.mkdir(parents=True, exist_ok=True)
    for name, held in files.items():
      temporary = out / f"{name}.tmp"
      if name == CONFIG:
        temporary.write_text(json.dumps(held, indent=2) + "\n")
      else:
        save_file(held, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)  # safetensors makes files that only their owner may read
      os.replace(temporary, out / name)
  return [out / name for name in files]


def _latent(experiment: Experiment) -> tuple[int, ...]:
  """[*s,D] of what the prior models."""
  assert experiment.stage2 is not None
  frozen = Frozen(experiment.stage1.model)
  return frozen.shape(abstract_autoencoder(experiment), experiment.stage2.data.shape).z.shape

"""The same declaration with its data at another place on this machine."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from latents.data import Source
from latents.declare.check import every_stage
from latents.declare.stages import Experiment
from latents.errors import UserError

PLACES = ("path", "data_dir")


def with_data_at(experiment: Experiment, place: str) -> Experiment:
  """The experiment, whose folder of data (of all its stages) is `place`, with "~" or relative. No address changes.

  UserError where its data lie in no folder.
  """
  if not any(_places(stage.data) for _, stage in every_stage(experiment)):
    raise UserError(f"the data of {experiment.name} lie in no folder, so they cannot be elsewhere: leave --data out")
  return _moved(experiment, os.path.abspath(os.path.expanduser(place)))


def _moved(x: Any, place: str) -> Any:
  if isinstance(x, tuple):
    return tuple(_moved(one, place) for one in x)
  if isinstance(x, Mapping):
    return {name: _moved(one, place) for name, one in x.items()}
  if not dataclasses.is_dataclass(x) or isinstance(x, type | nn.Module):
    return x
  if isinstance(x, Source):
    return dataclasses.replace(x, **dict.fromkeys(_places(x), place))
  values = {f.name: getattr(x, f.name) for f in dataclasses.fields(x) if f.init}
  changed = {name: new for name, old in values.items() if (new := _moved(old, place)) != old}
  return dataclasses.replace(x, **changed) if changed else x


def _places(source: Source) -> list[str]:
  return [f.name for f in dataclasses.fields(source) if f.name in PLACES and not f.metadata.get("address", True)]

"""The address of a stage: the hash of its own declaration, by which it is found, shared and never trained twice."""

import dataclasses
import hashlib
import json

from latents.declare.stages import Experiment, Stage1, Stage2
from latents.declare.stored import Form, Json, to_json


def digest(x: Json) -> str:
  """Ten hex digits of the SHA-256 of canonical JSON."""
  return hashlib.sha256(json.dumps(x, sort_keys=True).encode()).hexdigest()[:10]


def addresses(experiment: Experiment, form: Form = "address") -> tuple[str, str | None]:
  """The addresses of stage 1 and stage 2; stage 2's contains that of the stage whose latents it is trained on."""
  one = digest(_seeded(experiment.stage1, experiment, form))
  if experiment.stage2 is None:
    return one, None
  latents = digest(_seeded(maker(experiment.stage1), experiment, form))
  return one, digest([*_seeded(experiment.stage2, experiment, form), latents])


def _seeded(stage: Stage1 | Stage2, experiment: Experiment, form: Form) -> list[Json]:
  """A stage and the seed that it is trained under, whoever gives it."""
  return [to_json(dataclasses.replace(stage, seed=None), form), experiment.seed_of(stage)]


def former_addresses(experiment: Experiment) -> tuple[str, str | None]:
  """What `addresses` were when the paths of folders of data belonged to them; equal where there are none."""
  return addresses(experiment, "former")


def maker(stage: Stage1) -> Stage1:
  """The stage that made the latents of `stage`: itself, or the one whose encoder and bottleneck it keeps untouched.

  So a new decoder shares its prior with the old one.
  """
  parts = ("encoder", "bottleneck")
  givers = [s for s in stage.start if s.into.split("/")[0] in ("", *parts)]
  if not givers or any(path.split("/")[0] in ("", *parts) for path in stage.trained):
    return stage
  base, model = givers[0].stage, stage.model
  if not isinstance(base, Stage1):
    return stage
  whole = all(s.stage == base and s.source == s.into and s.into in ("", *parts) for s in givers)
  covered = {p for p in parts for s in givers if s.into in ("", p)}
  same = (model.encoder, model.bottleneck) == (base.model.encoder, base.model.bottleneck)
  return maker(base) if whole and same and covered == set(parts) else stage

"""Every experiment file at both scales, with data that a test makes; and the goldens of their texts and addresses.

python -m tests.declared          writes tests/golden/NAME.json anew: a change there must be named by its commit
"""

import dataclasses
import inspect
import json
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from latents.command import overrides
from latents.declare import Experiment, Stage1, addresses, dumps, former_addresses
from latents.media.video import animation
from tests import micro

FOLDER = Path(__file__).parent.parent / "experiments"
FILES = sorted(p for p in FOLDER.glob("**/*.py") if p.name != "__init__.py" and p.parent.name != "ablations")
GOLDEN = Path(__file__).parent / "golden"
SCALES = ("tiny", "paper")
PLACE = "/DATA"  # stands for the folder of the data in a golden


def make_data(root: Path) -> Path:
  """Pictures in class folders, and sounds that start with a digit: what experiments with a `data` knob read."""
  rng = np.random.default_rng(0)
  for label in range(3):
    (root / "pictures" / f"class{label}").mkdir(parents=True)
    for i in range(12):
      pixels = rng.integers(0, 255, (70 + i, 80, 3), dtype=np.uint8)
      Image.fromarray(pixels).save(root / "pictures" / f"class{label}" / f"{i}.png")
  (root / "sounds").mkdir()
  (root / "clips").mkdir()
  for i in range(12):
    (root / "clips" / f"{i}.gif").write_bytes(animation(rng.integers(0, 255, (20, 36, 40, 3), dtype=np.uint8), "GIF"))
  for i in range(24):
    wave = 0.3 * np.sin(np.arange(5000) * 0.05 * (1 + i % 10))
    soundfile.write(root / "sounds" / f"{i % 10}_speaker_{i}.wav", wave, 8000)
  return root


def build(path: Path, scale: str, data: Path) -> Experiment:
  """The experiment of a file at a scale; `data` is what `make_data` made."""
  function = overrides.load_file(path).experiment
  knobs = inspect.signature(function).parameters
  assert "scale" in knobs
  options = {"scale": scale}
  if "data" in knobs:
    default = str(knobs["data"].default)
    sound, clips = default.startswith("audio:"), default.startswith("strips:")
    options["data"] = f"audio:{data / 'sounds'}" if sound else f"folder:{data / 'pictures'}"
    if clips:
      options["data"] = f"video:{data / 'clips'}"
    if default == "topics" or (scale == "paper" and not sound):
      del options["data"]  # paper scale is declared without the data being there
  return function(**options)


def elsewhere(experiment: Experiment, data: Path) -> Experiment:
  """The same with its data at `PLACE`, where there are none."""

  def moved(stage):
    begun = tuple(
      dataclasses.replace(start, stage=moved(start.stage)) if isinstance(start.stage, Stage1) else start
      for start in stage.start
    )
    stage = dataclasses.replace(stage, start=begun)
    path = getattr(stage.data, "path", None)
    if path is None:
      return stage
    return dataclasses.replace(stage, data=dataclasses.replace(stage.data, path=path.replace(str(data), PLACE)))

  two = experiment.stage2 and moved(experiment.stage2)
  return dataclasses.replace(experiment, stage1=moved(experiment.stage1), stage2=two)


def golden(experiment: Experiment) -> dict:
  """What must not change by itself: the text of experiment.json and the addresses of both stages."""
  now, before = list(addresses(experiment)), list(former_addresses(experiment))
  return {
    "addresses": now,
    **({"former": before} if before != now else {}),
    "experiment": json.loads(dumps(experiment)),
  }


def goldens(data: Path) -> dict[str, dict]:
  """name -> {scale: golden}."""
  found = {p.stem: {s: golden(elsewhere(build(p, s, data), data)) for s in SCALES} for p in FILES}
  found["micro"] = {"tiny": golden(micro.experiment()), "codes": golden(micro.experiment(codes=True))}
  return found


def main() -> None:
  """Write all goldens."""
  with tempfile.TemporaryDirectory() as folder:
    for name, value in goldens(make_data(Path(folder))).items():
      (GOLDEN / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
  main()

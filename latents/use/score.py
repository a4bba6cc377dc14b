"""The score card of a run: rate, distortion, the prior's loss, and how its samples compare with held-out data.

Writes scores.json, and the arrays and pictures that the report shows: reconstructions.npz/.png,
samples.npz/.png, neighbours.npz/.png.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from latents import media
from latents.data import choice
from latents.declare import Experiment
from latents.errors import TooFew
from latents.evaluate import (
  Examples,
  Features,
  Held,
  LatentMetric,
  Layout,
  Measured,
  Metric,
  SampleMetric,
  pca_picture,
  tsr,
)
from latents.evaluate.samples import collect
from latents.frozen import to_batch
from latents.machine import environment, hosts, progress
from latents.machine.disk import disk_errors
from latents.store import artefact
from latents.store.folder import SCORES, Folder
from latents.train import log, sharding
from latents.train.build_step import InMesh, abstract_autoencoder
from latents.types import to_signal
from latents.use import held_out, judged, measures, neighbours, prior_loss
from latents.use.kept import save_signals
from latents.use.model import Model, load_folder

SHOWN = 24  # reconstructions that the report shows, a fixed choice over the whole split
FEW = 100  # examples a side; numbers from fewer are marked
KEPT = 1_000  # samples that samples.npz keeps


def judge(folder: Folder, mesh: jax.sharding.Mesh, command: str, paper: str = "") -> dict[str, Any]:
  """Measure a run whose stages are finished, write the files, and return the scores.

  All processes compute, the first one writes.

  command, paper: for the report; a later evaluation keeps those of the run.
  """
  experiment = folder.experiment
  before = folder.scores()
  model = load_folder(folder, mesh)
  layout = measures.layout(experiment, model.arrays)
  metrics = measures.chosen(experiment, layout)
  scores: dict[str, Any] = {
    "command": before.get("command", command),
    "paper": before.get("paper", paper),
    "declaration": folder.declaration_digest(),
    "environment": environment.describe(),
    "parameters": _parameters(model),
    "time": {f"stage{n}_s": facts["seconds"] for n in (1, 2) if (facts := _facts(folder, n))},
  }
  spent = {f"stage{n}_flops": facts["flops"] for n in (1, 2) if (facts := _facts(folder, n)) and "flops" in facts}
  if spent:  # runs of former versions did not count
    scores["compute"] = spent | {"flops": sum(spent.values())}
  scores["latent"] = _latent(model, layout, metrics["latents"])
  scores["reconstruction"], count = _reconstruction(model, folder.path, metrics["reconstructions"])
  if found := judged.read(experiment, folder.path / log.FILE):
    scores["judges"] = found
  source = type(measures.held_out(experiment)).__name__
  scores["data"] = {"held_out": count, "source": source}
  if experiment.stage2 is not None:
    scores["prior"] = prior_loss.measure(model)
    scores["samples"], scores["protocol"], scores["left_out"] = _samples(model, folder.path, metrics["samples"], source)
    if (spent := model.sampler.seconds()) is not None:
      scores["time"]["sample_s"] = spent
  if hosts.first():
    artefact.write_json(folder.path / SCORES, scores)
    told = {name: scores.get(name, {}) for name in ("latent", "reconstruction", "prior", "samples")}
    steps = experiment.stage1.steps + (experiment.stage2.steps if experiment.stage2 else 0)
    with disk_errors(folder.path):
      log.show(folder.path, steps, told, sorted(folder.path.glob("*.png")))
  return scores


def load_metrics(experiment: Experiment) -> None:
  """Read what the metrics need, so that a missing file is said before anything is trained."""
  arrays = abstract_autoencoder(experiment)
  layout = measures.layout(experiment, arrays | {"std": np.ones(arrays["std"].shape)})
  found = measures.chosen(experiment, layout)
  for metric in found["reconstructions"] + (found["samples"] if experiment.stage2 else []):
    metric.load()


def _facts(folder: Folder, number: int) -> dict[str, Any] | None:
  there = number == 1 or folder.experiment.stage2
  return artefact.facts_of(folder.stage(number)) if there and folder.finished(number) else None


def _parameters(model: Model) -> dict[str, int]:
  params = model.arrays["variables"]["params"]
  counts = {name: sum(a.size for a in jax.tree.leaves(tree)) for name, tree in params.items()}
  counts["autoencoder"] = sum(counts.values())
  if model.prior is not None:
    counts["prior"] = sum(a.size for a in jax.tree.leaves(model.prior["params"]))
  return counts


def _latent(model: Model, layout: Layout, metrics: list[LatentMetric]) -> dict[str, Any]:
  """The latent's shape, TSR, and what its metrics say of the held-out examples."""
  bottleneck: Any = model.experiment.stage1.model.bottleneck
  accs = held_out.copied([m.init(layout) for m in metrics], model.mesh)
  grid = np.repeat(np.arange(len(layout.sizes)), layout.sizes) if layout.sizes else None

  def add(arrays: Any, accs: list, x: Any, mask: Any) -> list:
    stored = model.frozen.store(arrays, x)
    latent = model.frozen.recall(arrays, stored, key=jax.random.key(0), train=False)
    held = Held(x, mask, bottleneck.posterior(to_batch(stored)["stored"]), grid)
    return [m.update(a, latent, held) for m, a in zip(metrics, accs, strict=True)]

  update = held_out.accumulator(model.mesh, add)
  rows = held_out.signals(model.experiment) if jax.tree.leaves(accs) else ()
  for x, mask in progress.over(rows, "latents", count(model.experiment), lambda row: int(row[1].sum())):
    accs = update(model.arrays, accs, *held_out.placed(model.mesh, x, mask))
  out = {"shape": list(layout.shape), "kind": "discrete" if layout.vocab else "continuous"}
  out["tsr"] = tsr(layout.signal, layout.shape)
  for metric, acc in zip(metrics, hosts.gather(accs), strict=True):
    out |= metric.result(acc, layout)
  return out


def _reconstruction(model: Model, folder: Path, metrics: list[Metric]) -> tuple[dict[str, dict[str, float]], int]:
  """Every way to decode x every metric, over the held-out examples, and their number; keeps some for the
  report."""
  loaded = sharding.place([m.load() for m in metrics], model.mesh)

  def add(accs: list, loaded: list, x: Any, x_hat: Any, mask: Any) -> list:
    return [m.update(a, x, x_hat, mask, aux=aux) for m, a, aux in zip(metrics, accs, loaded, strict=True)]

  update, seen = held_out.accumulator(model.mesh, add), 0
  sums: dict[str, list] = {}
  number_of, there = count(model.experiment), len(measures.held_out(model.experiment).records("test"))
  wanted = np.arange(SHOWN) if number_of < there else choice(there, SHOWN)  # less than all is a choice already
  kept: dict[str, list[np.ndarray]] = {"x": [], "place": []}  # the originals come first in pictures
  rows = progress.over(held_out.rows(model.experiment), "reconstructions", number_of, _examples_of)
  for number, batch in enumerate(rows):
    x, mask = np.asarray(to_signal(batch["x"])), batch["mask"]
    seen += int(mask.sum())
    place = np.where(mask, number * len(x) + np.arange(len(x)), -1)
    chosen = np.isin(place, wanted)
    for name, x_hat in model.decodings(x, number, model.given(batch)).items():
      acc = sums.get(name) or held_out.copied([m.init() for m in metrics], model.mesh)
      sums[name] = update(acc, loaded, *held_out.placed(model.mesh, x, x_hat, mask))
      kept.setdefault(name or "reconstruction", []).append(x_hat[chosen])
    kept["x"].append(x[chosen])
    kept["place"].append(place[chosen])
  found = {name: np.concatenate(parts) for name, parts in kept.items()}
  places = found.pop("place").tolist()
  order = [places.index(i) for i in wanted.tolist() if i in places]  # as chosen, so that any first ones are a choice
  shown = {name: array[order] for name, array in found.items()}
  shown["pca"] = _pca(model, shown["x"])
  save_signals(folder, "reconstructions", shown, model.experiment.stage1.data)
  out = {}
  for name, accs in sums.items():
    results = [m.result(a) for m, a in zip(metrics, hosts.gather(accs), strict=True)]
    out[name] = {k: v for r in results for k, v in r.items()} | {"images": seen}
  return out, seen


def count(experiment: Experiment, split: Any = "test", limit: int | None = None) -> int:
  """The examples of a split that `held_out.rows` gives."""
  there = len(measures.held_out(experiment).records(split))
  return min(there, experiment.evaluation.images if limit is None else limit)


def _examples_of(batch: dict[str, np.ndarray]) -> int:
  return int(batch["mask"].sum())


def _pca(model: Model, x: np.ndarray) -> np.ndarray:
  """[N,h,w,3] uint8 picture of the latents; 1-D latents are one row high."""
  z = np.asarray(model.encode(x).z)
  z = z if z.ndim == 4 else z.reshape(len(z), 1, -1, z.shape[-1])
  return (255 * pca_picture(z)).astype(np.uint8)


def _samples(
  model: Model, folder: Path, metrics: list[SampleMetric], source: str
) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
  """Draw samples, keep the first, and compare all with held-out data: (values, the protocol of each, why a metric that
  needs more examples is left out)."""
  experiment = model.experiment
  assert experiment.stage2 is not None
  data, shown = experiment.stage2.data, []
  asked = model.sampler.labels(None, experiment.evaluation.samples)
  views = {features: _view(model, features) for features in dict.fromkeys(m.features for m in metrics)}
  seen: dict[Features, list[np.ndarray]] = {features: [] for features in views}
  for x in model.sampler.chunks(asked, seed=experiment.seed, shown=True):
    x = media.kind(data.kind).stored(x)
    shown += [x] if sum(map(len, shown)) < KEPT else []
    for features, view in views.items():
      seen[features].append(np.asarray(view(x), np.float64))
  x = np.concatenate(shown)[:KEPT]
  labels = {"label": asked[:KEPT]} if model.sampler.classes else {}
  save_signals(folder, "samples", {"x": x, **labels}, data)
  if beside := neighbours.features(experiment, metrics):
    neighbours.keep(experiment, folder, x, beside, views.get(beside) or _view(model, beside))
  fake = {features: Examples(np.concatenate(parts), asked) for features, parts in seen.items()}
  real = {features: _examples(experiment, view, "test", None, source) for features, view in views.items()}
  train: dict[Any, Any] = {(features, 0): None for features in views}
  measured: dict[str, Measured] = {}
  left_out: dict[str, str] = {}
  for metric in metrics:
    key = metric.features, metric.training
    if key not in train:
      train[key] = _examples(experiment, views[metric.features], "train", metric.training, source)
    sides = real[metric.features], fake[metric.features]
    try:
      found = metric.compare(*sides, train[key])
    except TooFew as error:
      left_out[type(metric).__name__] = str(error)
      continue
    if (number := min(len(side.x) for side in sides)) < FEW:
      found = {name: Measured(m.value, f"{m.protocol} (of {number}: too few to rely on)") for name, m in found.items()}
    measured |= found
  values = {"number": len(asked), "guidance": experiment.stage2.prior.guidance}
  if codes := model.sampler.mended["codes"]:
    values |= {f"codes_{name}": model.sampler.mended[name] / codes for name in ("cut", "filled")}
  values |= {name: m.value for name, m in measured.items()}
  return values, {name: m.protocol for name, m in measured.items()}, left_out


def _view(model: Model, features: Features) -> Callable[[np.ndarray], np.ndarray]:
  """Signals, as files hold them -> what features see of them, on the devices or on the host."""
  params = sharding.place(features.load(), model.mesh)
  if not features.jitted:
    return lambda x: np.asarray(features(params, np.asarray(to_signal(x))))
  apply = InMesh(model.mesh, jax.jit(lambda params, x: features(params, to_signal(x))))
  return lambda x: hosts.gather(apply(params, sharding.spread(x, model.mesh)))[: len(x)]


def _examples(experiment: Experiment, view: Callable, split: Any, limit: int | None, source: str) -> Examples:
  """Real examples of a split, as features see them."""
  what = "held-out features" if split == "test" else "training features"
  found = held_out.rows(experiment, split, limit)
  rows: Iterator[Any] = progress.over(found, what, count(experiment, split, limit), _examples_of)
  labels: list[np.ndarray] = []

  def kept() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for batch in rows:
      labels.append(batch.get("label", np.zeros(len(batch["x"]), np.int32))[batch["mask"]])
      yield batch["x"], batch["mask"]

  x = collect(view, kept())
  return Examples(x, np.concatenate(labels), f"{source} {'held-out' if split == 'test' else 'training'}")

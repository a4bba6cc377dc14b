"""What a run's folder holds, read as untrusted files: every surprise is one `UserError`."""

import dataclasses
import json
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from latents.errors import UserError, first_line
from latents.media import BESIDE, KINDS

FILES = ("experiment.json", "metrics.jsonl", "scores.json", "reconstructions.npz", "samples.npz", "neighbours.npz")
DEPTH, BYTES = 60, 2**31  # nested deeper or unpacked larger than this is not a run of ours
# What zipfile and numpy raise on archives that are broken or hostile.
UNREADABLE = (
  OSError, ValueError, EOFError, KeyError, MemoryError, RuntimeError, SyntaxError, OverflowError, TypeError,
  zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Run:
  """One run as far as its files go; {} stands for a file that is not there.

  metrics: stage -> name -> (steps float64 [n], values float64 [n], nan where there was no number).
  unread: lines of the log that could not be read. reconstructions, samples: arrays by name;
  neighbours: samples "x" beside their "nearest" training examples.
  """

  path: Path
  declaration: dict[str, Any]
  scores: dict[str, Any]
  metrics: dict[int, dict[str, tuple[np.ndarray, np.ndarray]]]
  unread: int
  reconstructions: dict[str, np.ndarray]
  samples: dict[str, np.ndarray]
  neighbours: dict[str, np.ndarray]

  @property
  def name(self) -> str:
    """The experiment's name, or the folder's where it has none."""
    name = self.declaration.get("name")
    return name if isinstance(name, str) and name.strip() else self.path.resolve().name

  def table(self, *path: str) -> dict[str, Any]:
    """A table of scores.json, {} if it is missing or no table."""
    found: Any = self.scores
    for key in path:
      found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}

  def stage(self, number: int) -> dict[str, Any] | None:
    """The declaration of a stage; None where the experiment has none."""
    found = self.declaration.get(f"stage{number}")
    return found if isinstance(found, dict) else None

  def decodings(self) -> dict[str, dict[str, Any]]:
    """Distortion by decoding; a flat table is the one decoding ''."""
    table = self.table("reconstruction")
    nested = {k: v for k, v in table.items() if isinstance(v, dict)}
    flat = {k: v for k, v in table.items() if not isinstance(v, dict)}
    return ({"": flat} if flat else {}) | nested


def read_run(path: Path) -> Run:
  """A run's folder -> Run. UserError if it holds none of a run's files, or one that is broken."""
  path = Path(path)
  if not path.is_dir():
    raise UserError(f"{path} is not a folder")
  if not any((path / name).is_file() for name in FILES):
    raise UserError(f"{path} is not a run's folder: it has no {FILES[0]}")
  metrics, unread = _metrics(path / "metrics.jsonl")
  return Run(
    path,
    _table(path / "experiment.json"),
    _table(path / "scores.json"),
    metrics,
    unread,
    _arrays(path / "reconstructions.npz"),
    _arrays(path / "samples.npz"),
    _arrays(path / "neighbours.npz"),
  )


def _text(path: Path, errors: str = "strict") -> str | None:
  if not path.is_file():
    return None
  try:
    return path.read_text(encoding="utf-8", errors=errors)
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f"{path} cannot be read: {error}") from None


def _table(path: Path) -> dict[str, Any]:
  text = _text(path)
  if text is None:
    return {}
  try:
    table = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise UserError(f"{path} is not JSON: {first_line(error)}") from None
  if not isinstance(table, dict):
    raise UserError(f"{path} does not hold a table but {type(table).__name__}")
  if _depth(table) > DEPTH:
    raise UserError(f"{path} is nested more than {DEPTH} deep")
  return table


def _depth(x: Any) -> int:
  """Levels of nesting, counted without recursion."""
  level, depth = [x], 0
  while level and depth <= DEPTH:
    inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
    level, depth = [v for group in inner for v in group], depth + 1
  return depth


def finite(x: Any) -> float:
  """A JSON value -> float; nan for what is no finite number (null, text, inf, 10**400)."""
  if isinstance(x, bool) or not isinstance(x, int | float):
    return math.nan
  try:
    return float(x) if math.isfinite(x) else math.nan
  except OverflowError:
    return math.nan


def _metrics(path: Path) -> tuple[dict[int, dict[str, tuple[np.ndarray, np.ndarray]]], int]:
  text, unread = _text(path, "replace"), 0
  found: dict[int, dict[str, dict[float, float]]] = {}
  lines = [line for line in (text or "").splitlines() if line.strip()]
  for line in lines:
    try:
      values = json.loads(line)
      stage, step = values["stage"], finite(values["step"])
    except (ValueError, RecursionError, KeyError, TypeError):
      unread += 1  # a crash may cut a line; the others still count
      continue
    if stage not in (1, 2) or not math.isfinite(step):
      unread += 1
      continue
    for name, value in values.items():
      if name not in ("stage", "step") and (value is None or isinstance(value, int | float)):
        found.setdefault(int(stage), {}).setdefault(name, {})[step] = finite(value)
  if lines and unread == len(lines):
    raise UserError(f"{path} is not a log of a run: none of its {unread} lines can be read")
  curves = {}
  for stage, terms in sorted(found.items()):
    curves[stage] = {k: _sorted(points) for k, points in terms.items()}
  return curves, unread


def _sorted(points: dict[float, float]) -> tuple[np.ndarray, np.ndarray]:
  steps = sorted(points)
  return np.array(steps, np.float64), np.array([points[s] for s in steps], np.float64)


def _arrays(path: Path) -> dict[str, np.ndarray]:
  """The arrays of an .npz, with `x` and its companions checked to fit together."""
  if not path.is_file():
    return {}
  try:
    with zipfile.ZipFile(path) as archive:
      if sum(member.file_size for member in archive.infolist()) > BYTES:
        raise UserError(f"{path} unpacks to more than {BYTES >> 30} GiB")
    with np.load(path, allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
  except UNREADABLE as error:
    raise UserError(f"{path} is not an archive of plain arrays: {first_line(error)}") from None
  x = arrays.get("x")
  if x is None:
    raise UserError(f"{path} has no array 'x'")
  text = x.ndim == 2 and x.dtype.kind == "i"
  if not (text or x.ndim in (3, 4, 5)) or x.dtype.kind not in "uif" or not all(x.shape[1:]):
    raise UserError(f"{path}: 'x' is {x.dtype} {list(x.shape)}, not signals [N,*S,C] or text [N,T]")
  for name, array in arrays.items():
    if name in ("rate", "names", "kind", "note"):
      continue
    if array.dtype.kind not in "uif" or array.ndim < 1 or len(array) != len(x):
      raise UserError(f"{path}: '{name}' is {array.dtype} {list(array.shape)}, not an array of {len(x)} rows")
    if name == "label" and (array.ndim != 1 or array.dtype.kind == "f"):
      raise UserError(f"{path}: 'label' is {array.dtype} {list(array.shape)}, not integers [{len(x)}]")
    if name == "pca" and (array.ndim != 4 or not all(array.shape[1:])):
      raise UserError(f"{path}: 'pca' is {list(array.shape)}, not pictures [N,h,w,3]")
  return arrays


def decoded(run: Run) -> dict[str, np.ndarray]:
  """The decodings of a run's reconstructions by their names; UserError if one does not fit its originals."""
  originals, out = run.reconstructions.get("x"), {}
  for name, array in run.reconstructions.items():
    if name in ("x", "pca", *BESIDE):
      continue
    if originals is None or array.shape != originals.shape:
      raise UserError(f"{run.path / FILES[3]}: '{name}' is {list(array.shape)}, unlike the originals")
    out["" if name == "reconstruction" else name] = array
  return out


def kind(arrays: dict[str, np.ndarray]) -> str:
  """The kind of the signals `x`: what their shape says, unless it is written beside them."""
  said = arrays.get("kind")
  if said is not None and said.size == 1 and str(said.reshape(-1)[0]) in KINDS and arrays["x"].ndim > 2:
    return str(said.reshape(-1)[0])
  return {2: "text", 3: "audio", 5: "video"}.get(arrays["x"].ndim, "image")


def rate(arrays: dict[str, np.ndarray]) -> int | None:
  """Samples a second of audio; None if it is not stored or absurd."""
  value = arrays.get("rate")
  if value is None or value.size != 1 or value.dtype.kind not in "uif":
    return None
  number = float(value.reshape(-1)[0])
  return int(number) if 100 <= number <= 1_000_000 else None


def label_names(arrays: dict[str, np.ndarray]) -> list[str]:
  """Names of the labels, [] if there are none."""
  names = arrays.get("names")
  if names is None or names.ndim != 1 or names.dtype.kind not in "US":
    return []
  return [n.decode(errors="replace") if isinstance(n, bytes) else str(n) for n in names.tolist()]

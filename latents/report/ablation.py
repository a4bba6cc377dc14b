"""The page of an ablation: table, verdicts, a figure and the variants side by side, from the stored numbers alone.

NAME.json   {"table", "verdict"}, as `latents ablate` stores them
NAME.webp   reconstructions and samples, a row a variant (where the signals are pictures)
NAME.md NAME.svg  made of NAME.json, never by hand
"""

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from latents.errors import UserError
from latents.machine.disk import disk_errors
from latents.media.drawing import grid
from latents.report.panels import label, summary, svg

SAMPLES = "samples.npz"
SHOWN = 8  # reconstructions, and as many samples, in a row of the picture
SIDE = 64  # pixels, in which smaller signals are shown
LIMIT = 60_000  # bytes of the picture
Stored = Mapping[str, Any]


def text(stored: Stored) -> str:
  """Table and verdicts for a terminal."""
  lines = [" | ".join(row) for row in _rows(stored["table"])]
  return "\n".join([*lines, *(f"{v['verdict']}: {v['claim']['sentence']} ({_evidence(v)})" for v in stored["verdict"])])


def publish(folder: Path, name: str, stored: Stored, run: Path) -> Path:
  """Put the numbers and pictures of a finished sweep in `folder`, with their page; the page's path."""
  with disk_errors(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(stored, indent=1) + "\n")
    if (run / "pictures.webp").is_file():
      shutil.copyfile(run / "pictures.webp", folder / f"{name}.webp")
  return rewrite(folder, name)


def rewrite(folder: Path, name: str) -> Path:
  """Make the page of NAME.json anew; its path. UserError where there are no numbers."""
  try:
    stored = json.loads((folder / f"{name}.json").read_text())
    page, figure = markdown(stored, name, (folder / f"{name}.webp").is_file()), svg(stored["table"])
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"{folder / name}.json does not hold an ablation's numbers: {error}") from None
  with disk_errors(folder):
    (folder / f"{name}.svg").write_text(figure, encoding="utf-8")
    (folder / f"{name}.md").write_text(page, encoding="utf-8")
  return folder / f"{name}.md"


def markdown(stored: Stored, name: str, pictures: bool) -> str:
  """The page."""
  table = stored["table"]
  seeds, environment = len(table["seeds"]), table["environment"]
  rows = _rows(table)
  lines = [
    f"# {name}", "", f"Written by `{table['command']} --publish`; by hand nothing.", "", table["document"], "",
    "## Claims", "", "| claim | verdict | mean of the paired differences [interval] |", "| --- | --- | --- |",
    *(f"| {v['claim']['sentence']} | **{v['verdict']}** | {_evidence(v)} |" for v in stored["verdict"]), "",
    "## Table", "", _row(rows[0]), _row(["---"] + ["---:"] * (len(rows[0]) - 1)), *map(_row, rows[1:]), "",
    f"Means over {seeds} seed{'s' * (seeds > 1)} (of {_whose(table['seeds_of'])}) with the 95 % percentile bootstrap "
    "interval of the mean; with three seeds that is from the smallest to the largest value. Seconds: training of both "
    f"stages, one run. On {environment.get('devices', '?')}, jax {environment.get('jax', '?')}.", "",
    f"![every column by variant]({name}.svg)", "",
  ]  # fmt: skip
  if "curves" in table:
    lines += ["Below them the log of stage 1, means over the seeds and over stretches of its lines.", ""]
  if pictures:
    names = ", ".join(table["variants"])
    row = f"{SHOWN} reconstructions, {SHOWN} samples" if table.get("samples", True) else f"{2 * SHOWN} reconstructions"
    lines += [
      f"Originals above; then a row a variant: {row}. From above: {names}.", "",
      f"![the variants side by side]({name}.webp)", "",
    ]  # fmt: skip
  return "\n".join(lines)


def _whose(seeds_of: str) -> str:
  return "both stages" if seeds_of == "both" else f"stage {seeds_of[-1]}"


def _row(cells: list[str]) -> str:
  return f"| {' | '.join(cells)} |"


def _rows(table: Stored) -> list[list[str]]:
  """Heads, and a row a variant: what varies, the columns, the cost."""
  paths = list(next(iter(table["variants"].values())))
  heads = ["variant", *(p for p in paths if _scalar(table, p)), *map(label, table["values"]), "seconds", "parameters"]
  rows = [heads]
  for variant, varied in table["variants"].items():
    cells = [json.dumps(varied[p]) for p in paths if _scalar(table, p)]
    cells += [_cell(found[variant]) for found in table["values"].values()]
    seconds, parameters = (summary(table["cost"][k][variant])[0] for k in ("seconds", "parameters"))
    cost = ["-" if v is None else f"{v:,.0f}" for v in (seconds, parameters)]
    rows.append([variant, *cells, *cost])
  return rows


def _scalar(table: Stored, path: str) -> bool:
  return not any(isinstance(v[path], dict | list) for v in table["variants"].values())


def _cell(values: list[float | None]) -> str:
  mean, ends = summary(values)
  return "-" if mean is None else f"{mean:.4g}" + (f" [{ends[0]:.4g}, {ends[1]:.4g}]" if ends else "")


def _evidence(verdict: Stored) -> str:
  told = [
    f"{d['what']}: {d['mean']:.4g}" + ("" if d["low"] is None else f" [{d['low']:.4g}, {d['high']:.4g}]")
    for d in verdict["differences"]
    if d["mean"] is not None
  ]
  return "; ".join(told + [verdict["why"]] * bool(verdict["why"]))


def strip(runs: Mapping[str, Path]) -> bytes:
  """variant -> its run's folder -> WebP: originals above, then a row a variant; b"" where signals are no pictures."""
  rows: list[np.ndarray] = []
  drawn = any((folder / SAMPLES).is_file() for folder in runs.values())
  count = SHOWN if drawn else 2 * SHOWN
  for folder in runs.values():
    try:
      with np.load(folder / "reconstructions.npz") as kept:
        x, made = kept["x"][:count], kept["reconstruction"][:count]
      row, above = made, x
      if drawn:
        blank = np.full_like(x, 255)
        row, above = np.concatenate([made, _drawn(folder, blank)]), np.concatenate([x, blank])
    except (OSError, KeyError, ValueError):
      continue
    alike = x.dtype == np.uint8 and x.ndim == 4 and row.shape == above.shape
    if alike and (not rows or rows[0].shape[1:] == x.shape[1:]):
      rows += [row] if rows else [above, row]
  if not rows:
    return b""
  image = Image.fromarray(grid(np.concatenate(rows), columns=rows[0].shape[0]))
  if (larger := SIDE // max(rows[0].shape[1:3])) > 1:
    image = image.resize((larger * image.width, larger * image.height), Image.Resampling.NEAREST)
  for quality in (90, 70, 50, 30, 10):
    out = io.BytesIO()
    image.save(out, format="WEBP", quality=quality)
    if out.tell() <= LIMIT:
      break
  return out.getvalue()


def _drawn(folder: Path, blank: np.ndarray) -> np.ndarray:
  """The first samples of a run; `blank` where it has none."""
  if not (folder / SAMPLES).is_file():
    return blank
  with np.load(folder / SAMPLES) as kept:
    return kept["x"][: len(blank)]

"""The figure of an ablation's page: its columns by variant, and below them curves over the steps."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latents.evaluate.interval import mean_interval
from latents.report.curves import HEIGHT as TALL
from latents.report.curves import LEFT, RIGHT, Axis, short, value_axis
from latents.report.curves import WIDTH as BROAD

WIDTH, HEIGHT, PAD = 230, 150, 34  # of one column's panel, in pixels
ACROSS = 4  # panels in a row: as wide as a page shows without making them smaller
HEAD = 22  # room for a curve's name
COLOURS = ("#1f5fa8", "#c4501b", "#2f7d3b", "#7a3f98", "#8a6d00", "#00808a", "#b0305f", "#555555")
Values = list[float | None]
Stored = Mapping[str, Any]


def summary(values: Values) -> tuple[float | None, tuple[float, float] | None]:
  """(mean, interval over seeds) of what is there."""
  x = np.array([v for v in values if v is not None], np.float64)
  return (float(x.mean()), mean_interval(x)) if len(x) else (None, None)


def svg(table: Stored) -> str:
  """One panel a column: a dot a seed, a line for the mean, a bar for its interval; variants from left to right. Curves
  below, a line a variant, with their key."""
  columns: Stored = table["values"]
  panels = [
    f'<g transform="translate({i % ACROSS * WIDTH},{i // ACROSS * (HEIGHT + PAD)})">'
    f"{_panel(label(path), list(found.values()), list(found))}</g>"
    for i, (path, found) in enumerate(columns.items())
  ]
  width, height = WIDTH * min(len(columns), ACROSS), (HEIGHT + PAD) * -(-len(columns) // ACROSS)
  curves: Stored = table.get("curves", {})
  across = max(width // BROAD, 1)
  for i, (name, found) in enumerate(curves.items()):
    left, top = i % across * BROAD, height + HEAD + i // across * (TALL + HEAD)
    panels.append(f'<g transform="translate({left},{top})">{_lines(name, found)}</g>')
  if curves:
    width = max(width, BROAD)
    height += -(-len(curves) // across) * (TALL + HEAD) + HEAD
    panels.append(_key(list(table["variants"]), height - 6))
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
    f'font-family="sans-serif" font-size="9"><rect width="100%" height="100%" fill="white"/>{"".join(panels)}</svg>\n'
  )


def label(path: str) -> str:
  """A column's dotted path as people read it."""
  return ".".join(word for word in path.split(".") if word)


def _panel(title: str, rows: list[Values], names: list[str]) -> str:
  known = [v for row in rows for v in row if v is not None]
  low, high = (min(known), max(known)) if known else (0.0, 1.0)
  span = (high - low) or 1.0

  def y(v: float) -> str:
    return f"{PAD + (HEIGHT - PAD - 12) * (high - v) / span:.1f}"

  out = [f'<text x="{PAD}" y="14" font-size="11">{html.escape(title)}</text>']
  for v in (low, high):
    out.append(f'<text x="{PAD - 3}" y="{y(v)}" text-anchor="end" fill="#666">{short(float(f"{v:.3g}"))}</text>')
  step, longest = (WIDTH - PAD - 6) / len(rows), 5 * max(map(len, names)) + 4
  for i, (name, row) in enumerate(zip(names, rows, strict=True)):
    x = PAD + step * (i + 0.5)
    mean, ends = summary(row)
    if ends:
      out.append(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y(ends[0])}" y2="{y(ends[1])}" stroke="#9ab" stroke-width="5"/>'
      )
    if mean is not None:
      out.append(f'<line x1="{x - 8:.1f}" x2="{x + 8:.1f}" y1="{y(mean)}" y2="{y(mean)}" stroke="#234"/>')
    out += [f'<circle cx="{x:.1f}" cy="{y(v)}" r="2" fill="#c33"/>' for v in row if v is not None]
    below = HEIGHT + 8 + (10 * (i % 2) if longest > step else 0)  # names that would meet stand by turns lower
    out.append(f'<text x="{x:.1f}" y="{below}" text-anchor="middle">{html.escape(name)}</text>')
  return "".join(out)


def _lines(name: str, found: Mapping[str, Sequence[Sequence[Sequence[float]]]]) -> str:
  """The curves of one name, variants in their order: the mean over the seeds at the steps that all of them have."""
  lines = [_mean(curves) for curves in found.values()]
  known = np.concatenate([line[:, 1] for line in lines])
  steps = np.concatenate([line[:, 0] for line in lines])
  x, y = Axis(0.0, max(float(steps.max()), 1.0), LEFT, BROAD - RIGHT), value_axis(known)
  out = [f'<text x="{LEFT}" y="-2" font-size="11">{html.escape(name)}{" (log scale)" if y.log else ""}</text>']
  for tick in y.ticks(4):
    at = float(y.place(np.float64(tick)))
    out.append(f'<line x1="{LEFT}" x2="{BROAD - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
    out.append(f'<text x="{LEFT - 4}" y="{at + 3:.1f}" text-anchor="end" fill="#666">{short(tick)}</text>')
  for tick in x.ticks(4):
    at = float(x.place(np.float64(tick)))
    out.append(f'<text x="{at:.1f}" y="{TALL - 8}" text-anchor="middle" fill="#666">{short(tick)}</text>')
  for number, line in enumerate(lines):
    if len(line):
      pairs = zip(x.place(line[:, 0]), y.place(line[:, 1]), strict=True)
      points = " ".join(f"{a:.1f},{b:.1f}" for a, b in pairs)
      colour = COLOURS[number % len(COLOURS)]
      out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
  return "".join(out)


def _mean(curves: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
  """Curves of points [step, value] -> [n,2]: the mean at every step that all have which have any."""
  each = [dict(zip(*np.asarray(curve).T.tolist(), strict=True)) for curve in curves if curve]
  shared = sorted(set.intersection(*map(set, each))) if each else []
  return np.array([[step, np.mean([curve[step] for curve in each])] for step in shared]).reshape(-1, 2)


def _key(names: Sequence[str], y: float) -> str:
  out, x = [], float(LEFT)
  for number, name in enumerate(names):
    colour = COLOURS[number % len(COLOURS)]
    out.append(
      f'<line x1="{x:.0f}" x2="{x + 14:.0f}" y1="{y - 3:.0f}" y2="{y - 3:.0f}" stroke="{colour}" stroke-width="2"/>'
    )
    out.append(f'<text x="{x + 18:.0f}" y="{y:.0f}" font-size="10">{html.escape(name)}</text>')
    x += 34 + 6 * len(name)
  return "".join(out)

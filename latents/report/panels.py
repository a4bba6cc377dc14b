"""The figure of an ablation's page: its columns by variant, and below them curves over the steps."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latents.evaluate.interval import mean_interval
from latents.report.curves import HEIGHT as TALL
from latents.report.curves import LEFT, RIGHT, Axis, short, value_axis
from latents.report.curves import WIDTH as BROAD

WIDTH, ROW, HEAD, FOOT = 190, 13, 24, 20  # of one column's panel, in pixels: a row a variant
ACROSS = 4  # panels in a row: as wide as a page shows without making them smaller
LETTER = 5.2  # pixels, about
COLOURS = ("#1f5fa8", "#c4501b", "#2f7d3b", "#7a3f98", "#8a6d00", "#00808a", "#b0305f", "#555555")
DASHES = ("", "5 3", "1.5 2.5")  # once the colours are used up
Values = list[float | None]
Stored = Mapping[str, Any]


def summary(values: Values) -> tuple[float | None, tuple[float, float] | None]:
  """(mean, interval over seeds) of what is there."""
  x = np.array([v for v in values if v is not None], np.float64)
  return (float(x.mean()), mean_interval(x)) if len(x) else (None, None)


def svg(table: Stored) -> str:
  """One panel a column: a dot a seed, a line for the mean, a bar for its interval; a row a variant, named at the left.
  Curves below, a line a variant, with their key."""
  columns, names = table["values"], list(table["variants"])
  aside = round(12 + LETTER * max(map(len, names)))
  tall = HEAD + ROW * len(names) + FOOT
  parts = []
  for i, (path, found) in enumerate(columns.items()):
    row, place = divmod(i, ACROSS)
    if not place:
      parts += [_text(aside - 6, row * tall + HEAD + ROW * k + 10, name, "end") for k, name in enumerate(names)]
    panel = _panel(label(path), [found[name] for name in names])
    parts.append(f'<g transform="translate({aside + place * WIDTH},{row * tall})">{panel}</g>')
  width, height = aside + WIDTH * min(len(columns), ACROSS), tall * -(-len(columns) // ACROSS)
  curves: Stored = table.get("curves", {})
  if curves:
    width = max(width, BROAD)
  across = max(width // BROAD, 1)
  for i, (name, found) in enumerate(curves.items()):
    left, top = i % across * BROAD, height + HEAD + i // across * (TALL + HEAD)
    parts.append(f'<g transform="translate({left},{top})">{_lines(name, found)}</g>')
  if curves:
    key, lines = _key(names, height + -(-len(curves) // across) * (TALL + HEAD) + HEAD - 6, width)
    parts.append(key)
    height += -(-len(curves) // across) * (TALL + HEAD) + HEAD + (lines - 1) * ROW
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
    f'font-family="sans-serif" font-size="9"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
  )


def label(path: str) -> str:
  """A column's dotted path as people read it."""
  return ".".join(word for word in path.split(".") if word)


def _panel(title: str, rows: list[Values]) -> str:
  known = [v for row in rows for v in row if v is not None]
  low, high = (min(known), max(known)) if known else (0.0, 1.0)
  span, edge, end = (high - low) or 1.0, 8, WIDTH - 16

  def x(v: float) -> str:
    return f"{edge + (end - edge) * (v - low) / span:.1f}"

  below = HEAD + ROW * len(rows)
  size = min(11.0, (WIDTH - 4) / (0.52 * max(len(title), 1)))
  out = [f'<text x="0" y="15" font-size="{size:.1f}">{html.escape(title)}</text>']
  out.append(f'<rect x="0" y="{HEAD - 2}" width="{WIDTH - 8}" height="{ROW * len(rows) + 2}" fill="#f6f7f9"/>')
  for v, side in ((low, "start"), (high, "end"))[: 1 + (high > low)]:
    out.append(_text(edge if side == "start" else end, below + 10, short(float(f"{v:.3g}")), side, "#666"))
  for i, row in enumerate(rows):
    y = HEAD + ROW * i + 6
    mean, ends = summary(row)
    if ends:
      out.append(f'<line x1="{x(ends[0])}" x2="{x(ends[1])}" y1="{y}" y2="{y}" stroke="#9ab" stroke-width="5"/>')
    if mean is not None:
      out.append(f'<line x1="{x(mean)}" x2="{x(mean)}" y1="{y - 5}" y2="{y + 5}" stroke="#234"/>')
    out += [f'<circle cx="{x(v)}" cy="{y}" r="2" fill="#c33"/>' for v in row if v is not None]
  return "".join(out)


def _text(x: float, y: float, text: str, anchor: str, fill: str = "#222") -> str:
  return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{fill}">{html.escape(text)}</text>'


def _stroke(number: int) -> str:
  """The look of a variant's line."""
  dash = DASHES[number // len(COLOURS) % len(DASHES)]
  return f'stroke="{COLOURS[number % len(COLOURS)]}"' + (f' stroke-dasharray="{dash}"' if dash else "")


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
      out.append(f'<polyline points="{points}" fill="none" {_stroke(number)} stroke-width="1.3"/>')
  return "".join(out)


def _mean(curves: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
  """Curves of points [step, value] -> [n,2]: the mean at every step that all have which have any."""
  each = [dict(zip(*np.asarray(curve).T.tolist(), strict=True)) for curve in curves if curve]
  shared = sorted(set.intersection(*map(set, each))) if each else []
  return np.array([[step, np.mean([curve[step] for curve in each])] for step in shared]).reshape(-1, 2)


def _key(names: Sequence[str], y: float, width: int) -> tuple[str, int]:
  """(The names beside their lines, from y on downwards; in how many lines)."""
  out, x, lines = [], float(LEFT), 1
  for number, name in enumerate(names):
    wide = 34 + 6 * len(name)
    if x + wide > width and x > LEFT:
      x, y, lines = float(LEFT), y + ROW, lines + 1
    ends = f'x1="{x:.0f}" x2="{x + 14:.0f}" y1="{y - 3:.0f}" y2="{y - 3:.0f}"'
    out.append(f'<line {ends} {_stroke(number)} stroke-width="2"/>')
    out.append(f'<text x="{x + 18:.0f}" y="{y:.0f}" font-size="10">{html.escape(name)}</text>')
    x += wide
  return "".join(out), lines

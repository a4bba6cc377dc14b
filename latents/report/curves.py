"""Curves of logs as SVG."""

import dataclasses
import html
import json
import math
from collections.abc import Sequence

import numpy as np

from latents.report.scores import number

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320, 170, 46, 8, 8, 24


@dataclasses.dataclass(frozen=True)
class Axis:
  """Values -> places in [start, end]; logarithmic where that reads better."""

  low: float
  high: float
  start: float
  end: float
  log: bool = False

  def place(self, v: np.ndarray | np.float64) -> np.ndarray:
    """Values -> positions in the drawing."""
    low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
    return np.asarray(self.start + ((np.log10(v) if self.log else v) - low) / (high - low) * (self.end - self.start))

  def ticks(self, most: int) -> list[float]:
    """About `most` round values to write at the axis."""
    if not self.log:
      return linear_ticks(self.low, self.high, most)
    first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
    every = max(1, math.ceil((last - first) / most))
    ticks = [10.0**e for e in range(first, last + 1, every)]
    if sum(self.low <= t <= self.high for t in ticks) < 3:
      fine = (1, 2, 5) if self.high / self.low < 50 else (1, 3)
      ticks = [m * 10.0**e for e in range(first, last + 1) for m in fine]
    return [t for t in ticks if self.low * 0.999 <= t <= self.high * 1.001]


def linear_ticks(low: float, high: float, most: int) -> list[float]:
  """Round numbers in [low, high], about `most`."""
  raw = (high - low) / most
  unit = 10.0 ** math.floor(math.log10(raw))
  step = unit * next(m for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
  return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def value_axis(values: np.ndarray, linear: bool = False) -> Axis:
  """log if not `linear` and the values are positive and span more than a decade; else linear, with air."""
  low, high = float(values.min()), float(values.max())
  if not linear and low > 0 and high / low > 10:
    return Axis(low / 1.15, high * 1.15, HEIGHT - BOTTOM, TOP, log=True)
  air = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
  floor = 0.0 if low >= 0 and low - air < 0 else low - air
  return Axis(floor, high + air, HEIGHT - BOTTOM, TOP)


def smooth(values: np.ndarray, log: bool) -> np.ndarray:
  """Centred mean over a twentieth of the curve; of logarithms on a log axis."""
  half = len(values) // 40
  if half == 0:
    return values
  v = np.log(values) if log else values
  sums = np.concatenate([[0.0], np.cumsum(v)])
  i = np.arange(len(v))
  low, high = np.maximum(i - half, 0), np.minimum(i + half + 1, len(v))
  mean = (sums[high] - sums[low]) / (high - low)
  return np.exp(mean) if log else mean


def short(x: float) -> str:
  """A tick's number: 500, 20k, 1.5M, 0.02, 1e-5."""
  for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
    if limit <= abs(x) < 1e12:
      return f"{x / (1e3 if letter == 'k' else limit):g}{letter}"
  text = f"{x:g}" if 1 <= abs(x) < 1e4 else f"{x:.3g}"
  return text.replace("e-0", "e-").replace("e+0", "e").replace("-", "\N{MINUS SIGN}")


Points = tuple[np.ndarray, np.ndarray]  # steps [n] ascending, values [n]


def curve(
  name: str, steps: np.ndarray, values: np.ndarray, linear: bool = False, held_out: Points | None = None
) -> str:
  """A curve as <figure>: steps [n] ascending, values [n] with nan for no number. held_out: (steps, values) of the same
  on held-out examples, drawn over it on its axes."""
  there = _there(values)
  title, lost = html.escape(name), int((~there).sum())
  note = f'<span class="lost">{lost} of {len(values)} not finite</span>' if lost else ""
  steps, values = steps[there], values[there]
  if not len(values):
    empty = '<p class="none">no finite value</p>'
    return f'<figure class="curve"><figcaption><b>{title}</b>{note}</figcaption>{empty}</figure>'
  over = (np.empty(0), np.empty(0)) if held_out is None else tuple(a[_there(held_out[1])] for a in held_out)
  y = value_axis(np.concatenate([values, over[1]]), linear)
  low, high = min([steps[0], *over[0]]), max([steps[-1], *over[0]])
  start = 0.0 if 0 <= low < 0.05 * high else float(low)
  x = Axis(start, max(float(high), start + 1), LEFT, WIDTH - RIGHT)
  mean = smooth(values, y.log)
  keep = thin(values)
  points = [[_plain(a), _plain(b)] for a, b in zip(steps[keep], values[keep], strict=True)]
  first, last = number(float(values[0])), number(float(mean[-1]))
  label = f"{name}: {first} at step {short(steps[0])}, {last} at step {short(steps[-1])}"
  if len(over[0]):
    drawn, ends = _line("held", x, y, *over), number(float(over[1][-1]))
    label, note = f"{label}; held-out {ends}", f'{note}<span class="held">held-out {ends}</span>'
  else:
    drawn = ""
  data = json.dumps({"p": points, "x": [x.low, x.high], "y": [y.low, y.high], "log": y.log})
  box = f"{LEFT} {TOP} {WIDTH - RIGHT} {HEIGHT - BOTTOM}"
  return (
    f'<figure class="curve"><figcaption><b>{title}</b>{note}<output>{last}</output></figcaption>'
    f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" data-box="{box}" '
    f'aria-label="{html.escape(label)}{", log scale" if y.log else ""}" data-curve="{html.escape(data)}">'
    f"{_axes(x, y)}{_line('raw', x, y, steps[keep], values[keep])}"
    f"{_line('mean', x, y, steps[keep], mean[keep])}{drawn}"
    f'<line class="cur" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/><circle class="cur" r="3"/></svg></figure>'
  )


Line = tuple[int, np.ndarray, np.ndarray]  # whose, steps [n], values [n]


def overlay(name: str, lines: Sequence[Line], names: Sequence[str]) -> str:
  """Curves of several runs, smoothed, on the same axes as <figure>; each has the class "s" and its run's number."""
  found = []
  for run, steps, values in lines:
    there = _there(values)
    if there.any():
      found.append((run, steps[there], values[there]))
  title = html.escape(name)
  if not found:
    return f'<figure class="curve"><figcaption><b>{title}</b></figcaption><p class="none">no finite value</p></figure>'
  y = value_axis(np.concatenate([values for _, _, values in found]))
  first, last = min(float(s[0]) for _, s, _ in found), max(float(s[-1]) for _, s, _ in found)
  start = 0.0 if 0 <= first < 0.05 * last else first
  x = Axis(start, max(last, start + 1), LEFT, WIDTH - RIGHT)
  drawn, told = "", []
  for run, steps, values in found:
    mean, keep = smooth(values, y.log), thin(values)
    drawn += _line(f"s{run}", x, y, steps[keep], mean[keep])
    told.append(f"{names[run]} ends at {number(float(mean[-1]))}")
  label = html.escape(f"{name}: {'; '.join(told)}")
  return (
    f'<figure class="curve"><figcaption><b>{title}</b></figcaption>'
    f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}{", log scale" if y.log else ""}">'
    f"{_axes(x, y)}{drawn}</svg></figure>"
  )


def _there(values: np.ndarray) -> np.ndarray:
  """bool [n]: which can be drawn."""
  return np.isfinite(values) & (np.abs(values) < 1e300)


def thin(values: np.ndarray, most: int = 300) -> np.ndarray:
  """Indices of at most `most` points that keep the lowest and the highest of every stretch, and both ends."""
  if len(values) <= most:
    return np.arange(len(values))
  parts = np.array_split(np.arange(len(values)), most // 2 - 1)
  extremes = [i for p in parts for i in (p[values[p].argmin()], p[values[p].argmax()])]
  return np.unique([0, *extremes, len(values) - 1])


def _plain(x: float) -> float | int:
  return int(x) if x == int(x) and abs(x) < 1e15 else float(f"{x:.5g}")


def _line(kind: str, x: Axis, y: Axis, steps: np.ndarray, values: np.ndarray) -> str:
  across, up = x.place(steps), y.place(values)
  if len(steps) == 1:
    return f'<circle class="{kind}" cx="{across[0]:.1f}" cy="{up[0]:.1f}" r="2.5"/>'
  path = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, up, strict=True))
  return f'<polyline class="{kind}" points="{path}"/>'


def _axes(x: Axis, y: Axis) -> str:
  out = []
  for tick, place in ((t, float(y.place(np.float64(t)))) for t in y.ticks(4)):
    out.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>')
    out.append(f'<text x="{LEFT - 6}" y="{place + 3.5:.1f}" text-anchor="end">{short(tick)}</text>')
  for tick in x.ticks(4):
    place = float(x.place(np.float64(tick)))
    anchor = "end" if place > WIDTH - 24 else "middle"
    out.append(
      f'<line class="tick" x1="{place:.1f}" x2="{place:.1f}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 4}"/>'
    )
    out.append(f'<text x="{place:.1f}" y="{HEIGHT - 7}" text-anchor="{anchor}">{short(tick)}</text>')
  base = HEIGHT - BOTTOM
  out.append(f'<line class="base" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
  return "".join(out)

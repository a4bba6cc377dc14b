"""Procedural pictures with known factors: one lit object over stochastic texture, numpy alone."""

import dataclasses
import functools

import numpy as np

from latents.data.source import Decoded, Example, Records, Size, Source, Split, sides

SHAPES = ("disc", "ring", "square", "triangle", "star", "cross", "heart", "crescent")
FACTORS = ("shape", "hue", "scale", "rotation", "x", "y")
SYMMETRY = (0, 0, 4, 3, 5, 4, 1, 1)  # rotations by 1/n turn look alike; 0 = every rotation does
SEEDS = {"train": 0x7261, "test": 0x7465}


@dataclasses.dataclass(frozen=True)
class Shapes(Source):
  """Objects of eight shapes (the label), example i a pure function of (split, i).

  Records hold "factors" float32 [6] = (shape 0..7, hue in [0,1), scale = radius in half widths, rotation in
  radians within one period of the shape, x and y of the centre in [-1,1], y downwards) and "objects" bool
  [H,W], the pixels that the object covers at least half. In a rectangle they lie in the square in its middle. Test
  and train differ in their seeds.
  """

  size: Size = 32
  count: int = 10_000
  test: int = 1_000

  @property
  def shape(self) -> tuple[int, ...]:
    """[H,W,C] after the crop."""
    return (*sides(self.size), 3)

  @property
  def names(self) -> tuple[str, ...]:
    """The label names."""
    return SHAPES

  def records(self, split: Split) -> Records:
    """As `Source.records`."""
    count = self.count if split == "train" else self.test
    return Decoded(count, functools.partial(draw, SEEDS[split], self.size))


def draw(seed: int, size: Size, i: int) -> Example:
  """Example i: first its factors, then its texture, so that the factors do not depend on the size."""
  rng, (height, width) = np.random.default_rng((seed, i)), sides(size)
  short = min(height, width)
  kind = int(rng.integers(len(SHAPES)))
  hue, scale = rng.uniform(), rng.uniform(0.3, 0.6)
  turn = 2 * np.pi * rng.uniform() / SYMMETRY[kind] if SYMMETRY[kind] else 0.0
  x, y = rng.uniform(-1, 1, 2) * (0.96 - scale)
  light = rng.uniform(0, 2 * np.pi)
  behind = texture(rng, (height, width), hue)
  right, down = np.meshgrid(
    *((np.arange(side, dtype=np.float32) + 0.5) * (2 / short) - side / short for side in (width, height))
  )
  cast = 0.22 * scale * np.array([[0, 0], [np.cos(light), np.sin(light)]])[..., None, None]  # off the light
  centre = (np.array([x, y])[None, :, None, None] + cast).astype(np.float32)  # of the object and of its shadow
  distance, shadow = place(kind, right - centre[:, 0], down - centre[:, 1], scale, turn)
  behind = behind * (1 - 0.6 * smooth(0.14 * scale, -0.2 * scale, shadow))[..., None]
  front = shade(distance, scale, light, colour(hue, 0.82, 0.9), 2 / short)
  cover = np.clip(0.5 - distance * (short / 2), 0, 1)[..., None]  # one pixel of antialiasing
  picture = np.clip(cover * front + (1 - cover) * behind, 0, 1)
  return {
    "x": np.round(255 * picture).astype(np.uint8),
    "label": np.int32(kind),
    "factors": np.array([kind, hue, scale, turn, x, y], np.float32),
    "objects": cover[..., 0] >= 0.5,
  }


def place(kind: int, right: np.ndarray, down: np.ndarray, scale: float, turn: float) -> np.ndarray:
  """Signed distance [..] (negative inside, in half widths) of a turned and scaled shape."""
  cos, sin = np.float32(np.cos(turn) / scale), np.float32(np.sin(turn) / scale)
  return scale * outline(kind, cos * right + sin * down, cos * down - sin * right)


def outline(kind: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Signed distance of a shape of radius about 1 around the origin, corners rounded a little."""
  radius = np.hypot(x, y)
  match SHAPES[kind]:
    case "disc":
      return radius - 0.92
    case "ring":
      return np.abs(radius - 0.7) - 0.27
    case "crescent":
      return np.maximum(np.hypot(x + 0.12, y) - 0.96, 0.74 - np.hypot(x - 0.42, y))
    case _:
      return polygon(corners(SHAPES[kind]), x, y) - 0.06


@functools.cache
def corners(name: str) -> tuple[tuple[float, float], ...]:
  """The corners of a polygon, in order, y downwards."""
  match name:
    case "square":
      points = [(-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)]
    case "triangle":
      angles = -np.pi / 2 + 2 * np.pi * np.arange(3) / 3
      points = list(zip(np.cos(angles), np.sin(angles), strict=True))
    case "star":
      angles, radii = -np.pi / 2 + np.pi * np.arange(10) / 5, np.where(np.arange(10) % 2, 0.44, 1.0)
      points = list(zip(radii * np.cos(angles), radii * np.sin(angles), strict=True))
    case "cross":
      a, b = 0.28, 0.9
      arm = [(-a, -b), (a, -b), (a, -a)]  # and the same three corners a quarter turn on, and on
      points = [p for k in range(4) for p in quarter(arm, k)]
    case _:  # the heart: x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t
      t = 2 * np.pi * np.arange(40) / 40
      up = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
      points = list(zip(np.sin(t) ** 3 * 0.9, -(up + 2.5) / 17.0, strict=True))
  return tuple((float(x), float(y)) for x, y in points)


def quarter(points: list[tuple[float, float]], turns: int) -> list[tuple[float, float]]:
  """The points after so many quarter turns, clockwise on the screen."""
  for _ in range(turns):
    points = [(-y, x) for x, y in points]
  return points


def polygon(points: tuple[tuple[float, float], ...], x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Signed distance to a closed polygon: the nearest edge, and the parity of crossings for the sign."""
  # All edges at once: at 32 pixels the time goes into the number of numpy calls, not the arithmetic.
  corner = np.array(points, np.float32).reshape(-1, 2, *(1,) * x.ndim)
  (ax, ay), (ex, ey) = corner.swapaxes(0, 1), (np.roll(corner, -1, 0) - corner).swapaxes(0, 1)
  px, py = x - ax, y - ay
  t = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
  nearest = ((px - t * ex) ** 2 + (py - t * ey) ** 2).min(0)
  crossed = ((py < 0) != (py < ey)) & (px * np.abs(ey) < ex * py * np.sign(ey))
  return np.where(crossed.sum(0) % 2, -1, 1) * np.sqrt(nearest)


def shade(distance: np.ndarray, scale: float, light: float, base: np.ndarray, pixel: float) -> np.ndarray:
  """[H,W,3] colours of the object: a pillow-like surface under one lamp (Lambert and Blinn-Phong)."""
  bevel = 0.42 * scale
  depth = np.clip(-distance / bevel, 0, 1)
  height = bevel * np.sqrt(1 - (1 - depth) ** 2)
  down, right = np.gradient(height, pixel)
  normal = np.stack([-right, -down, np.ones_like(right)], -1)
  normal /= np.sqrt((normal * normal).sum(-1, keepdims=True))
  lamp = np.array([-0.6 * np.cos(light), -0.6 * np.sin(light), 0.8], np.float32)
  half = lamp + np.array([0, 0, 1], np.float32)
  diffuse = np.clip(normal @ lamp, 0, 1)[..., None]
  gloss = np.clip(normal @ (half / np.linalg.norm(half)), 0, 1)[..., None] ** 40
  return base * (0.32 + 0.78 * diffuse) + 0.35 * gloss


def texture(rng: np.random.Generator, size: tuple[int, int], hue: float) -> np.ndarray:
  """[H,W,3] in [0,1]: noise of a power-law spectrum, stretched along an axis, between three muted colours
  that keep their distance from the object's hue."""
  fy, fx = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]
  axis, stretch = rng.uniform(0, np.pi), rng.uniform(1, 2.5)
  along, across = np.cos(axis) * fx + np.sin(axis) * fy, np.cos(axis) * fy - np.sin(axis) * fx
  frequency = np.hypot(along * stretch, across / stretch)
  frequency[0, 0] = np.inf
  spectrum = np.fft.rfft2(rng.standard_normal(size)) * frequency ** -rng.uniform(1.1, 1.9)
  noise = np.fft.irfft2(spectrum, size)
  noise = np.clip(0.5 + 0.24 * noise / noise.std(), 0, 1)[..., None]
  around = hue + 0.5 + rng.uniform(-0.28, 0.28)
  dark = colour(around, rng.uniform(0.25, 0.6), rng.uniform(0.12, 0.3))
  middle = colour(around + rng.uniform(-0.1, 0.1), rng.uniform(0.2, 0.55), rng.uniform(0.4, 0.6))
  bright = colour(around + rng.uniform(-0.2, 0.2), rng.uniform(0.08, 0.35), rng.uniform(0.72, 0.92))
  return np.where(noise < 0.5, dark + (middle - dark) * 2 * noise, middle + (bright - middle) * (2 * noise - 1))


def colour(hue: float, saturation: float, value: float) -> np.ndarray:
  """HSV -> RGB [3] in [0,1]; the hue is counted in turns."""
  wave = np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1
  return value * (1 - saturation * (1 - np.clip(wave, 0, 1)))


def smooth(low: float, high: float, x: np.ndarray) -> np.ndarray:
  """0 at `low`, 1 at `high`, with zero slope at both."""
  t = np.clip((x - low) / (high - low), 0, 1)
  return t * t * (3 - 2 * t)

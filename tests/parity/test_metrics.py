"""Metrics against torch re-computations in float64, written from the definitions."""

import jax
import numpy as np
import torch
import torch.nn.functional as F

from latents.evaluate import PSNR, SSIM, Moments, frechet, mmd2, precision_recall


def images(seed: int) -> np.ndarray:
  """Smooth pictures with flat regions, as photographs have."""
  noise = np.random.default_rng(seed).normal(size=(3, 3, 8, 8))
  smooth = F.interpolate(torch.from_numpy(noise), size=(40, 48), mode="bicubic").numpy()
  return np.moveaxis(np.clip(smooth, -1, 1), 1, -1).astype(np.float32)


def measure(metric, x: np.ndarray, y: np.ndarray) -> float:
  acc = jax.jit(metric.update)(metric.init(), x, y, np.ones(len(x), bool))
  return next(iter(metric.result(acc).values()))


def test_ssim():
  x, y = images(0), images(0) + 0.1 * images(1)
  a, b = (torch.from_numpy(np.moveaxis(np.clip(v, -1, 1), -1, 1)).double() / 2 + 0.5 for v in (x, y))
  taps = torch.exp(-0.5 * (torch.arange(-5, 6).double() / 1.5) ** 2)
  window = (taps[:, None] * taps / taps.sum() ** 2).expand(3, 1, 11, 11)

  def blur(v: torch.Tensor) -> torch.Tensor:
    return F.conv2d(v, window, groups=3)

  ma, mb = blur(a), blur(b)
  va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
  ssim = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
  assert abs(measure(SSIM(), x, y) - float(ssim.mean())) < 1e-6


def test_psnr():
  x, y = images(0), images(1)
  error = torch.from_numpy((x - np.clip(y, -1, 1)) / 2).double().pow(2).mean((1, 2, 3))
  assert abs(measure(PSNR(), x, y) - float((-10 * torch.log10(error)).mean())) < 1e-5


def features() -> tuple[np.ndarray, np.ndarray]:
  rng = np.random.default_rng(0)
  mix = rng.normal(size=(64, 64)) / 8
  return rng.normal(size=(300, 64)) @ mix, rng.normal(size=(200, 64)) @ mix.T + 0.1


def test_frechet():
  x, y = features()
  a, b = torch.from_numpy(x), torch.from_numpy(y)
  root = torch.linalg.eigvals(torch.cov(a.T) @ torch.cov(b.T)).sqrt().real.sum()
  gap = (a.mean(0) - b.mean(0)).square().sum()
  expected = float(gap + torch.cov(a.T).trace() + torch.cov(b.T).trace() - 2 * root)
  assert abs(frechet(Moments.of(x), Moments.of(y)) / expected - 1) < 1e-6


def test_kernel():
  x, y = features()
  x = x[:200]
  a, b = torch.from_numpy(x), torch.from_numpy(y)
  xx, yy, xy = ((p @ q.T / 64 + 1) ** 3 for p, q in ((a, a), (b, b), (a, b)))
  off = 1 - torch.eye(200, dtype=torch.float64)
  expected = ((xx + yy) * off).sum() / (200 * 199) - 2 * xy.mean()
  assert abs(mmd2(x, y) - float(expected)) < 1e-10


def test_precision_recall():
  x, y = features()
  a, b = torch.from_numpy(x), torch.from_numpy(y)

  def share(points: torch.Tensor, centres: torch.Tensor) -> float:
    radii = torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist").kthvalue(4, dim=1).values
    inside = torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist") <= radii
    return float(inside.any(1).double().mean())

  assert precision_recall(x, y) == (share(b, a), share(a, b))

"""A picture of latents: their three main directions as red, green and blue."""

import numpy as np

from latents.types import Array


def pca_picture(z: Array) -> np.ndarray:
  """z [N,*s,D] -> [N,*s,3] float32 in [0,1]; one PCA for all samples, so colours compare between them.

  Each component's 1st and 99th percentile become 0 and 1. The sign is fixed by making the largest
  loading positive. Components that do not exist (D < 3) or do not vary are 0.5.
  """
  z = np.asarray(z, np.float64)
  flat = z.reshape(-1, z.shape[-1])
  centred = flat - flat.mean(0)
  _, vectors = np.linalg.eigh(centred.T @ centred)
  axes = vectors[:, ::-1][:, :3]
  largest = np.abs(axes).argmax(0)
  axes = axes * np.where(axes[largest, np.arange(axes.shape[1])] < 0, -1.0, 1.0)
  parts = centred @ axes
  low, high = np.percentile(parts, [1, 99], axis=0)
  span = high - low
  varies = span > 1e-9 * max(np.abs(flat).max(initial=0.0), 1e-30)
  scaled = np.where(varies, np.clip((parts - low) / np.where(varies, span, 1.0), 0, 1), 0.5)
  picture = np.full((len(flat), 3), 0.5)
  picture[:, : scaled.shape[1]] = scaled
  return picture.reshape(*z.shape[:-1], 3).astype(np.float32)

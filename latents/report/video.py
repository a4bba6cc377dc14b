"""Clips in motion: one animated picture, so that originals and decodings keep step."""

from collections.abc import Sequence

import numpy as np

from latents.media.drawing import grid
from latents.media.video import animation
from latents.report import figures

MOST = 32  # frames that are shown of a clip
LARGEST = 200_000  # bytes


def moving(arrays: Sequence[np.ndarray], words: str, budget: int) -> str:
  """Clips [N,T,H,W,C] of each array, a row an array, as an animation of at most `budget` bytes; "" if none fits."""
  length = min(MOST, arrays[0].shape[1])
  for count, side, quality in ((8, 96, 70), (8, 64, 60), (6, 64, 50), (4, 48, 40), (2, 32, 30)):
    clips = np.stack([a[:count, :length] for a in arrays])  # [rows,N,T,H,W,C]
    rows, n, frames = clips.shape[:3]
    flat = figures.shrink(figures.pictures(clips.reshape(-1, *clips.shape[3:])), side)
    flat = flat.repeat(max(1, 64 // max(flat.shape[1:3])), 1).repeat(max(1, 64 // max(flat.shape[1:3])), 2)
    turned = flat.reshape(rows * n, frames, *flat.shape[1:]).swapaxes(0, 1)
    sheets = np.stack([grid(frame, columns=n if rows > 1 else min(n, 8)) for frame in turned])
    made = animation(sheets, quality=quality)
    if len(made) <= min(budget, LARGEST):
      height, width = sheets.shape[1:3]
      return (
        f'<details open><summary>In motion</summary><img src="{figures.data_uri(made, "image/webp")}" width="{width}" '
        f'height="{height}" style="max-width:100%;height:auto" alt="{words}"></details>'
        f'<p class="small">{words}{"" if length == arrays[0].shape[1] else f" The first {length} frames."}</p>'
      )
  return ""

"""Samples beside their nearest training examples."""

import html

import numpy as np

from latents import media
from latents.errors import UserError
from latents.report import figures
from latents.report.media import cell
from latents.report.run import Run, finite, kind, rate
from latents.report.scores import clip, number


def neighbours(run: Run, key: str, budget: int) -> str | None:
  """Pairs with the distance below each, and below all what distance it is; sound as spectrograms, clips as strips.
  `budget` bytes of PNG. None where the run keeps none; UserError where the two do not fit together."""
  x, nearest = run.neighbours.get("x"), run.neighbours.get("nearest")
  if x is None or nearest is None or not len(x) or kind(run.neighbours) == "text":
    return None
  if nearest.shape != x.shape:
    raise UserError(f"{run.path / 'neighbours.npz'}: 'nearest' is {list(nearest.shape)}, unlike the samples")
  signals = media.KINDS[kind(run.neighbours)]
  stored = signals.stored(np.nan_to_num(np.concatenate([x, nearest])))
  drawn = figures.pictures(signals.tiles(stored, rate(run.neighbours)))
  (mine, theirs), _ = figures.pack(np.split(drawn, 2), budget, (192, 128, 96, 48, 32), (24, 16, 12, 8, 4))
  wide = mine.width / mine.height >= 1.5
  told, items = run.neighbours.get("distance"), []
  for i in range(mine.count):
    far = "" if told is None or told.ndim != 1 else f"<figcaption>{number(finite(float(told[i])))}</figcaption>"
    pair = cell(f"{key}m", mine, i, f"Sample {i + 1}") + cell(f"{key}t", theirs, i, f"Nearest to sample {i + 1}")
    items.append(f'<figure class="pair{"" if wide else " beside"}">{pair}{far}</figure>')
  note = run.neighbours.get("note")
  what = f"; the number: {html.escape(clip(str(note.reshape(-1)[0]), 300))}" if note is not None and note.size else ""
  where = ("Above", "below") if wide else ("Left", "right")
  return (
    f"<style>.{key}m{{{mine.rule()}}}.{key}t{{{theirs.rule()}}}</style>"
    f'<div class="pairs" style="--pair:{250 if wide else 150}px">{"".join(items)}</div>'
    f'<p class="small">{where[0]} the first samples as drawn, {where[1]} the nearest training example of each{what}. '
    "Copies would be at 0.</p>"
  )

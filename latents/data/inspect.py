"""Look at data before training on it: a picture of a real batch, and the numbers."""

from typing import Any

import numpy as np

from latents.data.loader import batches, opened
from latents.data.source import Source, Split
from latents.errors import UserError
from latents.media import kind
from latents.media.drawing import save_png

EXAMINED = 1024  # training examples that the statistics look at


def inspect(source: Source, out: str, *, seed: int = 0, shown: int = 32) -> dict[str, Any]:
  """Writes a PNG of `shown` training examples as the trainer would see them, and returns JSON values:

  kind, shape, rate (audio), classes, note (of its folder: `Source.note`), splits {name: {count, skipped}}, examined
  (how many of the training examples the rest is about), labels {name: count}, and mean, std, min, max per channel in
  the units of training: [-1,1], of text the numbers of the bytes.
  """
  splits = {split: describe(source, split) for split in ("train", "test")}
  count = splits["train"]["count"]
  if not count:
    raise UserError(splits["train"]["error"])
  shown = min(shown, count)
  with batches(source, split="train", batch=shown, seed=seed) as stream:
    first = next(stream)
    drawn = [first] + [next(stream) for _ in range(-(-min(EXAMINED, count) // shown) - 1)]
  key = source.keys[0]
  made = kind(source.kind)
  x = np.concatenate([made.values(batch[key]) for batch in drawn])
  axes = tuple(range(x.ndim - 1))
  if key == "x":
    save_png(made.sheet(first["x"], source.rate), out)
  result: dict[str, Any] = {"kind": source.kind, "shape": list(source.shape), "classes": source.classes}
  if source.note:
    result["note"] = source.note
  if source.rate is not None:
    result["rate"] = source.rate
  result |= {"splits": splits, "examined": len(x)}
  if source.names and "label" in first:
    found = np.bincount(np.concatenate([batch["label"] for batch in drawn]), minlength=source.classes)
    result["labels"] = {name: int(n) for name, n in zip(source.names, found, strict=True)}
  for name, value in (
    ("mean", x.mean(axes)),
    ("std", x.std(axes)),
    ("min", x.min(axes)),
    ("max", x.max(axes)),
  ):
    result[name] = [round(float(v), 6) for v in value]
  return result


def describe(source: Source, split: Split) -> dict[str, Any]:
  """{count, skipped}, and the error when the split cannot be opened (a data set may have no test split)."""
  try:
    records = opened(source, split)
  except UserError as error:
    return {"count": 0, "skipped": [], "error": str(error)}
  return {"count": len(records), "skipped": list(records.skipped)}

"""Batches: a pure function of (source, seed, step), whatever the number of workers, threads or processes.

Grain sees a data set whose element number `step` is this process's rows of global batch `step`. Everything
random is keyed by numbers that do not depend on who asks: the permutation by (seed, epoch), the augmentation
by (seed, position in the stream). So a resumed run, or one on other machines, sees the same examples.
"""

import abc
import functools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from latents.data.choice import choice
from latents.data.source import STAND_IN, Example, Records, Source, Split
from latents.data.stream import Batches, iterate, portable, worker
from latents.errors import UserError

MEMORY = 1 << 30  # bytes of decoded examples that a split may keep in memory
ORDERING = threading.Lock()


def batches(
  source: Source,
  *,
  split: Split,
  batch: int,
  seed: int,
  start: int = 0,
  workers: int = 0,
  rows: np.ndarray | None = None,
  train: bool = True,
) -> Batches:
  """The endless shuffled stream from step `start`: x [b,*S,C] uint8 or float32, label int32 [b] if the source
  has labels, index int32 [b] (of the example in its split).

  `batch` is the global size; rows: those of the global batch that this process holds (None: all). Every
  epoch is a fresh permutation; batches run across the seams. Without `train` nothing is augmented. With
  workers > 0 that many processes decode (the caller's main module must be importable: `if __name__ ==
  "__main__"`).
  """
  if workers == 0:
    opened(source, split)  # a folder that cannot be read fails here, not at the first batch
  steps = Training(source, split, batch, rows, seed, train)
  return Batches(iterate(steps, start, workers), workers=workers)


def evaluation_batches(
  source: Source,
  *,
  split: Split,
  batch: int,
  limit: int | None = None,
  exact: bool = False,
) -> Batches:
  """The examples of a split once, not augmented: as `batches`, with mask bool [b], False for padding (a copy of the
  last example, index -1). Every batch is whole, on every process.

  Where `limit` is below their number, as many of a fixed `choice` over the whole split; else all, in order. With
  `exact` an example that breaks when it is read counts as padding: the next one stands in, but is not seen twice.
  """
  if limit is not None and limit < 1:
    raise UserError(f"evaluation of {limit} examples: the limit must be above 0")
  count = len(opened(source, split))
  steps = Evaluation(source, split, batch, choice(count, count if limit is None else limit), exact)
  return Batches(iterate(steps, 0, 0), len(steps))


class Steps(abc.ABC):
  """Random access to this process's rows [b] of every global batch."""

  def __init__(self, source: Source, split: Split, batch: int, rows: np.ndarray | None = None):
    if batch < 1:
      raise UserError(f"batch {batch} must be positive")
    self.source, self.split, self.batch = source, split, batch
    self.rows = np.arange(batch) if rows is None else np.asarray(rows)

  @functools.cached_property
  def records(self) -> Records:
    """Opened when first asked for, in the process that asks."""
    return opened(self.source, self.split)

  def __getstate__(self) -> dict[str, Any]:
    # Workers open the files by themselves: handles do not travel, and gigabytes should not.
    return {key: value for key, value in self.__dict__.items() if key != "records"}

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    try:
      return self.make(step)
    except Exception as error:
      if not worker():
        raise
      raise portable(error) from error

  @abc.abstractmethod
  def make(self, step: int) -> dict[str, np.ndarray]:
    """The rows of step `step`."""


class Training(Steps):
  """Shuffled, augmented, endless."""

  def __init__(self, source: Source, split: Split, batch: int, rows: np.ndarray | None, seed: int, train: bool):
    super().__init__(source, split, batch, rows)
    self.seed, self.train = seed, train

  def __len__(self) -> int:
    return 2**40  # steps without end

  def make(self, step: int) -> dict[str, np.ndarray]:
    """As `Steps.make`."""
    places = step * self.batch + self.rows
    epochs, offsets = np.divmod(places, len(self.records))
    index = np.empty(len(places), np.int64)
    for epoch in np.unique(epochs):
      chosen = epochs == epoch
      index[chosen] = permutation(len(self.records), self.seed, int(epoch))[offsets[chosen]]
    rng = Keyed(self.seed)
    get, augment, train = self.records.__getitem__, self.source.augment, self.train
    examples = [augment(get(i), rng.at(g), train) for i, g in zip(index.tolist(), places.tolist(), strict=True)]
    return stack(examples, self.source.keys) | {"index": index.astype(np.int32)}


class Evaluation(Steps):
  """The chosen examples (their numbers in the split) in the order given, once, padded."""

  def __init__(self, source: Source, split: Split, batch: int, chosen: np.ndarray, exact: bool):
    super().__init__(source, split, batch)
    self.chosen, self.exact = chosen, exact

  def __len__(self) -> int:
    return -(-len(self.chosen) // self.batch)

  def make(self, step: int) -> dict[str, np.ndarray]:
    """As `Steps.make`."""
    places = step * self.batch + self.rows
    mask = places < len(self.chosen)
    index = self.chosen[np.minimum(places, len(self.chosen) - 1)]
    rng = np.random.default_rng(0)  # not drawn from when train is False
    found = [self.records[i] for i in index.tolist()]
    if self.exact:
      mask &= [STAND_IN not in example for example in found]
    examples = [self.source.augment(example, rng, False) for example in found]
    return stack(examples, self.source.keys) | {
      "index": np.where(mask, index, -1).astype(np.int32),
      "mask": mask,
    }


class Keyed:
  """One generator that is set to the stream of any position: ten times cheaper than a new one each."""

  def __init__(self, seed: int):
    self.bits = np.random.Philox(key=[seed % 2**64, 0x6C6174656E7473])
    self.generator = np.random.Generator(self.bits)
    self.state: Any = self.bits.state

  def at(self, place: int) -> np.random.Generator:
    """The generator, at the start of the stream of a position."""
    self.state["state"]["counter"][:] = (0, 0, place, 0)
    self.bits.state = self.state
    return self.generator


def stack(examples: Sequence[Example], keys: Sequence[str]) -> dict[str, np.ndarray]:
  """Examples -> arrays [b,...] of the keys, and the label int32 [b] if they have one."""
  batch = {key: np.stack([example[key] for example in examples]) for key in keys}
  if "label" in examples[0]:
    batch["label"] = np.array([example["label"] for example in examples], np.int32)
  return batch


def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
  """The order of an epoch, int32 [count]: 0.1 s and 5 MB for ImageNet, 1.5 s and 56 MB for 14 million examples."""
  with ORDERING:  # at a seam all threads want the next epoch at once
    return ordered(count, seed, epoch)


@functools.lru_cache(maxsize=2)  # a batch across a seam wants both sides of it
def ordered(count: int, seed: int, epoch: int) -> np.ndarray:
  """`permutation`, kept for the last two epochs."""
  generator = np.random.Generator(np.random.Philox(key=[seed % 2**64, epoch]))
  return generator.permutation(np.arange(count, dtype=np.int32))  # the draws, and so the order, of int64


@functools.lru_cache(maxsize=4)
def opened(source: Source, split: Split) -> Records:
  """The records of a split, opened once in a process, with what has been decoded kept in memory."""
  records = source.records(split)
  if not len(records):
    raise UserError(f"the {split} split of {type(source).__name__} is empty")
  in_memory = hasattr(records, "arrays")
  # several workers would keep the same pictures several times
  return records if in_memory else Kept(records, 0 if worker() else MEMORY)


class Kept:
  """Records that are decoded once and then kept, until `memory` bytes are full."""

  def __init__(self, records: Records, memory: int):
    self.inner, self.left = records, memory
    self.kept: dict[int, Example] = {}
    self.lock = threading.Lock()
    self.skipped = records.skipped

  def __len__(self) -> int:
    return len(self.inner)

  def __getitem__(self, i: int) -> Example:
    example = self.kept.get(i)
    if example is None:
      example = self.inner[i]
      size = sum(np.asarray(value).nbytes for value in example.values()) + 400  # and the objects around them
      with self.lock:
        if size <= self.left and i not in self.kept:
          self.left -= size
          self.kept[i] = example
    return example

"""The stream is a pure function of (source, seed, step), whatever the workers, processes and start."""

import collections
import dataclasses
import warnings
from typing import ClassVar

import numpy as np
import pytest

from latents.data import Digits, Source, batches, evaluation_batches, loader
from latents.data.source import Broken, Decoded
from latents.errors import UserError


@dataclasses.dataclass(frozen=True)
class Numbers(Source):
  """Example i is the number i; augmentation adds a random second channel."""

  count: int = 10
  broken: int = -1

  @property
  def shape(self):
    return (1, 1, 2)

  def records(self, split):
    return Decoded(self.count if split == "train" else 3, self.make)

  def make(self, i):
    if i == self.broken:
      raise Broken(f"number {i}")
    return {"x": np.full((1, 1, 2), i, np.float32)}

  def augment(self, example, rng, train):
    noise = rng.random() if train else 0.0
    return {"x": example["x"] + np.array([0, noise], np.float32)}


def take(count, source=None, **options):
  with batches(source or Numbers(), **({"split": "train", "batch": 4, "seed": 0} | options)) as stream:
    return [next(stream) for _ in range(count)]


def same(a, b):
  assert len(a) == len(b)
  for left, right in zip(a, b, strict=True):
    assert left.keys() == right.keys()
    for key in left:
      assert left[key].dtype == right[key].dtype
      np.testing.assert_array_equal(left[key], right[key])


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_workers_give_the_same_stream_from_any_start(workers):
  same(take(8)[2:], take(6, start=2, workers=workers))


@pytest.mark.parametrize(
  "processes,workers",
  [(2, 0), (4, 0), *(pytest.param(p, w, marks=pytest.mark.slow) for p in (2, 4) for w in (1, 2))],
)
def test_processes_share_the_rows_in_order(processes, workers):
  blocks = np.split(np.arange(4), processes)
  parts = [take(6, rows=rows, workers=workers) for rows in blocks]
  joined = [{key: np.concatenate([part[i][key] for part in parts]) for key in parts[0][i]} for i in range(6)]
  same(take(6), joined)


def test_start_equals_skipping():
  same(take(7)[4:], take(3, start=4))


def test_every_epoch_is_a_fresh_permutation():
  order = np.concatenate([b["index"] for b in take(10)]).reshape(4, 10)
  assert all(sorted(epoch) == list(range(10)) for epoch in order.tolist())
  assert len({tuple(epoch) for epoch in order.tolist()}) == 4


def test_seeds_differ_in_order_and_in_noise_and_no_noise_repeats():
  a, b = take(10), take(10, seed=1)
  assert any((x["index"] != y["index"]).any() for x, y in zip(a, b, strict=True))
  noise = np.concatenate([batch["x"][:, 0, 0, 1] % 1 for batch in a + b])
  assert len(np.unique(noise)) == len(noise)


def test_without_train_nothing_is_augmented_but_the_order_is_kept():
  for a, b in zip(take(3), take(3, train=False), strict=True):
    np.testing.assert_array_equal(a["index"], b["index"])
    np.testing.assert_array_equal(b["x"][:, 0, 0, 1], b["index"])


def test_batch_larger_than_the_data_wraps_around():
  index = take(1, Numbers(count=3), batch=7)[0]["index"]
  assert np.bincount(index, minlength=3).sum() == 7
  assert sorted(index[:3]) == sorted(index[3:6]) == [0, 1, 2]


def test_batch_contents_of_a_labelled_source():
  batch = take(1, Digits(size=16), batch=8)[0]
  assert batch["x"].shape == (8, 16, 16, 1) and batch["x"].dtype == np.uint8
  assert batch["label"].dtype == batch["index"].dtype == np.int32
  records = Digits(size=16).records("train")
  np.testing.assert_array_equal(batch["x"][3], records[int(batch["index"][3])]["x"])


def test_any_rows_of_a_batch_can_be_asked_for():
  whole, part = take(4), take(4, rows=np.array([1, 3]))
  same([{key: value[[1, 3]] for key, value in batch.items()} for batch in whole], part)


def test_evaluation_is_in_order_and_padded():
  with evaluation_batches(Numbers(), split="train", batch=4) as stream:
    assert len(stream) == 3
    found = list(stream)
  np.testing.assert_array_equal(np.concatenate([b["index"] for b in found]), [*range(10), -1, -1])
  np.testing.assert_array_equal(found[2]["mask"], [True, True, False, False])
  np.testing.assert_array_equal(found[2]["x"][:, 0, 0, 0], [8, 9, 9, 9])


def test_evaluation_of_less_than_all_is_a_fixed_choice_over_the_whole_split():
  def seen(count, limit, batch=4):
    found = list(evaluation_batches(Numbers(count), split="train", batch=batch, limit=limit))
    assert sum(int(b["mask"].sum()) for b in found) == min(count, limit)
    for b in found:
      np.testing.assert_array_equal(b["x"][b["mask"]][:, 0, 0, 0], b["index"][b["mask"]])
    return np.concatenate([b["index"][b["mask"]] for b in found])

  some = seen(1000, 100)
  assert len(set(some)) == 100 and all(np.histogram(some, 5, (0, 1000))[0] >= 10)  # the first 100 are one fifth's
  np.testing.assert_array_equal(seen(1000, 100, batch=64), some)
  np.testing.assert_array_equal(seen(1000, 30), some[:30])
  for limit in (10, 11):
    np.testing.assert_array_equal(seen(10, limit), range(10))
  with pytest.raises(UserError, match="above 0"):
    evaluation_batches(Numbers(), split="train", batch=4, limit=0)


def test_in_an_exact_evaluation_a_broken_example_is_padding():
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    found = list(evaluation_batches(Numbers(broken=2), split="train", batch=4, exact=True))
    np.testing.assert_array_equal(np.concatenate([b["index"] for b in found]), [0, 1, -1, *range(3, 10), -1, -1])
    seen = [b["x"][b["mask"]][:, 0, 0, 0] for b in found]
    np.testing.assert_array_equal(np.concatenate(seen), [0, 1, *range(3, 10)])
    found = list(evaluation_batches(Numbers(broken=2), split="train", batch=4))
  assert sum(int(b["mask"].sum()) for b in found) == 10  # a cache has a place for each


def test_a_broken_example_is_replaced_by_the_next_one():
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = take(5, Numbers(broken=9))
  assert any("number 9" in str(w.message) for w in caught)
  values = np.concatenate([b["x"][:, 0, 0, 0] for b in found])
  index = np.concatenate([b["index"] for b in found])
  np.testing.assert_array_equal(values, np.where(index == 9, 0, index))


@dataclasses.dataclass(frozen=True)
class Counted(Source):
  """Pictures of 64 KiB that are counted when they are made."""

  count: int = 40

  calls: ClassVar[collections.Counter[int]] = collections.Counter()

  @property
  def shape(self):
    return (256, 256, 1)

  def records(self, split):
    return Decoded(self.count, self.make)

  def make(self, i):
    self.calls[i] += 1
    return {"x": np.full((256, 256, 1), i, np.uint8)}


def test_a_set_larger_than_the_budget_is_never_loaded(monkeypatch):
  monkeypatch.setattr(loader, "MEMORY", 10 * (65536 + 400) + 1000)
  loader.opened.cache_clear()
  Counted.calls.clear()
  take(12, Counted(), batch=40, train=False)
  kept = loader.opened(Counted(), "train")
  assert isinstance(kept, loader.Kept) and len(kept.kept) == 10  # and no more
  assert sum(e["x"].nbytes for e in kept.kept.values()) <= loader.MEMORY
  once = [i for i in range(40) if Counted.calls[i] == 1]
  assert set(kept.kept) >= set(once) and len(once) <= 10  # what was kept was made once, the rest every time
  assert min(Counted.calls[i] for i in range(40) if i not in kept.kept) >= 12
  loader.opened.cache_clear()


def test_a_worker_keeps_nothing(monkeypatch):
  monkeypatch.setattr(loader, "worker", lambda: True)
  loader.opened.cache_clear()
  take(2, Counted(), batch=4)
  assert not loader.opened(Counted(), "train").kept
  loader.opened.cache_clear()


def test_the_order_of_an_epoch_is_small_and_is_that_of_the_first_release():
  order = loader.permutation(1000, 3, 2)
  assert order.dtype == np.int32 and sorted(order) == list(range(1000))
  np.testing.assert_array_equal(order, np.random.Generator(np.random.Philox(key=[3, 2])).permutation(1000))
  loader.ordered.cache_clear()
  for epoch in range(5):
    loader.permutation(1000, 0, epoch)
  assert loader.ordered.cache_info().currsize == 2  # 14 million examples: 112 MB in a process, not more


def test_a_folder_that_cannot_be_read_is_the_users_error_at_once(tmp_path):
  from latents.data import Folder

  with pytest.raises(UserError, match="no image files"):
    batches(Folder(path=str(tmp_path)), split="train", batch=2, seed=0)

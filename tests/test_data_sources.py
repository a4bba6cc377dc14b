"""What every source promises, and the exact answers of the small ones."""

import hashlib

import numpy as np
import pytest

from latents.data import Digits, Photos, Shapes, batches, source
from latents.data.photos import PHOTOGRAPHS
from latents.data.shapes import FACTORS, SHAPES
from latents.errors import UserError
from latents.media import KINDS
from tests.members.data import SOURCES


@pytest.mark.parametrize("name,make", SOURCES, ids=[name for name, _ in SOURCES])
def test_promises_of_every_source(name, make):
  data = make()
  assert data.kind in KINDS and (data.rate is None) == (data.kind != "audio")
  assert data == make() and hash(data) == hash(make())
  seen = {}
  for split in ("train", "test"):
    records = data.records(split)
    assert len(records) > 0 and isinstance(records.skipped, tuple)
    for i in range(min(len(records), 40)):
      for train in (True, False):
        example = data.augment(records[i], np.random.default_rng(i), train)
        assert example["x"].shape == data.shape, (split, i)
        assert example["x"].dtype == np.dtype(KINDS[data.kind].dtype)
      if data.classes:
        assert 0 <= int(example["label"]) < data.classes
      again = data.augment(records[i], np.random.default_rng(99), False)
      np.testing.assert_array_equal(again["x"], example["x"])
      if data.kind == "audio":
        assert np.abs(example["x"]).max() <= 1
    whole = [hashlib.sha256(records[i]["x"].tobytes()).digest() for i in range(len(records))]
    seen[split] = set(whole)
  assert not seen["train"] & seen["test"], "the splits share an example"


@pytest.mark.parametrize("name,make", SOURCES, ids=[name for name, _ in SOURCES])
def test_every_source_makes_batches(name, make):
  data = make()
  with batches(data, split="train", batch=4, seed=3) as stream:
    batch = next(stream)
  assert batch["x"].shape == (4, *data.shape) and batch["x"].std() > 0
  assert ("label" in batch) == (data.classes > 0)


def test_digits_are_the_1797_stratified():
  data = Digits(size=8)
  train, test = data.records("train"), data.records("test")
  assert (len(train), len(test), data.classes) == (1500, 297, 10)
  labels = np.array([test[i]["label"] for i in range(len(test))])
  assert np.bincount(labels).min() >= 28 and np.bincount(labels).max() <= 31
  from sklearn.datasets import load_digits

  original = np.sort(np.round(load_digits().data * 255 / 16).sum(1))
  ours = np.sort([float(r[i]["x"].sum()) for r in (train, test) for i in range(len(r))])
  np.testing.assert_array_equal(ours, original)


def test_shapes_are_a_pure_function_of_the_index():
  records, again = Shapes(size=24).records("train"), Shapes(size=24, count=50).records("train")
  for i in (0, 7, 49):
    for key in ("x", "factors", "objects", "label"):
      np.testing.assert_array_equal(records[i][key], again[i][key])
  larger = Shapes(size=48).records("train")
  np.testing.assert_array_equal(records[7]["factors"], larger[7]["factors"])


def test_shapes_factors_say_what_is_drawn():
  size = 64
  grid = (np.arange(size) + 0.5) * 2 / size - 1
  records = Shapes(size=size).records("test")
  kinds = set()
  for i in range(100):
    example = records[i]
    shape, hue, scale, _, x, y = example["factors"]
    assert len(example["factors"]) == len(FACTORS) and shape == example["label"]
    kinds.add(int(shape))
    rows, columns = np.nonzero(example["objects"])
    reach = np.hypot(grid[columns] - x, grid[rows] - y).max()
    assert 0.75 * scale < reach < 1.12 * scale, (SHAPES[int(shape)], reach / scale)
    if SHAPES[int(shape)] == "disc":
      assert len(rows) * (2 / size) ** 2 == pytest.approx(np.pi * (0.92 * scale) ** 2, rel=0.06)
    inside = example["x"][example["objects"]].astype(int)
    red, green, blue = np.median(inside, 0)
    wave = np.clip(np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1, 0, 1)
    assert np.argmax(wave) == np.argmax([red, green, blue]) or np.sort(wave)[-1] - np.sort(wave)[-2] < 0.1
  assert kinds == set(range(len(SHAPES)))


def test_photos_hold_whole_photographs_out():
  assert not set(PHOTOGRAPHS["train"]) & set(PHOTOGRAPHS["test"])
  large = Photos(size=256, count=8)
  assert large.augment(large.records("test")[0], np.random.default_rng(0), False)["x"].shape == (256, 256, 3)
  with pytest.raises(UserError, match="larger than the smallest"):
    Photos(size=400).records("test")


def test_photos_training_crops_are_random_and_evaluation_is_not():
  data = Photos(size=32, count=4)
  example = data.records("train")[1]
  crops = [data.augment(example, np.random.default_rng(s), True)["x"].tobytes() for s in range(8)]
  assert len(set(crops)) > 4


def test_specs():
  assert source("digits", size=16) == Digits(size=16)
  assert source("shapes", size=None) == Shapes()
  folder = source("folder:some/where", size=32)
  assert folder.path.startswith("/") and folder.path.endswith("some/where") and folder.size == 32
  assert source("tfds:mnist", data_dir="/d").data_dir == "/d"
  assert source("audio:a.zip", rate=8000).rate == 8000


@pytest.mark.parametrize(
  "spec,options,message",
  [
    ("digit", {}, "did you mean digits"),
    ("photo:x", {}, "did you mean photos"),
    ("digits:x", {}, "takes nothing"),
    ("folder", {}, "needs a path"),
    ("tfds:", {}, "needs a name"),
    ("shapes", {"sizes": 3}, "did you mean size"),
    ("shapes", {"size": 0}, "above 0"),
    ("folder:x", {"channels": 2}, "1 or 3"),
    ("", {}, "unknown data source"),
  ],
)
def test_specs_that_are_wrong(spec, options, message):
  with pytest.raises(UserError, match=message):
    source(spec, **options)

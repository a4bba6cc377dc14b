"""The latent cache: round trip, both copies, other first stages, damage; and the pictures."""

import json
import os
import resource

import numpy as np
import pytest
from PIL import Image

from latents.data import CachedLatents, batches, evaluation_batches, grid, save_png, spectrogram, write_cache
from latents.errors import UserError


def latents(count=10, integer=False):
  rng = np.random.default_rng(0)
  stored = rng.integers(0, 99, (count, 2, 3, 3)) if integer else rng.normal(size=(count, 2, 3, 3, 4)).astype("f")
  return stored, np.arange(count) % 4


def write(folder, stored, label, split="train", fingerprint="abc", **options):
  padded = [np.concatenate([v, v[-1:], v[-1:]]) for v in (stored, label)]
  mask = np.arange(len(padded[0])) < len(stored)
  parts = [
    {"stored": padded[0][i : i + 4], "label": padded[1][i : i + 4], "mask": mask[i : i + 4]}
    for i in range(0, len(mask), 4)
  ]
  given = {"count": len(stored), "statistics": {"mean": [0.0] * 4, "std": [1.0] * 4}, "names": list("wxyz")}
  return write_cache(str(folder), parts, split=split, fingerprint=fingerprint, **(given | options))


@pytest.mark.parametrize("integer", [False, True])
def test_round_trip(tmp_path, integer):
  stored, label = latents(integer=integer)
  write(tmp_path, stored, label)
  write(tmp_path, stored[:3], label[:3], split="test")
  cache = CachedLatents(folder=str(tmp_path), fingerprint="abc")
  assert cache.shape == stored.shape[2:] and cache.names == tuple("wxyz") and cache.classes == 4
  assert cache.statistics["std"] == [1.0] * 4
  records = cache.records("train")
  assert len(records) == 10 and len(cache.records("test")) == 3
  assert records[4]["stored"].dtype == (np.int32 if integer else np.float32)
  for i in range(10):
    np.testing.assert_array_equal(records[i]["stored"], stored[i])
    assert records[i]["label"] == label[i]
  assert sorted(os.listdir(tmp_path)) == ["test", "train"]


def test_batches_choose_a_copy_and_evaluation_takes_the_plain_one(tmp_path):
  stored, label = latents()
  write(tmp_path, stored, label)
  cache = CachedLatents(folder=str(tmp_path))
  chosen = []
  with batches(cache, split="train", batch=5, seed=1) as stream:
    for _ in range(8):
      batch = next(stream)
      assert "x" not in batch and batch["stored"].shape == (5, 3, 3, 4)
      np.testing.assert_array_equal(batch["label"], label[batch["index"]])
      for value, i in zip(batch["stored"], batch["index"], strict=True):
        chosen.append([bool((value == stored[i, c]).all()) for c in (0, 1)].index(True))
  assert 0.2 < np.mean(chosen) < 0.8
  found = np.concatenate([b["stored"][b["mask"]] for b in evaluation_batches(cache, split="train", batch=4)])
  np.testing.assert_array_equal(found, stored[:, 0])


def test_a_cache_larger_than_the_memory_is_never_loaded(tmp_path):
  """A sparse file of 64 GiB: two batches from anywhere in it touch a few pages."""
  write(tmp_path, *latents())
  count, shape = 1 << 21, (2, 16, 16, 16)
  path = tmp_path / "train" / "stored.npy"
  with open(path, "wb") as file:
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, header)
    file.truncate(file.tell() + count * 4 * int(np.prod(shape)))
  np.save(tmp_path / "train" / "label.npy", np.zeros(count, np.int32))
  manifest = tmp_path / "train" / "manifest.json"
  manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"count": count, "shape": shape[1:]}))
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  with batches(CachedLatents(folder=str(tmp_path)), split="train", batch=16, seed=0) as stream:
    assert next(stream)["stored"].shape == (16, 16, 16, 16)
    next(stream)
  grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
  assert grown < 200_000  # KiB


def test_another_first_stage_is_refused(tmp_path):
  write(tmp_path, *latents())
  cache = CachedLatents(folder=str(tmp_path), fingerprint="other")
  with pytest.raises(UserError, match="comes from another first stage"):
    cache.records("train")
  with pytest.raises(UserError, match="comes from another first stage"):
    _ = cache.shape


def test_a_failed_write_leaves_the_old_cache(tmp_path):
  stored, label = latents()
  write(tmp_path, stored, label)
  with pytest.raises(ValueError, match="10 of the 11"):
    write(tmp_path, stored, label, count=11)
  with pytest.raises(ValueError, match="more than the 9"):
    write(tmp_path, stored, label, count=9)
  with pytest.raises(UserError, match="not finite"):
    write(tmp_path, stored * np.nan, label)
  assert os.listdir(tmp_path) == ["train"]
  assert len(CachedLatents(folder=str(tmp_path)).records("train")) == 10


def test_damage_is_named(tmp_path):
  write(tmp_path, *latents())
  cache = CachedLatents(folder=str(tmp_path))
  path = tmp_path / "train" / "stored.npy"
  whole = path.read_bytes()
  path.write_bytes(whole[:-50])
  with pytest.raises(UserError, match="damaged"):
    cache.records("train")
  np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
  with pytest.raises(UserError, match="damaged"):
    cache.records("train")
  np.save(path, np.zeros((10, 2, 3, 3, 5), np.float32))
  with pytest.raises(UserError, match="the manifest says"):
    cache.records("train")
  manifest = tmp_path / "train" / "manifest.json"
  manifest.write_text(json.dumps({"format": 1}))
  with pytest.raises(UserError, match="not a manifest"):
    cache.records("train")
  with pytest.raises(UserError, match="no latent cache"):
    cache.records("test")


def test_grid_places_pictures_exactly():
  images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8) * 10
  sheet = grid(images, columns=3, pad=1, scale=2)
  assert sheet.shape == (2 * 5 + 1, 3 * 7 + 1, 3) and sheet.dtype == np.uint8
  assert (sheet[6:10, 8:14] == 40).all() and (sheet[6:10, 15:21] == 255).all() and (sheet[5] == 255).all()
  assert grid(images, columns=3).shape == (2 * 22 + 2, 3 * 32 + 2, 3)  # 2 x 3 px are shown 10 times as large
  with pytest.raises(ValueError, match="uint8"):
    grid(images.astype(float))


def test_save_png(tmp_path):
  image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
  save_png(image, tmp_path / "new" / "x.png")
  np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "x.png")), image)
  assert os.listdir(tmp_path / "new") == ["x.png"]


def test_spectrogram_shows_the_pitch():
  rate = 8000
  tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)
  image = spectrogram(tone, rate, height=128, width=64)
  assert image.shape == (128, 64, 3)
  row = np.argmax(image.astype(int).sum(-1).mean(1))
  assert abs((127 - row) / 127 * 4000 - 1000) < 80
  assert spectrogram(np.zeros(10), rate).shape == (128, 256, 3)

"""`latents encode`: what it writes, and what it says of it."""

import os
import signal
import tarfile

import numpy as np
import pytest

import latents
from latents.data import CachedLatents
from latents.machine import endings
from latents.use import cache
from tests.test_former_runs import FIXTURE


@pytest.fixture
def finished(tmp_path):
  with tarfile.open(FIXTURE) as packed:
    packed.extractall(tmp_path, filter="data")
  return tmp_path / "finished"


def test_layout_and_units_are_said_and_right(finished, tmp_path):
  line = cache.encode(finished, tmp_path / "out", "test")
  stored = np.load(tmp_path / "out" / "test" / "stored.npy")
  width = stored.shape[-1] // 2
  assert f"test/stored.npy is float32 {list(stored.shape)}: means z and deviations of the posterior, {width}" in line
  assert cache.kept_as((4, 4), "int32", False) == "codes"
  model = latents.load(finished)
  records = model.experiment.stage2.data.records("test")
  z = model.encode(np.stack([records[i]["x"] for i in range(3)])).z
  statistics = CachedLatents(str(tmp_path / "out")).manifest["statistics"]
  expected = (stored[:3, 0, ..., :width] - np.asarray(statistics["mean"])) / np.asarray(statistics["std"])
  np.testing.assert_allclose(z, expected, atol=1e-4)


def test_a_cache_that_is_stopped_leaves_nothing(finished, tmp_path, monkeypatch):
  write = cache.write_cache

  def stopped(folder, batches, **options):
    def first():
      for batch in batches:
        os.kill(os.getpid(), signal.SIGINT)
        yield batch

    return write(folder, first(), **options)

  monkeypatch.setattr(cache, "write_cache", stopped)
  monkeypatch.setattr(cache, "BATCH", 8)
  with pytest.raises(endings.Stopped) as told:
    cache.encode(finished, tmp_path / "out", "test")
  assert told.value.code == 130 and not (tmp_path / "out").exists()

"""Checkpoints: restored exactly, damaged ones found and passed over, errors of the background surfaced."""

import contextlib
import json
import resource
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.errors import UserError
from latents.train.checkpoint import Checkpoints
from latents.train.seals import digests
from latents.train.state import State


def state(step: int) -> State:
  rng = np.random.default_rng(step)
  params = {"ae": {"w": jnp.asarray(rng.normal(size=(64, 32)), jnp.float32)}}
  extra = {"skipped": jnp.zeros((), jnp.int32)}
  return State(step=jnp.asarray(step), params=params, opt={"ae": (params["ae"],)}, ema=params, extra=extra)


def abstract() -> State:
  where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), state(0))


@pytest.fixture
def saved(tmp_path):
  """A folder with checkpoints of steps 2 and 4."""
  made = Checkpoints(tmp_path / "checkpoints")
  for step in (1, 2, 4):
    made.save(step, state(step))
  made.close()
  return tmp_path / "checkpoints"


def restore(folder) -> tuple[State | None, list[str]]:
  made = Checkpoints(folder)
  try:
    return made.restore(abstract()), made.notes
  finally:
    made.close()


def equal(a, b) -> bool:
  return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_the_newest_is_restored_and_old_ones_and_their_seals_go(saved):
  found, notes = restore(saved)
  assert equal(found, state(4)) and notes == []
  assert sorted(p.name for p in saved.glob("[0-9]*")) == ["2", "4"]
  seals = saved.parent / "seals"
  assert {p.name for p in seals.iterdir()} >= {"2.json", "4.json"}
  assert json.loads((seals / "4.json").read_text()) == digests(saved / "4")
  made = Checkpoints(saved)
  made.save(6, state(6))
  made.close()
  assert {p.name for p in seals.iterdir()} >= {"4.json", "6.json"} and not (seals / "1.json").exists()


def test_no_checkpoint_is_none(tmp_path):
  assert restore(tmp_path / "checkpoints") == (None, [])


def files(folder):
  return sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)


def test_a_bit_turned_in_any_file_is_found(saved):
  whole = saved.parent / "whole"
  shutil.copytree(saved / "4", whole)
  assert len(files(saved / "4")) >= 4
  for path in files(saved / "4"):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))
    found, notes = restore(saved)
    assert equal(found, state(2)), path
    assert len(notes) == 1 and "checkpoint 4" in notes[0] and path.name in notes[0] and "passed over" in notes[0]
    shutil.rmtree(saved / "4")
    shutil.copytree(whole, saved / "4")
  assert equal(restore(saved)[0], state(4))


def test_a_file_that_is_cut_or_gone_is_found(saved):
  path = max(files(saved / "4"), key=lambda p: p.stat().st_size)
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])
  assert equal(restore(saved)[0], state(2))
  path.unlink()
  found, notes = restore(saved)
  assert equal(found, state(2)) and "files it was saved with" in notes[0]


def test_without_a_seal_orbax_is_believed_and_what_it_cannot_read_is_passed_over(saved):
  (saved.parent / "seals" / "4.json").unlink()
  assert equal(restore(saved)[0], state(4))
  for path in files(saved / "4"):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  found, notes = restore(saved)
  assert equal(found, state(2)) and "cannot be read" in notes[0]


def test_none_that_can_be_read_is_an_error(saved):
  for step in ("2", "4"):
    path = files(saved / step)[0]
    path.write_bytes(path.read_bytes() + b"x")
  with pytest.raises(UserError, match=r"no checkpoint in .* can be read"):
    restore(saved)


def test_other_arrays_are_refused_by_name(saved):
  made = Checkpoints(saved)
  other = abstract()
  shape = jax.ShapeDtypeStruct((3, 3), jnp.float32, sharding=jax.tree.leaves(other)[0].sharding)
  with pytest.raises(UserError, match=r"params/ae/w of shape \(64, 32\), the experiment needs \(3, 3\)"):
    made.restore(other.replace(params={"ae": {"w": shape}}))
  with pytest.raises(UserError, match="lacks array params/ae/new"):
    made.restore(other.replace(params={"ae": {**other.params["ae"], "new": shape}}))
  made.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # TensorStore's, after the failed save
def test_what_a_save_in_the_background_meets_surfaces_at_the_next_step(saved):
  made, before = Checkpoints(saved), resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
  try:
    with pytest.raises(UserError, match="file size limit is reached; the last complete checkpoint is kept"):
      made.save(6, state(6))
      deadline = time.monotonic() + 30
      while time.monotonic() < deadline:
        made.check()
        time.sleep(0.05)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with contextlib.suppress(Exception):
      made.close()
  assert equal(restore(saved)[0], state(4))


def test_damaged_ones_are_deleted_before_training_goes_on(saved):
  (saved / "4" / "_CHECKPOINT_METADATA").write_text("{}")
  made = Checkpoints(saved)
  assert int(made.restore(abstract()).step) == 2
  made.discard_after(2)
  made.save(4, state(7))
  made.close()
  assert equal(restore(saved)[0], state(7))

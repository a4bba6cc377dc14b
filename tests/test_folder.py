"""A run's folder: whose data it was begun with, and what it borrows from its neighbours."""

import dataclasses
import errno
import fcntl
import json
import os
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

import latents
from latents.data import Folder as Pictures
from latents.errors import UserError
from latents.runs import run
from latents.store import artefact
from latents.store.folder import Folder
from latents.store.stages import link
from tests import micro


def paint(folder):
  folder.mkdir(parents=True)
  for i in range(20):
    Image.fromarray(np.full((16, 16, 3), i, np.uint8)).save(folder / f"{i}.png")
  return folder


@pytest.fixture
def pictures(tmp_path):
  return paint(tmp_path / "pictures")


def experiment(pictures):
  made = micro.experiment(gan=False)
  data = Pictures(str(pictures), size=16, channels=1)
  stages = {name: dataclasses.replace(getattr(made, name), data=data) for name in ("stage1", "stage2")}
  return dataclasses.replace(made, **stages)


def test_data_that_change_between_two_sessions_are_refused(pictures, tmp_path):
  def session():  # a process lists its files once
    return Folder(tmp_path / "runs" / "a", experiment(pictures))

  first = session().check_data(1)
  assert session().check_data(1) == first
  Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(pictures / "new.png")
  with pytest.raises(UserError, match=r"data of stage 1 are not those that .*runs/a was begun"):
    session().check_data(1)
  session().check_data(2)  # it had not been begun
  (pictures / "new.png").unlink()
  assert session().check_data(1) == first
  with pytest.raises(UserError, match="data of stage 2"):
    session().check_data(2)


def finish_stage1(folder: Folder, **facts) -> None:
  place = folder.stage(1)
  place.mkdir(parents=True)
  facts = {"address": place.name[7:], "statistics": {"mean": [0.0], "std": [1.0]}, **facts}
  artefact.write(place, {"params/w": np.ones(3, np.float32)}, facts)
  (folder.path / "metrics.jsonl").write_text(json.dumps({"stage": 1, "step": 1}) + "\n")


def test_a_stage1_on_the_same_data_is_borrowed_and_on_others_not(pictures, tmp_path):
  a, b, c = (Folder(tmp_path / "runs" / name, experiment(pictures)) for name in "abc")
  for folder in (b, c):
    folder.path.mkdir(parents=True)
  finish_stage1(a, data=a.experiment.stage1.data.identity())
  assert b.borrow(1) == a.stage(1)
  assert b.artefact(1).fingerprint == a.artefact(1).fingerprint
  (pictures / "0.png").unlink()
  assert c.borrow(1) is None and c.artefact(1) is None


def test_averages_travel_with_a_stage_that_is_borrowed(pictures, tmp_path):
  a, b = (Folder(tmp_path / "runs" / name, experiment(pictures)) for name in "ab")
  finish_stage1(a, data=a.experiment.stage1.data.identity())
  one = a.artefact(1)
  artefact.write(a.stage(1), one.weights, one.facts, averages={"average/slow/params/w": np.zeros(3, np.float32)})
  a.keep(1)
  shutil.rmtree(a.path)
  b.path.mkdir(parents=True)
  assert b.borrow(1) is not None
  slow = artefact.with_average(b.artefact(1), b.stage(1), "slow")
  np.testing.assert_array_equal(slow.weights["params/w"], np.zeros(3))


def test_one_run_at_a_time_writes(tmp_path, pictures):
  made = Folder(tmp_path / "a", experiment(pictures))
  with made.claimed(), pytest.raises(UserError, match=r"in use by another run \(pid \d+ on "), made.claimed():
    pass
  with made.claimed():  # a lock file that is left over is no claim
    pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of_and_no_more(pictures, tmp_path, monkeypatch, number):
  def none(*_):
    raise OSError(number, os.strerror(number))

  folder = Folder(tmp_path / "runs" / "a", experiment(pictures))
  monkeypatch.setattr(fcntl, "flock", none)
  with pytest.warns(UserWarning, match=f"{folder.path}: this file system has no locks"), folder.claimed():
    pass


def test_only_a_lock_that_is_held_says_in_use(pictures, tmp_path):
  folder = Folder(tmp_path / "runs" / "a", experiment(pictures))
  with warnings.catch_warnings(), folder.claimed():
    warnings.simplefilter("error")
    with pytest.raises(UserError, match=f"in use by another run .pid {os.getpid()} on"), folder.claimed():
      pass
  with folder.claimed():
    pass


def test_names_that_are_no_text_lose_nothing(tmp_path):
  """Folders, files and runs called by bytes that are not UTF-8."""
  root = os.fsencode(tmp_path) + b"/p\xff"
  for label in (b"caf\xe9", b"tea"):
    os.makedirs(root + b"/" + label)
    for i in range(20):
      pixels = np.random.default_rng(i).integers(0, 255, (16, 16, 3), dtype=np.uint8)
      Image.fromarray(pixels).save(os.fsdecode(root + b"/" + label + b"/\xfe%d.png" % i))
  made = experiment(os.fsdecode(root))
  one, two = (dataclasses.replace(stage, steps=1) for stage in (made.stage1, made.stage2))
  made = dataclasses.replace(made, stage1=one, stage2=two, evaluation=dataclasses.replace(made.evaluation, images=4))
  backbone = made.stage2.prior.backbone.clone(classes=2)
  two = dataclasses.replace(two, prior=made.stage2.prior.clone(backbone=backbone))
  folder = run.run(dataclasses.replace(made, stage2=two), tmp_path / "runs", None, "latents \udcff")
  with pytest.raises(UserError, match="is not UTF-8, and checkpoints need it"):
    run.run(made, tmp_path / "runs", os.fsdecode(b"r\xff"), "latents")
  page = (folder / "report.html").read_text(encoding="utf-8")
  assert "caf\\udce9" in page and "latents \\udcff" in page
  assert latents.load(folder).sample(os.fsdecode(b"caf\xe9")).shape == (1, 16, 16, 1)


def test_a_damaged_score_card_is_written_anew(pictures, tmp_path):
  folder = Folder(tmp_path / "a", experiment(pictures))
  folder.path.mkdir()
  for text in ('{"command": "lat', "[]", "\x00"):
    (folder.path / "scores.json").write_text(text)
    assert folder.scores() == {} and not folder.complete()


def test_a_file_linked_twice_leaves_nothing_beside_it(tmp_path):
  """A rename of one name of a file to another does nothing."""
  (tmp_path / "a").write_text("x")
  for _ in range(2):
    link(tmp_path / "a", tmp_path / "b")
  assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]

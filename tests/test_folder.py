"""A run's folder: whose data it was begun with, and what it borrows from its neighbours."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from latents.data import Folder as Pictures
from latents.errors import UserError
from latents.store import artefact
from latents.store.folder import Folder
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


def test_one_run_at_a_time_writes(tmp_path, pictures):
  made = Folder(tmp_path / "a", experiment(pictures))
  with made.claimed(), pytest.raises(UserError, match=r"in use by another run \(pid \d+ on "), made.claimed():
    pass
  with made.claimed():  # a lock file that is left over is no claim
    pass

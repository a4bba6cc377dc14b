"""Runs that an older version made are today's runs: they load, sample and resume. `fixtures` holds two of 61e35a8."""

import dataclasses
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import latents
from latents import main
from latents.data import write_cache
from latents.declare import addresses, former_addresses
from latents.errors import UserError
from latents.runs import run
from latents.store import artefact
from latents.store.folder import Folder, open_folder
from latents.use import cache
from tests import micro

FIXTURE = Path(__file__).parent / "fixtures" / "runs_of_61e35a8.tar.xz"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  assert FIXTURE.stat().st_size < 300_000
  folder = tmp_path_factory.mktemp("former")
  with tarfile.open(FIXTURE) as packed:
    packed.extractall(folder, filter="data")
  return folder


def test_a_finished_run_loads_and_samples(runs):
  assert open_folder(runs / "finished").experiment == micro.experiment()
  model = latents.load(runs / "finished")
  kept = np.load(runs / "finished" / "samples.npz")
  drawn = model.sample(kept["label"].tolist(), seed=0)
  assert np.abs(127.5 * drawn + 127.5 - kept["x"]).max() <= 1.5  # as the score card of that time drew them
  x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 1)).astype(np.float32)
  assert model.reconstruct(x).shape == x.shape


def test_one_prior_serves_several_decoders(runs, tmp_path, capsys):
  """`--decoder RUN`: latents drawn by this run's prior, decoded by another's decoder, if the rest of stage 1 is the
  same to the bit."""

  def with_changed(name: str, part: str) -> Path:
    folder = Path(shutil.copytree(runs / "finished", tmp_path / name))
    stage = next(folder.glob("stage1-*"))
    made = artefact.read(stage)
    changed = {n: 0.5 * a if n.startswith(f"params/{part}/conv_out") else a for n, a in made.weights.items()}
    after = artefact.write(stage, changed, made.facts)
    two = next(folder.glob("stage2-*")) / artefact.FACTS  # as today's code ties a prior to the latents alone
    two.write_text(json.dumps({**json.loads(two.read_text()), "stage1": after.latents}))
    return folder

  tuned, other = with_changed("tuned", "decoder"), with_changed("other", "encoder")
  plain, both = latents.load(runs / "finished"), latents.load(runs / "finished", decoder=tuned)
  z = plain.sample_latents([3], seed=1)
  np.testing.assert_array_equal(both.sample_latents([3], seed=1).z, z.z)
  np.testing.assert_array_equal(both.decode(z), latents.load(tuned).decode(z))
  assert np.abs(both.decode(z) - plain.decode(z)).max() > 0.01
  words = ["sample", str(runs / "finished"), "--number", "2", "--out", str(tmp_path / "x.npz"), "--decoder"]
  assert main.main([*words, str(other)]) == 2
  assert "other has other latents than" in capsys.readouterr().err
  assert main.main([*words, str(tmp_path / "nothing")]) == 2 and not (tmp_path / "x.npz").exists()
  assert main.main([*words, str(tuned)]) == 0 and np.load(tmp_path / "x.npz")["x"].shape == (2, 16, 16, 1)


def test_a_run_stopped_in_stage_2_goes_on(runs, tmp_path):
  shutil.copytree(runs / "stopped", tmp_path / "stopped")
  before = os.path.getmtime(next((tmp_path / "stopped").glob("stage1-*/weights.safetensors")))
  run.run(micro.experiment(), tmp_path, "stopped", "latents run micro")
  (mine,) = (tmp_path / "stopped").glob("stage2-*/weights.safetensors")
  (theirs,) = (runs / "finished").glob("stage2-*/weights.safetensors")
  mine, theirs = load_file(mine), load_file(theirs)
  assert mine.keys() == theirs.keys()
  for name in mine:
    # Linear layers, upsampling and the update add in another order than those of 61e35a8: equal to rounding.
    np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-3, atol=2e-5, err_msg=name)
  (one,) = (tmp_path / "stopped").glob("stage1-*/weights.safetensors")
  assert os.path.getmtime(one) == before  # nothing is trained over a finished stage
  steps = [json.loads(line) for line in (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()]
  assert [(line["stage"], line["step"]) for line in steps] == [(s, n) for s in (1, 2) for n in range(1, 7)]


def test_a_cache_that_names_the_whole_stage_is_read(tmp_path):
  """What a stage 2 with a cache had begun before a cache was tied to the latents alone."""
  one = artefact.write(tmp_path / "one", {"params/encoder/w": np.ones(2, np.float32)}, {"address": "a"})
  assert one.latents != one.fingerprint
  stored = np.zeros((3, 2, 4, 4, 8), np.float32)
  for name, fingerprint in (("old", one.fingerprint), ("new", one.latents), ("other", "other")):
    write_cache(
      str(tmp_path / name), [{"stored": stored}], split="train", count=3, fingerprint=fingerprint, statistics={}
    )
    made = cache.cached(micro.experiment(), micro.one_device(), None, one, tmp_path / name)
    if name == "other":
      with pytest.raises(UserError, match="another first stage"):
        made.records("train")
    else:
      assert len(made.records("train")) == 3


def test_stages_of_moved_data_are_found_by_their_former_addresses(tmp_path):
  """The path of a folder of pictures was a part of the address; the folder of such a stage is known, and renamed by
  the first that writes there."""
  from latents.data import Folder as Pictures
  from tests.test_folder import finish_stage1, paint

  pictures, elsewhere = paint(tmp_path / "a" / "pictures"), paint(tmp_path / "b" / "pictures")

  def declared(place):
    made = micro.experiment(gan=False)
    data = Pictures(str(place), size=16, channels=1)
    stages = {name: dataclasses.replace(getattr(made, name), data=data) for name in ("stage1", "stage2")}
    return dataclasses.replace(made, **stages)

  old, new = declared(pictures), declared(elsewhere)
  assert addresses(old) == addresses(new) and former_addresses(old) != former_addresses(new)
  folder = Folder(tmp_path / "runs" / "x", old)
  finish_stage1(folder, data=old.stage1.data.identity())
  folder.write_declaration()
  today = folder.stage(1)
  former = today.with_name(f"stage1-{former_addresses(old)[0]}")
  today.rename(former)  # as 61e35a8 named it
  there = Folder(tmp_path / "runs" / "x", new)
  assert there.stage(1) == former and there.artefact(1) is not None
  there.check_data(1)
  beside = Folder(tmp_path / "runs" / "y", old)
  beside.path.mkdir()
  assert beside.borrow(1) == former
  there.write_declaration()
  assert not former.exists() and Folder(tmp_path / "runs" / "x", new).stage(1) == today


def test_a_stage_that_another_version_finished_is_never_trained_over(runs, tmp_path, capsys):
  """A field without a neutral value, or an edition, gives a stage another address: the folder says whose it is."""
  folder = Path(shutil.copytree(runs / "finished", tmp_path / "finished"))
  one = next(folder.glob("stage1-*"))
  other = one.rename(folder / "stage1-0123456789")
  before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
  for words in (
    ["sample", folder, "--out", tmp_path / "x.npz"],
    ["evaluate", folder],
    ["encode", folder, "--out", "o"],
  ):
    assert main.main([str(w) for w in words]) == 2
    assert f"{other} was finished by another version of latents" in capsys.readouterr().err
  with pytest.raises(UserError, match="finished by another version"):
    run.run(open_folder(folder).experiment, folder.parent, "finished", "test")
  assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before


def test_a_stage_is_hashed_once_while_its_file_stays_as_it_is(runs, tmp_path, monkeypatch):
  """Where it is written or first read; and it is read once for all who hold it at a time."""
  folder = Path(shutil.copytree(runs / "finished", tmp_path / "finished"))
  counted, hashed, loads, load = [], artefact.fingerprint, [], artefact._load
  monkeypatch.setattr(artefact, "_hashed", {})
  monkeypatch.setattr(artefact, "fingerprint", lambda *args: counted.append(1) or hashed(*args))
  monkeypatch.setattr(artefact, "_load", lambda path: loads.append(path) or load(path))
  one = next(folder.glob("stage1-*"))
  made = artefact.read(one)
  assert artefact.read(one) is made and (len(counted), len(loads)) == (1, 1)
  weights, facts = made.weights, made.facts
  del made
  assert artefact.read(one).facts == facts and (len(counted), len(loads)) == (1, 2)
  artefact.write(tmp_path / "new", weights, facts)
  assert artefact.read(tmp_path / "new").fingerprint == facts["fingerprint"] and len(counted) == 2
  content = bytearray((one / artefact.WEIGHTS).read_bytes())
  content[-1] ^= 1
  (one / artefact.WEIGHTS).write_bytes(content)
  with pytest.raises(UserError, match="is damaged"):
    artefact.read(one)

"""The identity of data: equal wherever they lie and however they are cropped, other when the contents are."""

import dataclasses
import json
import os
import shutil
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from latents.data import Audio, CachedLatents, Digits, Folder, Photos, Shapes, Tfds, photos, write_cache
from latents.errors import UserError
from tests import sources
from tests.members.data import SOURCES


@pytest.mark.parametrize("name,make", SOURCES)
def test_every_source_has_one_and_keeps_it(name, make):
  first, second = make(), make()
  assert len(first.identity()) == 16 and int(first.identity(), 16) >= 0
  assert first.identity() == first.identity() == dataclasses.replace(second).identity()


def test_identities_differ_between_sources():
  found = [make().identity() for _, make in SOURCES]
  assert len(set(found)) == len(found)


def test_of_what_is_made_by_rules(monkeypatch):
  assert Digits(size=8).identity() != Digits(size=16).identity()
  assert Shapes(count=10).identity() != Shapes(count=11).identity()
  before = Shapes().identity()
  monkeypatch.setattr(Shapes, "edition", 2)
  assert Shapes().identity() != before
  before = Photos().identity()
  monkeypatch.setitem(photos.PHOTOGRAPHS, "test", ("chelsea.png",))
  assert Photos().identity() != before


@pytest.fixture
def moved(tmp_path):
  """The test folders of `sources`, copied to another place."""
  for kind in ("pictures", "sounds", "tfds"):
    shutil.copytree(os.path.join(sources.place(), kind), tmp_path / kind)
  return tmp_path


def test_of_a_folder(moved):
  one, two = sources.folder(), Folder(path=str(moved / "pictures"), size=24, flip=False)
  assert one.identity() == two.identity()
  victim = moved / "pictures" / "one" / "3.png"
  Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(victim)
  assert Folder(path=str(moved / "pictures")).identity() != one.identity()
  shutil.copyfile(os.path.join(sources.place(), "pictures", "one", "3.png"), victim)
  assert Folder(path=str(moved / "pictures")).identity() == one.identity()
  victim.rename(moved / "pictures" / "one" / "03.png")
  assert Folder(path=str(moved / "pictures")).identity() != one.identity()
  with pytest.raises(UserError, match="no such folder"):
    Folder(path=str(moved / "nowhere")).identity()


def test_of_a_tfds_set(moved):
  one, two = sources.tfds(), Tfds(name="pictures", data_dir=str(moved / "tfds"), size=8)
  assert one.identity() == two.identity()
  inside = moved / "tfds" / "pictures" / "1.0.0"
  shard = inside / "pictures-train.array_record-00000-of-00001"
  shard.write_bytes(shard.read_bytes() + b"\0")
  assert dataclasses.replace(two).identity() != one.identity()
  shutil.copyfile(os.path.join(one.folder, shard.name), shard)
  assert dataclasses.replace(two).identity() == one.identity()
  info = json.loads((inside / "dataset_info.json").read_text())
  for key, value in (("version", "1.0.1"), ("name", "paintings")):
    (inside / "dataset_info.json").write_text(json.dumps(info | {key: value}))
    assert dataclasses.replace(two).identity() != one.identity()


def test_of_recordings(moved):
  one = sources.audio()
  assert one.identity() == Audio(path=str(moved / "sounds"), length=64).identity()
  archive = moved / "x.zip"
  found = []
  for change in (b"", b"\1"):
    with zipfile.ZipFile(archive, "w") as file:
      for i in range(3):
        file.writestr(f"{i}.wav", b"RIFF" + change * 4 if i == 1 else b"RIFF1234")
    found.append(Audio(path=str(archive)).identity())
  assert found[0] != found[1]


def test_of_a_cache_is_its_first_stage(tmp_path):
  stored = np.zeros((3, 2, 2, 2, 1), np.float32)
  found = []
  for name, fingerprint in (("a", "one"), ("b", "one"), ("c", "two")):
    write_cache(
      str(tmp_path / name), [{"stored": stored}], split="train", count=3, fingerprint=fingerprint, statistics={}
    )
    found.append(CachedLatents(folder=str(tmp_path / name)).identity())
  assert found[0] == found[1] != found[2]


def test_of_many_files_is_cheap(tmp_path):
  for i in range(3000):
    (tmp_path / f"{i}.png").touch()
  data = Folder(path=str(tmp_path))
  begin = time.process_time()
  data.identity()
  assert time.process_time() - begin < 1

"""Files made to harm: bombs are refused before they are unpacked, names lead nowhere, nothing is executed."""

import io
import json
import os
import pickle
import shutil
import stat
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from latents.data import Audio, CachedLatents, Tfds, load_image, write_cache
from latents.data.images import read_image
from latents.data.source import Broken
from latents.declare import dumps, loads
from latents.errors import UserError
from latents.pretrained import read_weights
from latents.pretrained.lpips import LPIPS
from latents.report import report
from latents.store import artefact
from tests import micro, sources
from tests.hostile import peak
from tests.test_pretrained_readers import Call, Tensor, archive, stream


@pytest.fixture
def lean():
  """The process does not grow by more than 150 MiB."""
  before = peak()
  yield
  assert peak() - before < 150, f"grew by {peak() - before:.0f} MiB"


# -- pictures


def declared(form, width, height):
  """A picture of a few bytes with this size in its header."""
  if form == "png":

    def chunk(kind, data):
      return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
  if form == "bmp":
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
  if form == "gif":
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF0, 0, 0) + b"\0" * 6 + b",\0\0\0\0" + struct.pack(
      "<HHB", width, height, 0
    ) + b"\2\2\x4c\1\0;"  # fmt: skip
  if form == "ppm":
    return f"P6 {width} {height} 255\n".encode() + b"\0" * 99
  file = io.BytesIO()
  Image.new("RGB", (16, 16)).save(file, form)
  data = bytearray(file.getvalue())
  if form == "jpeg":
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
  else:  # tiff: the entries ImageWidth (256) and ImageLength (257)
    for tag, value in ((256, width), (257, height)):
      place = data.index(struct.pack("<HHI", tag, 3, 1)) if struct.pack("<HHI", tag, 3, 1) in data else None
      place = data.index(struct.pack("<HHI", tag, 4, 1)) if place is None else place
      data[place + 2 : place + 12] = struct.pack("<HII", 4, 1, value)
  return bytes(data)


@pytest.mark.parametrize("form", ["png", "bmp", "gif", "ppm", "jpeg", "tiff"])
def test_absurd_sizes_are_refused_before_memory_is_taken(form, lean):
  side = 60_000
  for short in (None, 64):
    with pytest.raises(Broken, match=r"million pixels|the limit"):
      read_image(declared(form, side, side), 3, short)


def test_a_strip_that_would_become_a_wall_is_refused(tmp_path, lean):
  Image.fromarray(np.zeros((1, 1_000_000), np.uint8)).save(tmp_path / "x.png")
  assert read_image(str(tmp_path / "x.png")).shape == (1, 1_000_000, 3)
  with pytest.raises(Broken, match="when resized"):
    read_image(str(tmp_path / "x.png"), 3, 64)
  with pytest.raises(UserError, match="when resized"):
    load_image(tmp_path / "x.png", size=64)


def test_no_picture_starts_a_program(tmp_path, monkeypatch):
  """Pillow hands EPS to Ghostscript, whatever the file is called."""
  programs, canary = tmp_path / "bin", tmp_path / "canary"
  programs.mkdir()
  (programs / "gs").write_text(f"#!/bin/sh\ntouch {canary}\n")
  (programs / "gs").chmod(stat.S_IRWXU)
  monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
  text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
  (tmp_path / "x.png").write_text(text)
  with pytest.raises(Broken, match="not a readable image"):
    read_image(str(tmp_path / "x.png"))
  assert not canary.exists()


# -- weights


def test_an_npz_that_unpacks_to_far_more_is_refused(tmp_path, lean):
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (6 << 22,)})
  with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as file, file.open("a.npy", "w") as member:
    member.write(header.getvalue())
    for _ in range(6):  # 96 MiB of zeros in 100 KiB
      member.write(bytes(1 << 24))
  with pytest.raises(UserError, match="unpacks to"):
    read_weights(str(tmp_path / "w.npz"))


def laughs(depth=40):
  inner = ["ha"]
  for _ in range(depth):
    inner = [inner, inner]
  return inner


BOMBS = {
  "stride 0": ({"a": Tensor("0", np.zeros(4, np.float32), (0,), (10**11,))}, "larger than its storage"),
  "laughs": ({"a": laughs()}, "values"),
  "copies": ({str(i): Tensor("0", np.zeros(1 << 22, np.float32)) for i in range(400)}, "unpacks to"),
  "deep": ({"a": {"b": {"c": [[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}}}, "tensors"),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("write", [stream, archive])
def test_pth_bombs(tmp_path, name, write, lean):
  tree, match = BOMBS[name]
  tree = tree if name != "deep" else {"a": tree}
  arrays = {"stride 0": {"0": np.zeros(4, np.float32)}, "copies": {"0": np.zeros(1 << 22, np.float32)}}.get(name, {})
  (tmp_path / "w").write_bytes(write(tree, arrays))
  with pytest.raises(UserError, match=match):
    read_weights(str(tmp_path / "w"))


def test_five_bytes_cannot_take_gigabytes_of_memo(tmp_path, lean):
  """LONG_BINPUT with an index of two thousand millions: the unpickler in C allocates a table for it."""
  bomb = b"\x80\x02]r" + (2**31 - 2).to_bytes(4, "little") + b"."
  with zipfile.ZipFile(tmp_path / "w", "w") as file:
    file.writestr("m/data.pkl", bomb)
  with pytest.raises(UserError):
    read_weights(str(tmp_path / "w"))


class Touch:
  """Pickles as a call that makes a file."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return (open, (self.path, "w"))


def test_no_pickle_is_executed(tmp_path):
  canary = tmp_path / "canary"
  pickle.loads(pickle.dumps(Touch(canary)))
  assert canary.exists()  # the canary sings
  canary.unlink()
  evil = np.array([Touch(canary)], object)
  np.savez(tmp_path / "w.npz", **{"x": evil, "lin0.model.1.weight": evil})
  np.save(tmp_path / "w.npy", evil, allow_pickle=True)
  (tmp_path / "w.pth").write_bytes(pickle.dumps({"a": Touch(canary)}, 2))
  (tmp_path / "z.pth").write_bytes(archive({"a": Call("builtins", "open", str(canary), "w")}, {}))
  for name in ("w.npz", "w.npy", "w.pth", "z.pth"):
    with pytest.raises(UserError):
      read_weights(str(tmp_path / name))
    with pytest.raises(UserError):
      LPIPS().load(str(tmp_path / name))
  run = tmp_path / "run"
  run.mkdir()
  (run / "experiment.json").write_text("{}")
  for name in ("samples.npz", "reconstructions.npz"):
    shutil.copyfile(tmp_path / "w.npz", run / name)
    with pytest.raises(UserError):
      report([run])
    (run / name).unlink()
  stored = np.zeros((1, 2, 2, 2, 1), np.float32)
  write_cache(str(tmp_path / "c"), [{"stored": stored}], split="train", count=1, fingerprint="", statistics={})
  shutil.copyfile(tmp_path / "w.npy", tmp_path / "c" / "train" / "stored.npy")
  with pytest.raises(UserError):
    CachedLatents(folder=str(tmp_path / "c")).records("train")
  assert not canary.exists()


# -- recordings and archives


def wav(frames=800, **header):
  """A WAV file whose header may lie."""
  channels, size = header.get("channels", 1), header.get("size", 2 * frames)
  head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + size & 0xFFFFFFFF, b"WAVE", b"fmt ", 16, 1, channels, 8000,
                     16000 * channels & 0xFFFFFFFF, 2 * channels & 0xFFFF, 16)  # fmt: skip
  return head + struct.pack("<4sI", b"data", size) + bytes(2 * frames)


def hear(path):
  records = Audio(path=str(path), length=256, rate=8000).records("train")
  return [records[i]["x"] for i in range(len(records))]


@pytest.mark.parametrize("header", [{"size": 2**32 - 64}, {"channels": 1024}, {"channels": 65535, "size": 2**32 - 64}])
def test_headers_that_lie_take_no_memory(tmp_path, header, lean):
  for i in range(3):
    (tmp_path / f"{i}.wav").write_bytes(wav(**header))
  try:
    assert all(len(x) <= 800 for x in hear(tmp_path))
  except UserError as error:
    assert "\n" not in str(error)


def encrypted(data):
  """The archive with the mark of encryption on all of its members."""
  data = bytearray(data)
  for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
    start = data.find(mark)
    while start >= 0:
      data[start + place] |= 1
      start = data.find(mark, start + 4)
  return bytes(data)


def test_archives(tmp_path, monkeypatch, lean):
  monkeypatch.setattr("latents.data.audio.MEMBER", 1 << 20)
  plain = {f"train/{i}.wav": wav() for i in range(3)} | {"test/0.wav": wav()}

  def write(name, members):
    with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as file:
      for member, data in members.items():
        file.writestr(member, data)
    return tmp_path / name

  assert len(hear(write("plain.zip", plain))) == 3
  locked = tmp_path / "locked.zip"
  locked.write_bytes(encrypted(write("a.zip", plain).read_bytes()))
  with pytest.raises(UserError, match="corrupt zip member"):
    hear(locked)
  nested = {"inner.zip": (tmp_path / "plain.zip").read_bytes()}
  with pytest.raises(UserError, match="no audio files"):
    hear(write("nested.zip", nested))
  slip = plain | {f"{up}/train/evil.wav": wav() for up in ("..", "/tmp", "a/../..", "C:", ".hidden")}
  found = Audio(path=str(write("slip.zip", slip)), length=256, rate=8000).listing
  assert sorted(found.train + found.test) == sorted(plain)
  huge = plain | {"train/bomb.wav": bytes(4 << 20)}
  with pytest.warns(UserWarning, match=r"bomb.wav \(unpacks to more"):
    assert len(hear(write("huge.zip", huge))) == 3
  assert sorted(p.suffix for p in tmp_path.iterdir()) == [".zip"] * 6  # nothing was unpacked


def test_many_recordings_of_one_frame_count(tmp_path):
  soundfile.write(tmp_path / "a.wav", np.zeros(10), 8000)
  with pytest.raises(UserError):
    Audio(path=str(tmp_path), length=256, rate=8000).records("test")


# -- metadata of TFDS sets


@pytest.fixture
def prepared(tmp_path):
  """A copy of a prepared set, and a function that alters one of its JSON files."""
  shutil.copytree(os.path.dirname(os.path.dirname(sources.tfds().folder)), tmp_path / "tfds")
  inside = tmp_path / "tfds" / "pictures" / "1.0.0"

  def alter(name, change):
    tree = json.loads((inside / name).read_text())
    change(tree)
    (inside / name).write_text(json.dumps(tree))

  return inside, alter, lambda: Tfds(name="pictures", data_dir=str(tmp_path / "tfds"), size=16)


def test_classes_that_features_name_are_not_imported(prepared, monkeypatch):
  inside, alter, make = prepared
  (inside / "harmful.py").write_text(f"open({str(inside / 'canary')!r}, 'w')\n")
  monkeypatch.syspath_prepend(str(inside))

  def change(tree):
    tree["featuresDict"]["features"]["extra"] = {"pythonClassName": "harmful.Feature"}
    tree["featuresDict"]["features"]["name"]["pythonClassName"] = "harmful.Text"
    tree["pythonClassName"] = "harmful.FeaturesDict"

  alter("features.json", change)
  data = make()
  assert data.records("train")[0]["x"].shape[-1] == 3 and data.identity()
  assert not (inside / "canary").exists() and "harmful" not in sys.modules


@pytest.mark.parametrize(
  "template", ["../{DATASET}-{SPLIT}", "/etc/passwd", "{SPLIT.__class__}", "..", ".hidden", "a\0b", "{0}", "x\n"]
)
def test_names_of_shards_stay_in_the_folder(prepared, template):
  _, alter, make = prepared
  alter("dataset_info.json", lambda tree: tree["splits"][0].update(filepathTemplate=template))
  alter("dataset_info.json", lambda tree: tree["splits"][1].update(filepathTemplate=template))
  with pytest.raises(UserError, match=r"no plain file name|is missing"):
    make().records("train")


@pytest.mark.parametrize("name", ["../../../outside", "/etc/x", "a/b", "..", "\0"])
def test_the_label_feature_names_no_file_elsewhere(prepared, name, tmp_path):
  _, alter, make = prepared
  (tmp_path / "outside.labels.txt").write_text("secret\nwords\n")

  def change(tree):
    features = tree["featuresDict"]["features"]
    features[name] = features.pop("label")

  alter("features.json", change)
  assert make().names == ("0", "1")


def test_numbers_that_are_too_large(prepared, lean):
  inside, alter, make = prepared
  feature = lambda tree: tree["featuresDict"]["features"]["label"]["classLabel"]
  for value in ("999999999999", 10**9, "9" * 50_000, -1, 1.5, None):
    alter("features.json", lambda tree, value=value: feature(tree).update(numClasses=value))
    with pytest.raises(UserError):
      _ = make().names
  alter("features.json", lambda tree: feature(tree).update(numClasses="2"))
  for value in (["1" * 14], ["9" * 50_000], [-4], "12", [2**31], [3.0]):
    alter("dataset_info.json", lambda tree, value=value: tree["splits"][1].update(shardLengths=value))
    alter("dataset_info.json", lambda tree, value=value: tree["splits"][0].update(shardLengths=value))
    with pytest.raises(UserError):
      make().records("train")
  (inside / "features.json").write_bytes(b" " * (17 << 20))
  with pytest.raises(UserError, match="larger than 16 MiB"):
    _ = make().names


def test_a_shard_with_other_records_than_stated_is_refused(prepared):
  _, alter, make = prepared
  names = [s["name"] for s in json.loads((Path(make().folder) / "dataset_info.json").read_text())["splits"]]
  alter("dataset_info.json", lambda tree: tree["splits"][names.index("train")].update(shardLengths=["5"]))
  with pytest.raises(UserError, match=r"records, and dataset_info\.json says 5"):
    _ = make().records("train")[0]


# -- experiments and artefacts


@pytest.mark.parametrize(
  "place,value",
  [
    (("stage1", "steps"), "many"), (("stage1", "steps"), 1.5), (("stage1", "steps"), True), (("seed",), None),
    (("stage1", "optimizer", "betas"), [0.9]), (("stage1", "losses", "l2"), 3), (("name",), 7),
    (("stage1", "data"), "digits"), (("stage1", "optimizer", "schedule"), "linear"),
  ],
)  # fmt: skip
def test_a_stored_experiment_holds_what_its_fields_say(place, value):
  tree = json.loads(dumps(micro.experiment()))
  holder = tree
  for key in place[:-1]:
    holder = holder[key]
  holder[place[-1]] = value
  with pytest.raises(UserError, match=place[-1] if place[-1] != "l2" else "losses"):
    loads(json.dumps(tree), "experiment.json")


def test_a_stored_experiment_is_not_nested_without_end():
  tree = json.loads(dumps(micro.experiment()))
  for _ in range(600):
    tree["stage1"]["losses"] = [tree["stage1"]["losses"]]
  with pytest.raises(UserError, match="nested deeper than 60"):
    loads(json.dumps(tree), "experiment.json")


@pytest.mark.parametrize(
  "change",
  [
    {"statistics": None}, {"statistics": {"mean": [1.0]}}, {"statistics": {"mean": ["a"], "std": [1.0]}},
    {"statistics": {"mean": [0.0], "std": [0.0]}}, {"seconds": "long"}, {"address": None}, {"fingerprint": 3},
  ],
)  # fmt: skip
def test_facts_of_an_artefact_are_checked(tmp_path, change):
  facts = {"address": "a", "seconds": 1.0, "statistics": {"mean": [0.0], "std": [1.0]}}
  made = artefact.write(tmp_path, {"w": np.ones(2, np.float32)}, facts)
  assert artefact.read(tmp_path) is not None
  changed = {**made.facts, **change}
  if "fingerprint" not in change:
    changed["fingerprint"] = artefact.fingerprint(made.weights, changed)  # whoever alters facts can do that too
  artefact.write_json(tmp_path / artefact.FACTS, changed)
  with pytest.raises(UserError, match=r"facts|statistics|seconds"):
    artefact.read(tmp_path)

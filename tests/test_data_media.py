"""Sources of clips and of text, on made-up files, good and hostile ones."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from latents.data import Strips, Text, Topics, Video, batches, inspect, source
from latents.data.clips import natural
from latents.data.text import blocks, parts, topics, window
from latents.errors import UserError
from latents.media.video import animation

RNG = np.random.default_rng(0)


def levels(count, size=(10, 12), first=0):
  """Frames whose grey says their number."""
  return np.stack([np.full((*size, 3), 10 * (first + i), np.uint8) for i in range(count)])


def put_gif(path, frames):
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(path, "wb") as file:
    file.write(animation(frames, "GIF"))


def put_frames(folder, frames):
  os.makedirs(folder, exist_ok=True)
  for i, frame in enumerate(frames):
    Image.fromarray(frame).save(os.path.join(folder, f"frame{i}.png"))


@pytest.fixture
def clips(tmp_path):
  for split, count in (("train", 3), ("test", 2)):
    for i in range(count):
      put_gif(str(tmp_path / split / "up" / f"{i}.gif"), levels(6))
      put_frames(str(tmp_path / split / "down" / f"clip{i}"), levels(12)[::-1])
  return tmp_path


def test_clips_in_files_and_in_folders_of_frames(clips):
  data = Video(path=str(clips), frames=3, stride=2, size=8)
  train = data.records("train")
  assert data.names == ("down", "up") and data.shape == (3, 8, 8, 3)
  for i in range(len(train)):
    x = data.augment(train[i], np.random.default_rng(i), True)["x"]
    assert x.dtype == np.uint8 and x.shape == data.shape
    steps = np.diff(x[:, 0, 0, 0].astype(int))
    assert set(steps) == ({20} if train[i]["label"] == 1 else {-20})  # in order, two frames apart
  still = data.augment(train[0], np.random.default_rng(0), False)["x"]
  np.testing.assert_array_equal(still, data.augment(train[0], np.random.default_rng(9), False)["x"])
  assert len(data.records("test")) == 4


def test_frames_are_sorted_as_numbers():
  assert sorted(["f10.png", "f2.png", "f1.png"], key=natural) == ["f1.png", "f2.png", "f10.png"]


def test_long_clips_are_cut_and_short_ones_held(tmp_path):
  put_gif(str(tmp_path / "train" / "long.gif"), levels(20))
  put_gif(str(tmp_path / "test" / "short.gif"), levels(2))
  data = Video(path=str(tmp_path), frames=4, size=8, flip=False)
  parts_ = [data.records("train")[i]["x"] for i in range(len(data.records("train")))]
  assert [len(p) for p in parts_] == [7, 6, 7]  # 20 frames are more than four spans of 4: at most 8 each, disjoint
  np.testing.assert_array_equal(np.concatenate([p[:, 0, 0, 0] for p in parts_]), 10 * np.arange(20))
  held = data.augment(data.records("test")[0], np.random.default_rng(0), False)["x"]
  np.testing.assert_array_equal(held[:, 0, 0, 0], [0, 10, 10, 10])


def test_broken_clips_are_named_and_left_out(clips):
  train = clips / "train" / "up"
  put_gif(str(train / "one.gif"), levels(1))
  (train / "empty.gif").write_bytes(b"")
  (train / "text.webp").write_bytes(b"no picture at all")
  whole = (train / "0.gif").read_bytes()
  (train / "cut.gif").write_bytes(whole[: len(whole) // 3])
  put_frames(str(clips / "train" / "down" / "single"), levels(1))
  put_frames(str(clips / "train" / "down" / "broken"), levels(3))
  (clips / "train" / "down" / "broken" / "frame1.png").write_bytes(b"\x89PNG")
  with pytest.warns(UserWarning, match="skipped 6 files"):
    records = Video(path=str(clips), frames=3, size=8).records("train")
  assert len(records.skipped) == 6 and "one frame" in " ".join(records.skipped)
  assert all(
    word in " ".join(records.skipped) for word in ("empty.gif", "text.webp", "cut.gif", "single", "frame1.png")
  )
  assert all(records[i]["x"].shape[-1] == 3 for i in range(len(records)))


def test_folders_without_clips_are_one_line(tmp_path):
  for path in (tmp_path, tmp_path / "none"):
    with pytest.raises(UserError, match=r"no clips|no such folder"):
      Video(path=str(path)).records("train")
  put_frames(str(tmp_path / "sub" / "single"), levels(1))
  with pytest.raises(UserError, match="one frame is no clip"):
    Video(path=str(tmp_path)).records("train")


def test_clips_of_another_place_are_the_same_and_other_clips_are_not(clips, tmp_path_factory):
  import shutil

  other = tmp_path_factory.mktemp("other") / "there"
  shutil.copytree(clips, other)
  one, two = Video(path=str(clips)), Video(path=str(other), size=16, frames=2)
  assert one.identity() == two.identity()
  put_frames(str(other / "train" / "down" / "clip0"), levels(13))  # one frame more
  assert Video(path=str(other)).identity() != one.identity()


def test_video_batches_and_inspection(clips, tmp_path):
  data = source(f"video:{clips}", frames=3, size=8)
  with batches(data, split="train", batch=4, seed=0) as stream:
    batch = next(stream)
  assert batch["x"].shape == (4, 3, 8, 8, 3) and batch["x"].dtype == np.uint8 and batch["label"].shape == (4,)
  found = inspect(data, str(tmp_path / "x.png"))
  assert found["kind"] == "video" and len(found["mean"]) == 3 and json.dumps(found)
  with pytest.raises(UserError, match="stride must be"):
    source(f"video:{clips}", stride=0)


def test_strips_are_cut_into_square_frames(strips):
  data = Strips(name="strips", data_dir=strips, size=8, frames=3, flip=False)
  train = data.records("train")
  assert data.kind == "video" and data.shape == (3, 8, 8, 3) and len(train)
  x = train[0]["x"]
  assert x.shape == (5, 8, 8, 3)
  np.testing.assert_allclose(x[:, 4, 4, 0], 10 * np.arange(5) + 20, atol=3)
  assert all("one frame" in line for line in train.skipped) and len(train.skipped) + len(train) >= 8


@pytest.fixture
def strips(tmp_path):
  from latents.data import prepare

  for i in range(12):
    frames = levels(5 if i else 1, (16, 16), first=2)
    strip = np.concatenate(list(frames), 1)
    os.makedirs(tmp_path / "pictures", exist_ok=True)
    Image.fromarray(strip).save(tmp_path / "pictures" / f"{i}.png")
  prepare(str(tmp_path / "pictures"), "strips", str(tmp_path / "tfds"))
  return str(tmp_path / "tfds")


def test_text_of_a_folder_keeps_bytes_and_documents_apart(tmp_path):
  for i in range(12):
    (tmp_path / f"{i}.txt").write_bytes(bytes([100 + i]) * (500 if i else 5))
  (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00" * 100)  # no UTF-8, and still text as far as bytes go
  (tmp_path / "empty.txt").write_bytes(b"")
  data = Text(path=str(tmp_path), length=40)
  seen = {}
  skipped = 0
  for split in ("train", "test"):
    records = data.records(split)
    skipped += len(records.skipped)
    seen[split] = set()
    for i in range(len(records)):
      x = data.augment(records[i], np.random.default_rng(i), True)["x"]
      assert x.shape == (40,) and x.dtype == np.int32 and x.min() >= 0 and x.max() < 256
      assert len(set(x.tolist()) - {10}) in (1, 3)  # of one document alone
      seen[split] |= set(x.tolist()) - {10}
  assert skipped == 1 and not seen["train"] & seen["test"]
  assert seen["train"] | seen["test"] == {100 + i for i in range(12)} | {0xFF, 0xFE, 0}


def test_one_file_is_split_in_blocks_that_share_no_byte(tmp_path):
  path = tmp_path / "book"
  path.write_bytes(RNG.integers(0, 256, 10_001).astype(np.uint8).tobytes())
  covered = np.zeros(10_001, int)
  for split in ("train", "test"):
    for _, start, count in blocks(str(path), 64, split):
      assert count >= 64
      covered[start : start + count] += 1
  assert (covered == 1).all()
  data = Text(path=str(path), length=64)
  assert len(data.records("test")) and len(data.records("train")) > len(data.records("test"))
  assert Text(path=str(path), length=32).identity() == data.identity()
  short = tmp_path / "short"
  short.write_bytes(b"abc")  # shorter than a window: one block, which is trained on
  x = Text(path=str(short), length=8)
  assert bytes(x.augment(x.records("train")[0], RNG, False)["x"].tolist()) == b"abc\n\n\n\n\n"
  with pytest.raises(UserError, match="no text for the test split"):
    x.records("test")
  short.write_bytes(b"")
  with pytest.raises(UserError, match="no text"):
    x.records("train")
  with pytest.raises(UserError, match="no such folder"):
    Text(path=str(tmp_path / "none")).records("train")


def test_windows_of_text():
  example = {"x": np.arange(10, dtype=np.int32)}
  assert window(example, 4, RNG, False)["x"].tolist() == [3, 4, 5, 6]
  starts = {int(window(example, 4, np.random.default_rng(i), True)["x"][0]) for i in range(60)}
  assert starts == set(range(7))
  assert parts([("a", 5, 20)], 4) == [("a", 5, 7), ("a", 12, 6), ("a", 18, 7)]


def test_topics_are_of_this_python_and_never_shared():
  data = Topics(length=32)
  train, test = data.records("train"), data.records("test")
  assert len(train) / max(1, len(test)) * 4 > 20 and len(test) > 20
  assert data.identity() == Topics(length=64).identity() and "assert" in topics()
  assert bytes(train[0]["x"][:200].tolist()).isascii()

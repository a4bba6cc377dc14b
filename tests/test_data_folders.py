"""Folders as strangers bring them: links, locked folders, our own outputs, splits by many names, other endings."""

import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from latents import media
from latents.data import Audio, Folder, Text, Video, inspect, save_png
from latents.data.listing import arrange, kind_of
from latents.data.walk import look, unread
from latents.errors import UserError
from latents.media.mark import marked


def paint(folder: Path, count: int = 6, form: str = "png", first: int = 0) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  for i in range(first, first + count):
    picture = np.random.default_rng(i).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / f"{i}.{form}")


def opened(source):
  """(the source with its listing read, the warnings of that)."""
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert source.listing
  return source, [str(w.message) for w in caught]


def pictures(path) -> tuple[Folder, list[str]]:
  return opened(Folder(path=str(path), size=8))


# -- links, locked folders


def test_links_to_folders_are_followed_and_none_is_entered_twice(tmp_path):
  paint(tmp_path / "elsewhere" / "cats")
  paint(tmp_path / "in" / "dogs")
  (tmp_path / "in" / "cats").symlink_to(tmp_path / "elsewhere" / "cats")
  data, said = pictures(tmp_path / "in")
  assert data.names == ("cats", "dogs") and said == []
  assert sum(len(data.records(split)) for split in ("train", "test")) == 12
  (tmp_path / "in" / "dogs" / "loop").symlink_to(tmp_path / "in")
  (tmp_path / "in" / "up").symlink_to(tmp_path)
  (tmp_path / "in" / "animals").symlink_to(tmp_path / "in" / "dogs")
  (tmp_path / "in" / "gone").symlink_to(tmp_path / "nowhere")
  (tmp_path / "in" / "self").symlink_to(tmp_path / "in" / "self")
  again, (line,) = pictures(tmp_path / "in")
  assert again.listing.train == data.listing.train and again.names == data.names
  for words in (
    "animals (a link to the same folder as dogs)",
    "dogs/loop (a link back to a folder above)",
    "up (a link back to a folder above)",
    "gone (a link that leads nowhere)",
    "self (",
  ):
    assert words in line


def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
  for name in ("cats", "dogs", "owls"):
    paint(tmp_path / name)
  scandir = os.scandir

  def locked(path):  # the tests may run as root, whom nothing is forbidden
    if str(path).rstrip("/").endswith("owls"):
      raise PermissionError(13, "Permission denied")
    return scandir(path)

  monkeypatch.setattr(os, "scandir", locked)
  data, (line,) = pictures(tmp_path)
  assert data.names == ("cats", "dogs") and "left out: owls (permission denied)" in line
  with pytest.raises(UserError, match=r"cannot read .*owls: Permission denied"):
    pictures(tmp_path / "owls")


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
  paint(tmp_path)
  os.mkfifo(tmp_path / "pipe.png")
  data, (line,) = pictures(tmp_path)
  assert len(data.listing.train + data.listing.test) == 6 and "pipe.png (no regular file)" in line


# -- our own outputs


def test_runs_and_their_like_are_no_data(tmp_path):
  for name in ("cats", "dogs"):
    paint(tmp_path / name)
  paint(tmp_path / "runs" / "digits")
  (tmp_path / "runs" / "digits" / "experiment.json").write_text('{"!": "latents.declare:Experiment"}')
  paint(tmp_path / "sweep")
  paint(tmp_path / "stage")
  for name in ("sweep/table.json", "sweep/verdict.json", "stage/artefact.json", "stage/weights.safetensors"):
    (tmp_path / name).touch()
  data, (line,) = pictures(tmp_path)
  assert data.names == ("cats", "dogs") and len(data.listing.train + data.listing.test) == 12
  for words in ("runs/digits (a run of latents)", "sweep (a sweep of latents)", "stage (a trained stage of latents)"):
    assert words in line
  with pytest.raises(UserError, match="runs/digits is a run of latents, which is no data"):
    pictures(tmp_path / "runs" / "digits")
  with pytest.raises(UserError, match=r"no image files in .*runs; left out: digits \(a run of latents\)"):
    pictures(tmp_path / "runs")
  (tmp_path / "dogs" / "experiment.json").write_text('{"title": "of another program"}')
  assert pictures(tmp_path)[0].names == ("cats", "dogs")


def test_a_look_at_data_does_not_change_them(tmp_path):
  for name in ("cats", "dogs"):
    paint(tmp_path / name)
  source, _ = pictures(tmp_path)
  before = source.identity()
  assert inspect(source, str(tmp_path / "data.png"))["classes"] == 2
  again, (line,) = pictures(tmp_path)
  assert again.identity() == before and again.names == ("cats", "dogs")
  assert line.endswith("left out: data.png (made by latents)")


def test_every_file_that_we_write_for_people_is_marked(tmp_path):
  rng = np.random.default_rng(0)
  clips = rng.uniform(-1, 1, (3, 4, 40, 40, 3)).astype(np.float32)
  for suffix in (".gif", ".webp", ".png"):
    media.kind("video").write(tmp_path / f"x{suffix}", clips, None, None)
  for suffix in (".wav", ".flac"):
    media.kind("audio").write(tmp_path / f"x{suffix}", rng.uniform(-1, 1, (2, 9000, 1)), None, 8000)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["x.flac", "x.gif", "x.png", "x.wav", "x.webp"]
  assert all(marked(str(path)) for path in tmp_path.iterdir())
  picture = (rng.uniform(size=(30, 30, 3)) * 255).astype(np.uint8)
  save_png(picture, tmp_path / "y.png")
  np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "y.png")), picture)
  Image.fromarray(picture).save(tmp_path / "z.png")
  assert marked(str(tmp_path / "y.png")) and not marked(str(tmp_path / "z.png"))
  samples, rate = soundfile.read(tmp_path / "x.wav")
  assert rate == 8000 and len(samples) == 18000


# -- splits


@pytest.mark.parametrize(
  "train,test",
  [
    ("Train", "Test"),
    ("TRAIN", "test"),
    ("training", "testing"),
    ("Training", "Validation"),
    ("train", "Val"),
    ("train2017", "val2017"),
    ("train_images", "test_images"),
    ("train-set", "dev set"),
    ("train", "eval"),
    ("train", "test1"),
  ],
)
@pytest.mark.parametrize("above", ["", "archive/", "a/b/"])
def test_splits_by_their_common_names(train, test, above):
  found = [f"{above}{split}/{name}/{i}.png" for split in (train, test) for name in ("cat", "dog") for i in range(5)]
  made = arrange("x", found, [], "files")
  assert set(made.train) == {n for n in found if n.startswith(f"{above}{train}/")}
  assert set(made.test) == {n for n in found if n.startswith(f"{above}{test}/")}
  assert made.names == ("cat", "dog") and made.label(f"{above}{test}/dog/1.png") == 1
  where = f"in {above[:-1]}; " if above else ""
  assert made.told and not made.why and made.line() == f"{where}train: {train}; test: {test}"


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_what_is_as_usual_needs_no_word(test):
  made = arrange("x", tree(*(f"{split}/{name}" for split in ("train", test) for name in ("cat", "dog"))), [], "files")
  assert not made.told and made.line() == f"train: train; test: {test}"
  assert not arrange("x", tree("cat", "dog"), [], "files").told


def tree(*parts: str, count: int = 10) -> list[str]:
  return [f"{part}/{i}.png" for part in parts for i in range(count)]


@pytest.mark.parametrize("name", ["cat", "trains", "training shoes", "testtube", "evaluator", "devon", "", "2017"])
def test_other_names_are_no_splits(name):
  assert kind_of(name) == ""


def test_train_alone_keeps_its_labels_and_gives_a_tenth():
  made = arrange("x", tree("train/cat", "train/dog", count=40), [], "files")
  assert made.names == ("cat", "dog") and made.told and 1 <= len(made.test) < 20
  held = f"no folders of both splits: {len(made.test)} of 80 are held out by a hash of their names"
  assert made.line() == f"in train; {held}"
  stray = arrange("x", [*tree("Train/cat", "Train/dog"), "sheet.png"], [], "files")
  assert stray.names == ("cat", "dog") and "sheet.png" not in stray.train + stray.test
  assert "not used: beside the folders (1 file)" in stray.line()


def test_a_lone_top_folder_is_unwrapped():
  made = arrange("x", tree("photos/cat", "photos/dog"), [], "files")
  assert made.names == ("cat", "dog") and made.told and made.line().startswith("in photos; ")
  assert arrange("x", tree("train/images/cat", "train/images/dog", "val/images/cat"), [], "files").names == (
    "cat",
    "dog",
  )


def test_a_file_beside_a_lone_folder_does_not_hide_its_splits():
  made = arrange("x", [*tree("set/Train/a", "set/Train/b", "set/Test/a"), "cover.png"], [], "files")
  assert made.names == ("a", "b") and all("/Test/" in n for n in made.test) and len(made.train) == 20
  assert made.line() == "in set; train: Train; test: Test; not used: beside the folders (1 file)"


def test_splits_inside_the_classes():
  found = tree("cat/train", "cat/test", "dog/Train", "dog/test", "dog/val")
  made = arrange("x", found, [], "files")
  assert set(made.test) == {n for n in found if "/test/" in n} and made.names == ("cat", "dog")
  assert set(made.train) == {n for n in found if "/train/" in n.lower()}
  assert made.label("dog/test/1.png") == 1 and made.told and "not used: dog (10 files)" in made.line()


def test_what_is_not_used_is_named():
  made = arrange("x", [*tree("train/a", "train/b", "test/a", "val/a", "extra"), "cover.png"], [], "files")
  assert len(made.train) == 20 and len(made.test) == 10
  assert (
    made.line() == "train: train; test: test; not used: beside the folders (1 file), extra (10 files), val (10 files)"
  )


def test_a_test_folder_without_classes_gives_way_to_the_validation_set():
  made = arrange("x", tree("train/a", "train/b", "val/a", "val/b", "test"), [], "files")
  assert made.names == ("a", "b") and len(made.test) == 20 and all(n.startswith("val/") for n in made.test)
  assert "not used: test (10 files)" in made.line()


def test_a_test_folder_beside_classes_is_not_trained_on():
  made = arrange("x", tree("cat", "dog", "test"), [], "files")
  assert made.names == ("cat", "dog") and not any(n.startswith("test/") for n in made.train + made.test)
  assert "not used: test (10 files)" in made.line()
  assert arrange("x", tree("car", "train", "bus"), [], "files").names == ("bus", "car", "train")  # vehicles


def test_why_there_are_no_labels():
  flat = arrange("x", [f"{i}.png" for i in range(9)], [], "files")
  assert flat.why == "all files lie in one folder, with no folders of classes" and not flat.missed
  mixed = arrange("x", [*tree("cat", "dog"), "cover.png"], [], "files")
  assert mixed.names == () and mixed.missed
  assert mixed.why == "1 of 21 files lie outside the folders of classes, such as cover.png"


def test_the_line_is_said_once_and_stands_in_the_look_at_data(tmp_path):
  for part in ("Train/cat", "Train/dog", "Test/cat", "extra"):
    paint(tmp_path / part)
  data, said = pictures(tmp_path)
  assert said == [f"{tmp_path}: train: Train; test: Test; not used: extra (6 files)"]
  assert data.names == ("cat", "dog") and [len(data.records(s)) for s in ("train", "test")] == [12, 6]
  found = inspect(data, str(tmp_path.parent / "look.png"))
  assert found["note"] == "train: Train; test: Test; not used: extra (6 files)"


# -- endings


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JPE", "avif", "dib", "pbm", "apng"])
def test_pictures_of_every_ending_are_read(tmp_path, ending):
  forms = {"jfif": "JPEG", "jpe": "JPEG", "dib": "DIB", "pbm": "PPM", "apng": "PNG"}
  for i in range(4):
    image = Image.fromarray(np.random.default_rng(i).integers(0, 256, (12, 12, 3), dtype=np.uint8))
    image = image.convert("1") if ending == "pbm" else image
    image.save(tmp_path / f"{i}.{ending}", format=forms.get(ending.lower(), "AVIF"))
  data, said = pictures(tmp_path)
  assert said == [] and sum(len(data.records(s)) for s in ("train", "test")) == 4
  assert data.records("train")[0]["x"].shape == (8, 8, 3)


def test_endings_that_are_not_read_are_counted_and_named(tmp_path):
  paint(tmp_path)
  for name in ("a.heic", "b.HEIC", "c.jp2", "scan", "README", "notes.txt", "labels.csv", ".DS_Store"):
    (tmp_path / name).touch()
  data, (line,) = pictures(tmp_path)
  assert line.endswith(
    "left out: 2 .heic, 1 .jp2, 1 without an ending (endings that are not read)" + f"; no labels: {data.listing.why}"
  )
  with pytest.raises(UserError, match=r"no image files in .*; left out: 1 \.heic"):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.heic").touch()
    pictures(tmp_path / "in")
  assert unread(["x.md", "LICENSE"]) == []


def test_endings_of_sound(tmp_path):
  for name in ("a.wave", "b.W64", "c.aifc", "d.oga", "e.caf", "f.wav"):
    form = {"wave": "WAV", "w64": "W64", "aifc": "AIFF", "oga": "OGG", "caf": "CAF", "wav": "WAV"}[name[2:].lower()]
    soundfile.write(tmp_path / name, 0.1 * np.ones(900), 8000, format=form)
  (tmp_path / "g.m4a").touch()
  data, (line,) = opened(Audio(path=str(tmp_path), length=100, rate=8000))
  assert len(data.listing.train + data.listing.test) == 6 and "1 .m4a (endings that are not read)" in line
  assert sum(len(data.records(split)) for split in ("train", "test")) >= 6


def test_other_kinds_name_what_they_leave_out(tmp_path):
  paint(tmp_path / "walk")
  paint(tmp_path / "run")
  paint(tmp_path, count=2)
  (tmp_path / "film.mp4").touch()
  (tmp_path / "a.txt").write_text("text")
  (tmp_path / "b.doc").touch()
  _, (line,) = opened(Video(path=str(tmp_path), frames=2, size=8))
  assert "2 pictures that lie in no folder of frames" in line and "1 .doc, 1 .mp4 (endings that are not read)" in line
  _, (line,) = opened(Text(path=str(tmp_path), length=4))
  assert "14 .png, 1 .doc, 1 .mp4 (endings that are not read)" in line


def test_a_file_is_no_folder(tmp_path):
  (tmp_path / "x.zip").touch()
  with pytest.raises(UserError, match=r"x\.zip is a file, not a folder"):
    look(str(tmp_path / "x.zip"))


# -- zips of sound


def pack(path: Path, *parts: str) -> None:
  import io

  with zipfile.ZipFile(path, "w") as file:
    for k, part in enumerate(parts):
      for i in range(4):
        buffer = io.BytesIO()
        soundfile.write(buffer, 0.1 * np.sin(np.arange(500 + k) * 0.1 * (i + 1)), 8000, format="WAV")
        file.writestr(f"{part}/{i}.wav", buffer.getvalue())


def sound(path) -> tuple[Audio, list[str]]:
  return opened(Audio(path=str(path), length=1000, rate=8000))


def test_a_zip_with_one_top_folder(tmp_path):
  pack(tmp_path / "x.zip", "set/Train/cat", "set/Train/dog", "set/Test/cat", "set/Test/dog", "__MACOSX/set/._x")
  data, _ = sound(tmp_path / "x.zip")
  assert data.names == ("cat", "dog") and len(data.listing.train) == len(data.listing.test) == 8
  pack(tmp_path / "y.zip", "recordings/cat", "recordings/dog")
  assert sound(tmp_path / "y.zip")[0].names == ("cat", "dog")


def test_a_zip_in_capitals_and_beside_other_files(tmp_path):
  pack(tmp_path / "X.ZIP", "cat", "dog")
  assert sound(tmp_path)[0].names == ("cat", "dog")
  (tmp_path / "README.md").write_text("about")
  (tmp_path / "cover.jpg").touch()
  data, _ = sound(tmp_path)
  assert data.names == ("cat", "dog") and len(data.records("train")) + len(data.records("test")) == 8
  pack(tmp_path / "y.zip", "cat", "dog")
  with pytest.raises(UserError, match=r"holds 2 zip files: name one, such as .*X\.ZIP"):
    sound(tmp_path)
  (tmp_path / "y.zip").unlink()
  soundfile.write(tmp_path / "a.wav", np.zeros(99), 8000)
  soundfile.write(tmp_path / "b.wav", np.zeros(99), 8000)
  assert set(sound(tmp_path)[0].listing.train + sound(tmp_path)[0].listing.test) == {"a.wav", "b.wav"}


def test_labels_in_file_names_are_said_and_not_missed(tmp_path):
  for split in ("train", "test"):
    (tmp_path / split).mkdir()
    for i in range(6):
      soundfile.write(tmp_path / split / f"{i % 2}_ann_{i}.wav", np.full(99, 0.1 * (i + 1)), 8000)
  data, said = sound(tmp_path)
  assert data.names == ("0", "1") and said == []
  assert data.note == "train: train; test: test; labels: what stands before the first _ of the file names"


@pytest.mark.parametrize("seed", range(60))
def test_any_tree_is_parted_without_a_file_in_both_or_a_test_file_in_training(seed):
  rng = np.random.default_rng(seed)
  words = ("train", "Test", "val", "cat", "dog", "images", "testing", "Training")
  found = set()
  for i in range(int(rng.integers(1, 40))):
    folders = [words[rng.integers(len(words))] for _ in range(rng.integers(4))]
    found.add("/".join([*folders, f"{i}.png"]))
  made = arrange("x", found, [], "files")
  train, test = set(made.train), set(made.test)
  assert not train & test and train | test <= found and train
  assert ("not used" in made.line()) == (train | test != found)
  assert list(made.train) == sorted(train) and bool(made.names) == (not made.why)
  for name in made.train + made.test:
    label = made.label(name)
    assert label is None if not made.names else 0 <= label < len(made.names)
  if "train: " in made.line():  # folders of splits were found
    assert not any({kind_of(f) for f in n.split("/")[:-1]} == {"test"} for n in made.train)

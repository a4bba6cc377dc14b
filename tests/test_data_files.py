"""Folders, prepared sets and recordings as users have them: mixed, broken, cut, empty, hostile."""

import io
import json
import os
import struct
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from latents.data import Audio, Folder, Tfds, batches, inspect, load_image, prepare
from latents.data.audio import around, mono
from latents.data.images import read_image
from latents.data.loader import evaluation_batches
from latents.data.source import Broken, held_out
from latents.errors import UserError


def noise(width, height, seed=0, channels=3):
  return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()


def pictures(folder, count=20, size=(40, 30), form="png"):
  os.makedirs(folder, exist_ok=True)
  for i in range(count):
    Image.fromarray(noise(*size, seed=i)).save(os.path.join(folder, f"{i:03}.{form}"))


def bomb(path, side=50_000):
  """A PNG of a few bytes that claims side x side pixels."""

  def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

  header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
  body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
  Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + body)


# -- decoding


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "HSV", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_eight_bits(tmp_path, mode, channels):
  grey = np.linspace(0, 255, 48, dtype=np.uint8).reshape(6, 8)
  if mode == "I;16":
    image = Image.fromarray(grey.astype(np.uint16) * 257)
  else:
    image = Image.fromarray(grey) if mode == "P" else Image.fromarray(np.repeat(grey[..., None], 3, -1))
    image = image.convert(mode)
  form = {"CMYK": "tiff", "HSV": "tiff", "YCbCr": "tiff"}.get(mode, "png")
  path = str(tmp_path / f"x.{form}")
  try:
    image.save(path)
  except OSError:  # this PIL writes no TIFF of the mode: nobody has such a file
    image.convert("RGB").save(path)
  x = read_image(path, channels)
  assert x.shape == (6, 8, channels) and x.dtype == np.uint8
  if mode != "1":
    assert np.abs(x.astype(int) - grey[..., None]).max() <= 2


def test_transparency_lies_on_white_and_exif_is_obeyed(tmp_path):
  rgba = np.zeros((4, 4, 4), np.uint8)
  rgba[:2, :, 3] = 255
  Image.fromarray(rgba).save(tmp_path / "a.png")
  x = read_image(str(tmp_path / "a.png"))
  assert (x[:2] == 0).all() and (x[2:] == 255).all()
  image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
  exif = Image.Exif()
  exif[0x0112] = 6  # to be turned clockwise
  image.save(tmp_path / "b.png", exif=exif)
  assert read_image(str(tmp_path / "b.png"), 1).shape == (3, 2, 1)


def test_load_image(tmp_path):
  path = tmp_path / "x.png"
  Image.fromarray(noise(50, 40)).save(path)
  x = load_image(path)
  assert x.shape == (40, 50, 3) and x.dtype == np.float32 and x.min() >= -1 and x.max() <= 1
  np.testing.assert_allclose((x + 1) * 127.5, noise(50, 40), atol=1e-4)
  assert load_image(path, size=16, channels=1).shape == (16, 16, 1)
  assert load_image(path, size=(100, 33)).shape == (100, 33, 3)
  path.write_bytes(path.read_bytes()[:400])
  with pytest.raises(UserError, match="truncated or corrupt"):
    load_image(path)
  with pytest.raises(UserError, match="no such file"):
    load_image(tmp_path / "y.png")


def deep(path, values):
  Image.fromarray(np.asarray(values, np.int32)).save(path)


def test_integers_of_32_bits_are_on_one_scale_and_beyond_it_refused(tmp_path):
  dark, bright = np.arange(0, 256).reshape(16, 16), np.arange(0, 65_536, 256).reshape(16, 16)
  for name, values in (("dark", dark), ("bright", bright)):
    deep(tmp_path / f"{name}.tiff", values)
    expected = np.round(values / 257)
    np.testing.assert_array_equal(read_image(str(tmp_path / f"{name}.tiff"), 1)[..., 0], expected)
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / f"{name}.png")  # 16 bits: the same scale
    np.testing.assert_array_equal(read_image(str(tmp_path / f"{name}.png"), 1)[..., 0], expected)
  for name, beyond in (("above", 65_536), ("far", 2**31 - 1), ("below", -1)):
    deep(tmp_path / f"{name}.tiff", bright + np.eye(16, dtype=np.int64) * (beyond - bright))
    with pytest.raises(Broken, match="32-bit pixels outside 0 to 65535 have no known range"):
      read_image(str(tmp_path / f"{name}.tiff"))
  pictures(tmp_path, 20)
  with pytest.warns(UserWarning, match=r"skipped .*tiff \(32-bit pixels outside"):
    records = [Folder(path=str(tmp_path), size=8).records(split) for split in ("train", "test")]
  assert sum(map(len, records)) == 24 and sum(len(r.skipped) for r in records) == 3


@pytest.mark.parametrize("packed", [True, False])
def test_a_png_with_much_text_is_read(tmp_path, packed):
  about = PngInfo()
  about.add_itxt("XML:com.adobe.xmp", "x" * (3 << 20), zip=packed)
  about.add_text("Raw profile", "y" * (2 << 20), zip=packed)
  Image.fromarray(noise(20, 10)).save(tmp_path / "x.png", pnginfo=about)
  np.testing.assert_array_equal(read_image(str(tmp_path / "x.png")), noise(20, 10))


def test_a_damaged_exif_mark_turns_nothing(tmp_path):
  Image.fromarray(noise(20, 10)).save(tmp_path / "x.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xffbroken")
  assert read_image(str(tmp_path / "x.png")).shape == (10, 20, 3)


def test_a_strip_is_left_out_by_the_look_and_no_neighbour_is_scored_for_it(tmp_path):
  pictures(tmp_path, 20)
  for i in range(4):
    Image.fromarray(np.full((1, 20_000 + i), 99, np.uint8)).save(tmp_path / f"strip{i}.png")
  seen = []
  with pytest.warns(UserWarning, match=r"skipped \d files: strip\d.png \(2000\d x 1 would be more than"):
    for split in ("train", "test"):
      with evaluation_batches(Folder(path=str(tmp_path), size=64), split=split, batch=8) as stream:
        seen += [x.tobytes() for batch in stream for x in batch["x"][batch["mask"]]]
  assert len(seen) == len(set(seen)) == 20
  assert len(Folder(path=str(tmp_path), size=32).records("train").skipped) == 0


# -- folders


def test_folder_of_mixed_and_broken_files(tmp_path):
  pictures(tmp_path / "cats", 12)
  pictures(tmp_path / "dogs", 12, size=(20, 70), form="jpg")
  Image.fromarray(noise(9, 9, channels=1)).save(tmp_path / "cats" / "tiny.png")
  whole = (tmp_path / "dogs" / "003.jpg").read_bytes()
  (tmp_path / "dogs" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
  (tmp_path / "dogs" / "text.png").write_text("not a picture")
  (tmp_path / "dogs" / "empty.jpg").write_bytes(b"")
  (tmp_path / "dogs" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
  (tmp_path / "dogs" / "notes.txt").write_text("left alone")
  bomb(tmp_path / "cats" / "bomb.png")
  data = Folder(path=str(tmp_path), size=24)
  assert data.names == ("cats", "dogs") and data.classes == 2
  skipped, count = [], 0
  for split in ("train", "test"):
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter("always")
      records = data.records(split)
    assert len(caught) == (1 if records.skipped else 0)
    if records.skipped:
      assert f"skipped {len(records.skipped)} files" in str(caught[0].message)
    skipped += records.skipped
    count += len(records)
    for i in range(len(records)):
      assert data.augment(records[i], np.random.default_rng(i), True)["x"].shape == (24, 24, 3)
  assert count == 25
  assert sorted(line.split(" ")[0] for line in skipped) == [
    "cats/bomb.png",
    "dogs/cut.jpg",
    "dogs/empty.jpg",
    "dogs/gone.jpg",
    "dogs/text.png",
  ]
  assert any("million pixels" in line or "the limit" in line for line in skipped)


def test_folder_without_resize_leaves_small_pictures_out(tmp_path):
  pictures(tmp_path, 10)
  for i in range(4):
    Image.fromarray(noise(10, 50, seed=90 + i)).save(tmp_path / f"small{i}.png")
  with pytest.warns(UserWarning, match="smaller than the crop"):
    records = [Folder(path=str(tmp_path), size=24, resize=False).records(s) for s in ("train", "test")]
  assert sum(len(r) for r in records) == 10
  with pytest.raises(UserError, match="smaller than the crop of 64"):
    Folder(path=str(tmp_path), size=64, resize=False).records("train")


def test_folder_that_is_empty_or_missing(tmp_path):
  with pytest.raises(UserError, match="no image files"):
    Folder(path=str(tmp_path)).records("train")
  with pytest.raises(UserError, match="no such folder"):
    Folder(path=str(tmp_path / "x")).records("train")
  pictures(tmp_path, 1)
  with pytest.raises(UserError, match="other split"):
    Folder(path=str(tmp_path)).records("test")


def test_split_folders_are_the_splits(tmp_path):
  for part, count in (("train", 6), ("val", 2)):
    for name in ("a", "b"):
      pictures(tmp_path / part / name, count, size=(16 + count, 16))
  data = Folder(path=str(tmp_path), size=16)
  assert data.names == ("a", "b")
  assert [len(data.records(s)) for s in ("train", "test")] == [12, 4]
  assert [int(data.records("test")[i]["label"]) for i in range(4)] == [0, 0, 1, 1]


def test_held_out_is_about_a_tenth_and_stays_when_files_are_added():
  names = [f"{i}.png" for i in range(2000)]
  chosen = held_out(names)
  assert 150 < sum(chosen) < 250
  assert held_out(names[:1000]) == chosen[:1000]
  assert sum(held_out(["a", "b"])) == 1


def test_a_file_that_breaks_later_is_replaced(tmp_path):
  pictures(tmp_path, 8)
  data = Folder(path=str(tmp_path), size=16)
  records = data.records("train")
  first = data.listing.train[0]
  (tmp_path / first).write_bytes(b"gone")
  with pytest.warns(UserWarning, match="replaced by the next"):
    example = records[0]
  np.testing.assert_array_equal(example["x"], records[1]["x"])


# -- TFDS


def test_prepare_then_read(tmp_path):
  pictures(tmp_path / "in" / "a", 8, form="jpg")
  pictures(tmp_path / "in" / "b", 8, size=(33, 44))
  Image.fromarray(noise(30, 30, channels=4)).save(tmp_path / "in" / "b" / "alpha.png")
  (tmp_path / "in" / "b" / "bad.jpg").write_bytes(b"\xff\xd8 no")
  with pytest.warns(UserWarning, match="skipped 1 files: b/bad.jpg"):
    made = prepare(str(tmp_path / "in"), "mine", str(tmp_path / "out"))
  assert made["train"] + made["test"] == 17 and made["classes"] == ("a", "b") and len(made["skipped"]) == 1
  data, folder = (
    Tfds(name="mine", data_dir=str(tmp_path / "out"), size=24),
    Folder(path=str(tmp_path / "in"), size=24),
  )
  assert data.names == ("a", "b")
  for split in ("train", "test"):
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      ours, theirs = data.records(split), folder.records(split)
    found = sorted((int(ours[i]["label"]), ours[i]["x"].tobytes()) for i in range(len(ours)))
    wanted = sorted((int(theirs[i]["label"]), theirs[i]["x"].tobytes()) for i in range(len(theirs)))
    assert found == wanted
  record = {r["name"].decode(): bytes(r["image"]) for s in ("train", "test") for r in raw(tmp_path / "out", s)}
  assert record["a/003.jpg"] == (tmp_path / "in" / "a" / "003.jpg").read_bytes()
  assert Image.open(io.BytesIO(record["b/alpha.png"])).mode == "RGB"
  with batches(data, split="train", batch=4, seed=0, workers=1) as stream:
    assert next(stream)["x"].shape == (4, 24, 24, 3)
  assert Tfds(name="absent", labels=7).classes == 7  # planning needs no data
  with pytest.raises(UserError, match="has 2 labels, not 7"):
    Tfds(name="mine", data_dir=str(tmp_path / "out"), labels=7).records("train")
  with pytest.raises(UserError, match="exists already"):
    prepare(str(tmp_path / "in"), "mine", str(tmp_path / "out"))
  assert os.listdir(tmp_path / "out") == ["mine"]


def raw(data_dir, split):
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(str(data_dir / "mine" / "1.0.0"))
  return builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})


@pytest.mark.parametrize("name", ["../x", "a/b", "", "A", "1a", "a b", "a\n"])
def test_prepare_refuses_bad_names(tmp_path, name):
  pictures(tmp_path / "in", 3)
  with pytest.raises(UserError, match="cannot name a data set"):
    prepare(str(tmp_path / "in"), name, str(tmp_path / "out"))
  assert not (tmp_path / "out").exists()


def test_prepare_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch):
  pictures(tmp_path / "in", 6)
  module = sys.modules["latents.data.prepare"]

  def fail(path):
    raise MemoryError("half way")

  monkeypatch.setattr(module, "encoded", fail)
  with pytest.raises(MemoryError):
    prepare(str(tmp_path / "in"), "mine", str(tmp_path / "out"))
  assert os.listdir(tmp_path / "out") == []


def test_tfds_without_labels_has_no_classes(tmp_path):
  pictures(tmp_path / "in", 12)
  prepare(str(tmp_path / "in"), "flat", str(tmp_path / "out"))
  data = Tfds(name="flat", data_dir=str(tmp_path / "out"), size=16, channels=1)
  assert data.classes == 0 and "label" not in data.records("train")[0]
  assert data.records("test")[0]["x"].shape[-1] == 1


def test_tfds_that_is_missing_or_named_wrongly(tmp_path):
  (tmp_path / "mnist").mkdir()
  with pytest.raises(UserError, match=f"no TFDS data set minst in {tmp_path}.*did you mean mnist"):
    Tfds(name="minst", data_dir=str(tmp_path)).records("train")
  with pytest.raises(UserError, match="is not a TFDS name"):
    Tfds(name="../../etc", data_dir=str(tmp_path)).records("train")
  version = tmp_path / "mnist" / "1.0.0"
  version.mkdir()
  (version / "dataset_info.json").write_text("{}")
  with pytest.raises(UserError, match="cannot read"):
    Tfds(name="mnist", data_dir=str(tmp_path)).records("train")


def serialised(picture: bytes, label: int) -> bytes:
  """A tf.train.Example with "image" and "label"."""

  def varint(n):
    n %= 2**64
    out = []
    while n > 127:
      out.append(n & 127 | 128)
      n >>= 7
    return bytes([*out, n])

  def field(number, data):
    return bytes([number << 3 | 2]) + varint(len(data)) + data

  features = {b"image": field(1, field(1, picture)), b"label": field(3, field(1, varint(label)))}
  return field(1, b"".join(field(1, field(1, name) + field(2, value)) for name, value in features.items()))


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "valid"), ("train", "dev"), ("train", "validation")])
@pytest.mark.parametrize("blank", [False, True])
def test_splits_of_a_prepared_set(tmp_path, names, blank):
  """By any common name; a test split whose labels nobody knows (-1, as ImageNet's) gives way to another."""
  from array_record.python.array_record_module import ArrayRecordWriter

  for name in ("a", "b"):
    pictures(tmp_path / "in" / name, 8, size=(16, 16))
  prepare(str(tmp_path / "in"), "mine", str(tmp_path))
  folder = tmp_path / "mine" / "1.0.0"
  info = json.loads((folder / "dataset_info.json").read_text())
  count = {}
  for split in info["splits"]:
    before, after = split["name"], names[split["name"] == "test"]
    (shard,) = folder.glob(f"mine-{before}.*")
    shard.rename(folder / shard.name.replace(f"-{before}.", f"-{after}."))
    split["name"], count[before] = after, int(split["shardLengths"][0])
  if blank:
    buffer = io.BytesIO()
    Image.fromarray(noise(16, 16)).save(buffer, format="PNG")
    writer = ArrayRecordWriter(str(folder / "mine-testing.array_record-00000-of-00001"), "group_size:1")
    for _ in range(50):
      writer.write(serialised(buffer.getvalue(), -1))
    writer.close()
    info["splits"].append({**info["splits"][0], "name": "testing", "shardLengths": ["50"]})
  (folder / "dataset_info.json").write_text(json.dumps(info))
  data = Tfds(name="mine", data_dir=str(tmp_path), size=16)
  assert len(data.records("train")) == count["train"]
  if blank and names[1] != "test":
    with pytest.warns(UserWarning, match="the testing split has no labels, so another is used"):
      assert len(data.records("test")) == count["test"]
  else:
    assert len(data.records("test")) == count["test"]
  assert {int(data.records("test")[i]["label"]) for i in range(count["test"])} <= {0, 1}


def test_a_prepared_set_of_others():
  """tiny_imagenet20, where the shared test data is at hand (LATENTS_DATA, or beside the repository)."""
  beside = Path(__file__).parents[2] / "shared" / "data"
  folder = Path(os.environ.get("LATENTS_DATA", beside))
  if not (folder / "tiny_imagenet20").exists():
    return
  data = Tfds(name="tiny_imagenet20", data_dir=str(folder), size=64)
  train, test = data.records("train"), data.records("test")
  assert (len(train), len(test), data.classes, data.names[0]) == (10_000, 1_000, 20, "goldfish")
  assert train[17]["x"].shape == (64, 64, 3)


# -- audio


def wave(seconds, rate, pitch=440.0):
  return 0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)


def encode(samples, rate, form):
  buffer = io.BytesIO()
  soundfile.write(buffer, samples, rate, format=form)
  return buffer.getvalue()


def recordings(path):
  with zipfile.ZipFile(path, "w") as file:
    for split, count in (("train", 4), ("test", 1)):
      for digit in range(3):
        for i in range(count):
          samples = wave(0.1 + 0.2 * i, 8000, 200 * (digit + 1) + i)
          form = "flac" if i % 2 else "wav"
          file.writestr(f"{split}/{digit}_ann_{i}.{form}", encode(samples, 8000, form.upper()))
    file.writestr("../9_evil_0.wav", encode(wave(1, 8000), 8000, "WAV"))
    file.writestr("/8_evil_0.wav", encode(wave(1, 8000), 8000, "WAV"))
    file.writestr("train/2_cut_0.flac", encode(wave(1, 8000), 8000, "FLAC")[:30])


def test_audio_zip_with_labels_in_the_names(tmp_path):
  path = str(tmp_path / "x.zip")
  recordings(path)
  data = Audio(path=path, length=2048, rate=8000)
  assert data.shape == (2048, 1) and data.names == ("0", "1", "2")
  with pytest.warns(UserWarning, match="skipped 1 files: train/2_cut_0.flac"):
    train = data.records("train")
  test = data.records("test")
  assert (len(train), len(test)) == (12, 3)
  assert [int(test[i]["label"]) for i in range(3)] == [0, 1, 2]
  short = data.augment(test[0], np.random.default_rng(0), False)["x"]
  np.testing.assert_allclose(short[:800, 0], wave(0.1, 8000, 200), atol=2e-4)
  assert (short[800:] == 0).all() and short.dtype == np.float32
  long = train[3]
  crops = {data.augment(long, np.random.default_rng(s), True)["x"].tobytes() for s in range(6)}
  assert len(crops) > 3


def test_audio_folder_is_resampled_mixed_down_and_cut(tmp_path):
  for name in ("low", "high"):
    (tmp_path / name).mkdir()
    for i in range(3):
      mono = wave(1.0, 16000, 300 if name == "low" else 900)
      soundfile.write(tmp_path / name / f"{i}.wav", np.stack([mono, 0 * mono], 1), 16000)
  data = Audio(path=str(tmp_path), length=1000, rate=8000)
  records = data.records("train")
  assert data.names == ("high", "low")
  files = len(data.listing.train)
  assert len(records) == 4 * files  # 8,000 samples are more than 4 x 1,000: parts of at most 2,000
  x = records[0]["x"][:, 0]
  assert len(x) == 2000 and abs(np.abs(x).max() - 0.25) < 0.02
  label = data.names[int(records[0]["label"])]
  assert np.argmax(np.abs(np.fft.rfft(x))) * 8000 / len(x) == (300 if label == "low" else 900)


@pytest.mark.parametrize("how,level", [("peak", 0.95), ("rms", 0.1 * 2**0.5)])
def test_audio_loudness(tmp_path, how, level):
  for i in range(3):
    soundfile.write(tmp_path / f"{i}.wav", wave(0.5, 8000) * 0.1, 8000)
  data = Audio(path=str(tmp_path), length=4000, rate=8000, normalize=how)
  assert data.classes == 0
  assert np.abs(data.records("train")[0]["x"]).max() == pytest.approx(level, rel=0.01)


@pytest.mark.parametrize(
  "how,rms,peak", [("none", 0.82, 1.0), ("peak", 0.95 / 2**0.5, 0.95), ("rms", 0.1, 0.1 * 2**0.5)]
)
def test_what_is_beyond_1_is_normalised_before_it_is_clipped(tmp_path, how, rms, peak):
  for i in range(3):
    soundfile.write(tmp_path / f"{i}.wav", 4 * wave(1.0, 8000), 8000, subtype="FLOAT")
  x = Audio(path=str(tmp_path), length=8000, rate=8000, normalize=how).records("train")[0]["x"]
  if how == "none":
    np.testing.assert_array_equal(x[:, 0], np.clip(4 * wave(1.0, 8000), -1, 1).astype(np.float32))
  else:
    assert np.sqrt(np.mean(x**2)) == pytest.approx(rms, rel=1e-3)
  assert np.abs(x).max() == pytest.approx(peak, rel=1e-3)


def test_a_quiet_recording_of_peaks_is_clipped_last(tmp_path):
  click = np.zeros(8000)
  click[::1000] = 0.5
  for i in range(3):
    soundfile.write(tmp_path / f"{i}.wav", click, 8000)
  x = Audio(path=str(tmp_path), length=8000, rate=8000, normalize="rms").records("train")[0]["x"]
  assert np.abs(x).max() == 1.0 and (x == 1.0).sum() == 8


@pytest.mark.parametrize(
  "own,rate", [(44100, 16000), (48000, 16000), (8000, 16000), (11025, 8000), (22050, 44100), (8000, 8000)]
)
@pytest.mark.parametrize("form", ["wav", "flac"])
def test_parts_of_a_resampled_recording_have_no_seams(tmp_path, own, rate, form):
  from scipy.signal import resample_poly

  whole = (0.5 * np.cos(2 * np.pi * 60 * np.arange(3 * own + 7) / own)).astype(np.float32)
  for i in range(2):
    soundfile.write(tmp_path / f"{i}.{form}", whole, own, subtype="PCM_24")
  records = Audio(path=str(tmp_path), length=3000, rate=rate).records("train")
  parts = [records[i]["x"][:, 0] for i in range(len(records))]
  assert len(parts) > 3
  common = np.gcd(own, rate)
  expected = resample_poly(whole, rate // common, own // common)
  np.testing.assert_allclose(np.concatenate(parts), np.clip(expected, -1, 1), atol=2e-6)


def test_any_part_begins_at_its_own_level():
  """60 Hz, 44.1 to 16 kHz: a part that began with its own filter was at 0.34 instead of 0.5."""
  assert around(44_100, 88_200, 44_100, 16_000) == (43_659, 88_200 + 29 + 441, slice(160, 32_160))
  assert around(10, 500, 44_100, 16_000) == (0, 539, slice(4, 186))
  assert around(5, 7, 8000, 8000) == (5, 7, slice(None))


def test_channels_that_cancel_are_not_taken_for_silence(tmp_path):
  left = wave(1.0, 8000)
  for i in range(3):
    soundfile.write(tmp_path / f"{i}.wav", np.stack([left, -left], 1), 8000)
  records = Audio(path=str(tmp_path), length=8000, rate=8000).records("train")
  with pytest.warns(UserWarning, match=r"\d\.wav: its channels cancel each other, so the first is taken"):
    x = records[0]["x"]
  np.testing.assert_allclose(x[:, 0], left, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 8, 64])
def test_other_channels_are_averaged_without_a_word(channels):
  rng = np.random.default_rng(0)
  noise, one = rng.normal(size=(4000, channels)), np.zeros((4000, channels))
  one[:, -1] = rng.normal(size=4000)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    for x in (noise, one, np.zeros((100, channels))):
      np.testing.assert_array_equal(mono(x, "x"), x.mean(1))


def test_audio_that_is_hostile_or_missing(tmp_path, monkeypatch):
  (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 nonsense")
  with pytest.raises(UserError, match="neither a folder nor a readable zip"):
    Audio(path=str(tmp_path / "x.zip")).records("train")
  with pytest.raises(UserError, match="no such folder or zip"):
    Audio(path=str(tmp_path / "y.zip")).records("train")
  with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as file:
    for i in range(3):
      file.writestr(f"{i}.wav", encode(np.zeros(8000 + 10 * i), 8000, "WAV"))
  monkeypatch.setattr("latents.data.audio.MEMBER", 1000)
  with pytest.raises(UserError, match="unpacks to more"):
    Audio(path=str(tmp_path / "z.zip")).records("train")


def test_inspect_of_pictures_and_of_sound(tmp_path):
  pictures(tmp_path / "p" / "a", 9)
  pictures(tmp_path / "p" / "b", 9)
  found = inspect(Folder(path=str(tmp_path / "p"), size=32), str(tmp_path / "p.png"))
  assert found["splits"]["train"]["count"] + found["splits"]["test"]["count"] == 18
  assert set(found["labels"]) == {"a", "b"} and sum(found["labels"].values()) == found["examined"]
  assert len(found["mean"]) == 3 and abs(found["mean"][0]) < 0.1 and found["kind"] == "image"
  assert Image.open(tmp_path / "p.png").size[0] > 128
  for i in range(3):
    soundfile.write(tmp_path / f"{i}.wav", wave(0.5, 8000), 8000)
  found = inspect(Audio(path=str(tmp_path), length=4000, rate=8000), str(tmp_path / "s.png"))
  assert found["rate"] == 8000 and found["shape"] == [4000, 1]
  assert np.asarray(Image.open(tmp_path / "s.png")).std() > 10

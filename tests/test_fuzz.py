"""Every reader, with thousands of damaged files: it reads, or it refuses with one line; never anything else.

Allowed are success and UserError (for one example of a data set also Broken: it is skipped and counted). Not
allowed: any other exception, more than 10 s for a file, a process that grows by more than 700 MiB over all files of
a reader, a write outside of the folder, a call of what a file names. LATENTS_FUZZ=20 makes twenty times as many.
"""

import functools
import io
import json
import os
import random
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import soundfile
from PIL import Image

from latents.data import Audio, CachedLatents, Folder, Tfds, load_image, write_cache
from latents.data.images import read_image
from latents.data.source import Broken
from latents.declare import addresses, check, dumps, loads
from latents.errors import UserError
from latents.pretrained import read_weights
from latents.report import markdown_table, report
from latents.store import artefact
from tests import micro, sources
from tests.hostile import Watch, change, damage, pack, watched
from tests.test_pretrained_readers import ARRAYS, archive, model, stream
from tests.test_report import full

MORE = int(os.environ.get("LATENTS_FUZZ", "1"))


def fuzz(folder, name, count, mutate, files, read, allowed=(UserError,)):
  """`count` times: one of `files` {path below the folder: bytes} is mutated, the others are whole, then `read`."""
  watch = Watch(allowed)
  with watched(folder) as inside, warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for path, data in files.items():
      (inside / path).parent.mkdir(parents=True, exist_ok=True)
      (inside / path).write_bytes(data)
    watch.call(f"{name}, whole", functools.partial(read, inside))
    assert watch.read == 1, f"{name}: the whole files were refused"
    for k in range(count * MORE):
      rng = random.Random(f"{name} {k}")
      path = rng.choice(sorted(files))
      (inside / path).write_bytes(mutate(files[path], rng, path))
      watch.call(f"{name}, mutation {k} of {path}", functools.partial(read, inside))
      (inside / path).write_bytes(files[path])
  assert watch.refused > 0, f"{name}: no damage was ever noticed"


def any_bytes(data, rng, path):
  """Bytes of JSON files are changed as JSON, mostly; all others as bytes."""
  if path.endswith((".json", ".jsonl")) and rng.random() < 0.8:
    lines = data.decode().splitlines() if path.endswith(".jsonl") else [data.decode()]
    place = rng.randrange(len(lines))
    lines[place] = change(lines[place], rng)
    return "\n".join(lines).encode("utf-8", "surrogatepass")
  return damage(data, rng)


# -- weights, artefacts, experiments

NPZ = io.BytesIO()
np.savez_compressed(NPZ, **ARRAYS)
WEIGHTS = {
  "npz": NPZ.getvalue(),
  "safetensors": safetensors.numpy.save(ARRAYS),
  "pth zip": archive(*model()),
  "pth stream": stream(*model()),
}


@pytest.mark.parametrize("form", WEIGHTS)
def test_weights(tmp_path, form):
  fuzz(tmp_path, form, 150, any_bytes, {"w": WEIGHTS[form]}, lambda inside: read_weights(str(inside / "w")))


@pytest.mark.parametrize("form", ["pth zip", "pth stream"])
def test_a_pickle_is_changed_inside(tmp_path, form):
  """The archive is sound, its pickle is not; and opcodes are replaced by others."""

  def mutate(data, rng, path):
    if form == "pth zip":
      with zipfile.ZipFile(io.BytesIO(data)) as old:
        files = {name: old.read(name) for name in old.namelist()}
      victim = rng.choice(sorted(files))
      files[victim] = opcodes(files[victim], rng)
      return pack(files)
    return opcodes(data, rng)

  fuzz(tmp_path, form, 150, mutate, {"w": WEIGHTS[form]}, lambda inside: read_weights(str(inside / "w")))


def opcodes(data, rng):
  codes = b"(.01234MNIJKLRbcdeghijklopqrstu}]a\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x92\x93\x94\x95"
  data = bytearray(data)
  for _ in range(rng.choice((1, 2, 5))):
    data[rng.randrange(len(data))] = rng.choice(codes)
  return bytes(data) if rng.random() < 0.7 else damage(bytes(data), rng)


def test_artefacts(tmp_path):
  made = tmp_path / "made"
  facts = {"address": "abc", "stage": 1, "seconds": 1.5, "statistics": {"mean": [0.5], "std": [2.0]}, "steps": 3}
  artefact.write(made, {"a/kernel": np.ones((3, 4), np.float32), "b": np.float32(2)}, facts)
  files = {name: (made / name).read_bytes() for name in (artefact.WEIGHTS, artefact.FACTS)}
  for file in files:
    (made / file).unlink()
  made.rmdir()

  def read(inside):
    found = artefact.read(inside)
    assert found is not None
    statistics = found.facts.get("statistics", {"mean": [], "std": []})
    np.asarray([statistics["mean"], statistics["std"]], np.float32)

  fuzz(tmp_path, "artefact", 200, any_bytes, files, read)


def test_experiments(tmp_path):
  def read(inside):
    made = loads((inside / "experiment.json").read_text(errors="surrogateescape"), "experiment.json")
    check(made)
    addresses(made)
    dumps(made)

  files = {"experiment.json": dumps(micro.experiment()).encode()}
  fuzz(tmp_path, "experiment", 300, any_bytes, files, read)


# -- data


def picture(form, **options):
  file = io.BytesIO()
  rng = np.random.default_rng(0)
  image = Image.fromarray(rng.integers(0, 256, (24, 31, 3), dtype=np.uint8))
  if options.pop("palette", False):
    image = image.quantize(16)
  exif = Image.Exif()
  exif[0x0112] = 6
  image.save(file, format=form, exif=exif, **options) if form in ("JPEG", "PNG", "WEBP") else image.save(file, form)
  return file.getvalue()


PICTURES = {
  "jpeg": picture("JPEG"), "progressive": picture("JPEG", progressive=True), "png": picture("PNG"),
  "palette": picture("PNG", palette=True), "webp": picture("WEBP"), "lossless": picture("WEBP", lossless=True),
  "gif": picture("GIF"), "bmp": picture("BMP"), "tiff": picture("TIFF"), "ppm": picture("PPM"),
}  # fmt: skip


@pytest.mark.parametrize("form", PICTURES)
def test_pictures(tmp_path, form):
  def read(inside):
    for size in (None, 16):
      x = read_image(str(inside / "x"), 3, size)
      assert x.dtype == np.uint8 and x.ndim == 3 and x.shape[-1] == 3
    load_image(inside / "x", size=16)

  fuzz(tmp_path, form, 60, any_bytes, {"x": PICTURES[form]}, read, (UserError, Broken))


def test_a_folder_of_pictures(tmp_path):
  files = {f"{k}/{form}{i}.png": data for k in "ab" for i in range(3) for form, data in list(PICTURES.items())[:6]}

  def read(inside):
    data = Folder(path=str(inside), size=16)
    records = data.records("train")
    for i in range(0, len(records), 5):
      data.augment(records[i], np.random.default_rng(0), True)
    data.identity()

  watch = Watch()
  with watched(tmp_path) as inside, warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for k in range(15 * MORE):
      for path, data in files.items():
        rng = random.Random(f"{path} {k}")
        (inside / path).parent.mkdir(exist_ok=True)
        (inside / path).write_bytes(damage(data, rng) if rng.random() < 0.5 else data)
      watch.call(f"folder {k}", functools.partial(read, inside))
  assert watch.read == 15 * MORE  # half of the files are whole: every folder can be used


def sound(form, **options):
  file = io.BytesIO()
  soundfile.write(file, 0.1 * np.random.default_rng(0).standard_normal(900), 8000, format=form, **options)
  return file.getvalue()


SOUNDS = {"wav": sound("WAV"), "flac": sound("FLAC"), "ogg": sound("OGG"), "aiff": sound("AIFF"), "mp3": sound("MP3")}


def hear(data):
  records = data.records("train")
  for i in range(len(records)):
    assert data.augment(records[i], np.random.default_rng(0), True)["x"].shape == (256, 1)
  data.identity()


@pytest.mark.parametrize("form", SOUNDS)
def test_recordings(tmp_path, form):
  files = {f"{i}.{form}": SOUNDS[form] for i in range(2)}
  fuzz(
    tmp_path, form, 40, any_bytes, files,
    lambda inside: hear(Audio(path=str(inside), length=256, rate=8000)), (UserError, Broken),
  )  # fmt: skip


def test_a_zip_of_recordings(tmp_path):
  files = {f"train/{i}_{form}.{form}": data for i in range(2) for form, data in SOUNDS.items()}
  files |= {f"test/{i}.wav": SOUNDS["wav"] for i in range(2)}

  def mutate(data, rng, path):
    if rng.random() < 0.5:
      return damage(data, rng)
    inner = dict(files)
    victim = rng.choice(sorted(inner))
    inner[rng.choice((victim, "../../outside/x.wav", "/outside.wav", "a\\..\\x.wav", "C:x.wav"))] = damage(
      inner[victim], rng
    )
    return pack(inner, compress=rng.random() < 0.5)

  fuzz(
    tmp_path, "zip", 60, mutate, {"x.zip": pack(files)},
    lambda inside: hear(Audio(path=str(inside / "x.zip"), length=256, rate=8000)), (UserError, Broken),
  )  # fmt: skip


def test_a_tfds_set(tmp_path):
  root = Path(sources.tfds().folder)
  files = {f"pictures/1.0.0/{path.name}": path.read_bytes() for path in sorted(root.iterdir())}

  def read(inside):
    data = Tfds(name="pictures", data_dir=str(inside), size=16)
    _ = data.names, data.classes, data.identity()
    for split in ("train", "test"):
      records = data.records(split)
      for i in range(0, min(len(records), 100), 4):
        data.augment(records[i], np.random.default_rng(0), True)

  fuzz(tmp_path, "tfds", 250, any_bytes, files, read, (UserError, Broken))


def test_a_latent_cache(tmp_path):
  made = tmp_path / "made"
  stored = np.random.default_rng(0).normal(size=(9, 2, 3, 3, 2))
  write_cache(
    str(made), [{"stored": stored, "label": np.arange(9)}], split="train", count=9, fingerprint="f", statistics={}
  )
  files = {f"train/{path.name}": path.read_bytes() for path in sorted((made / "train").iterdir())}
  for path in files:
    (made / path).unlink()
  (made / "train").rmdir()
  made.rmdir()

  def read(inside):
    data = CachedLatents(folder=str(inside))
    records = data.records("train")
    _ = data.names, data.kept, data.identity()
    for i in range(0, len(records), 3):
      assert data.augment(records[i], np.random.default_rng(0), True)["stored"].shape == data.shape

  fuzz(tmp_path, "cache", 200, any_bytes, files, read)


# -- reports


def test_a_run_in_a_report(tmp_path):
  whole = full(tmp_path / "whole")
  files = {path.name: path.read_bytes() for path in sorted(whole.iterdir()) if path.is_file()}
  for path in files:
    (whole / path).unlink()
  whole.rmdir()

  def read(inside):
    for text in (report([inside]), markdown_table([inside, inside])):
      assert "<script>alert" not in text and "onerror" not in text.lower()

  fuzz(tmp_path, "report", 60, any_bytes, files, read)
  assert {"experiment.json", "metrics.jsonl", "scores.json"} < set(files)


def test_names_of_a_run_are_not_markup(tmp_path):
  evil = '"><img src=x onerror=alert(1)><script>alert(1)</script>'
  run = full(tmp_path / "run")
  for name in ("experiment.json", "scores.json"):
    tree = json.loads((run / name).read_text())

    def spoil(x):
      if isinstance(x, dict):
        return {(k if k in KEPT else k + evil): spoil(v) for k, v in x.items()}
      if isinstance(x, list):
        return [spoil(v) for v in x]
      return x + evil if isinstance(x, str) else x

    (run / name).write_text(json.dumps(spoil(tree)))
  lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
  (run / "metrics.jsonl").write_text("\n".join(json.dumps(line | {"train/" + evil: 1.0}) for line in lines))
  page = report([run, run])
  assert "<img src=x" not in page and "<script>alert" not in page and "&lt;script&gt;alert" in page


KEPT = ("stage1", "stage2", "model", "encoder", "bottleneck", "decoder", "prior", "backbone", "name", "!", "steps")
KEPT += ("latent", "reconstruction", "samples", "protocol", "time", "environment", "parameters", "paper", "command")

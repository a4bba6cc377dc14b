"""Small data on the disk for the sources that read files: made once in a run, removed at its end."""

import atexit
import functools
import os
import shutil
import tempfile

import numpy as np
import soundfile
from PIL import Image

from latents.data import Audio, Folder, Strips, Text, Tfds, Video, prepare
from latents.media.video import animation


@functools.cache
def place() -> str:
  folder = tempfile.mkdtemp(prefix="latents-tests-")
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  rng = np.random.default_rng(0)
  for name in ("one", "two"):
    os.makedirs(os.path.join(folder, "pictures", name))
    os.makedirs(os.path.join(folder, "sounds", name))
    for i in range(12):
      picture = rng.integers(0, 256, (20 + i, 30 - i, 3), dtype=np.uint8)
      Image.fromarray(picture).save(os.path.join(folder, "pictures", name, f"{i}.png"))
      sound = 0.3 * rng.standard_normal(300 + 100 * i).clip(-3, 3)
      soundfile.write(os.path.join(folder, "sounds", name, f"{i}.wav"), sound, 8000)
    for i in range(12):
      frames = rng.integers(0, 256, (5, 12 + i, 14, 3), dtype=np.uint8)
      os.makedirs(os.path.join(folder, "clips", name), exist_ok=True)
      with open(os.path.join(folder, "clips", name, f"{i}.gif"), "wb") as file:
        file.write(animation(frames, "GIF"))
      os.makedirs(os.path.join(folder, "strips", name), exist_ok=True)
      strip = rng.integers(0, 256, (10, 40 + 10 * (i % 3), 3), dtype=np.uint8)
      Image.fromarray(strip).save(os.path.join(folder, "strips", name, f"{i}.png"))
      os.makedirs(os.path.join(folder, "texts", name), exist_ok=True)
      with open(os.path.join(folder, "texts", name, f"{i}.txt"), "wb") as file:
        file.write(rng.integers(0, 256, 20 + 50 * i, dtype=np.uint8).tobytes())
  prepare(os.path.join(folder, "strips"), "strips", os.path.join(folder, "tfds"))
  prepare(os.path.join(folder, "pictures"), "pictures", os.path.join(folder, "tfds"))
  return folder


def folder() -> Folder:
  return Folder(path=os.path.join(place(), "pictures"), size=16)


def tfds() -> Tfds:
  return Tfds(name="pictures", data_dir=os.path.join(place(), "tfds"), size=16)


def audio() -> Audio:
  return Audio(path=os.path.join(place(), "sounds"), length=512, rate=8000)


def video() -> Video:
  return Video(path=os.path.join(place(), "clips"), frames=3, size=10)


def strips() -> Strips:
  return Strips(name="strips", data_dir=os.path.join(place(), "tfds"), size=10, frames=3, stride=2)


def text() -> Text:
  return Text(path=os.path.join(place(), "texts"), length=48)

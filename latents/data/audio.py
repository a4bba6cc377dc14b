"""Recordings in a folder or a zip file, as waves of a fixed length."""

import dataclasses
import functools
import io
import itertools
import math
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np

from latents.data.listing import Listing, arrange, list_folder
from latents.data.source import Broken, Decoded, Example, Records, Source, Split, place, sizes, warn_skipped
from latents.data.walk import join, look, unread
from latents.errors import Missing, UserError

EXTENSIONS = (
  ".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au",
  ".snd", ".caf",
)  # fmt: skip
MEMBER = 256 << 20  # bytes: a larger zip member is refused
SAMPLES = 1 << 31  # per file: a header that claims more is refused
CHANNELS = 64  # likewise
DENSITY = 4096  # samples a byte: no codec packs more, and silence little less
TAPS = 10  # half the length of scipy's resampling filter, in periods of the lower rate


@dataclasses.dataclass(frozen=True)
class Audio(Source):
  """Recordings below the folder or in the zip `path` (or the one zip in the folder, where no recordings lie beside it),
  as "x" float32 [length,1] in [-1,1] at `rate` Hz.

  Channels are averaged (where they cancel, the first is taken, with a warning), other rates resampled; then comes
  `normalize`, and last what is beyond [-1,1] is clipped. Shorter recordings are padded with silence at the end,
  longer ones cropped: anywhere in training, else the centre. Recordings of more than four lengths are cut
  into records of at most two. Splits are as in Folder. Labels are subfolders, else what stands before the
  first '_' of the file names where all have one ("3_jackson_0.flac" -> "3").
  """

  kind = "audio"
  path: str = place()
  length: int = 16_384
  rate: int = 16_000  # pyright: ignore[reportIncompatibleVariableOverride]  (a field here alone)
  normalize: Literal["none", "peak", "rms"] = "none"

  @property
  def shape(self) -> tuple[int, ...]:
    """[length, 1]."""
    return (self.length, 1)

  @functools.cached_property
  def listing(self) -> Listing:
    """The files of both splits; read once."""
    if os.path.isdir(self.place):
      found = list_folder(self.place, EXTENSIONS, "audio files")
    else:
      found = arrange(self.place, *members(self.place), "audio files")
    return found.tell(prefixed(found))

  @functools.cached_property
  def place(self) -> str:
    """`path`, or the zip file in it where it holds no recordings. Raises UserError where several could be meant."""
    if not os.path.isdir(self.path):
      return self.path
    tree = look(self.path)
    zips = [join(folder, name) for folder, names in tree.folders for name in names if name.lower().endswith(".zip")]
    if not zips or tree.pick(EXTENSIONS)[0]:
      return self.path
    if len(zips) > 1:
      raise UserError(f"{self.path} holds {len(zips)} zip files: name one, such as {os.path.join(self.path, zips[0])}")
    return os.path.join(self.path, zips[0])

  @functools.cached_property
  def names(self) -> tuple[str, ...]:
    """The label names."""
    return self.listing.names or prefixes(self.listing)

  @property
  def note(self) -> str:
    """As `Source.note`."""
    return self.listing.line(prefixed(self.listing))

  def contents(self) -> Iterable[str]:
    """Every recording of both splits with its size, and in a zip with its checksum."""
    names = self.listing.train + self.listing.test
    return sizes(self.place, names) if os.path.isdir(self.place) else Files(self.place).checksums(names)

  def records(self, split: Split) -> Records:
    """As `Source.records`."""
    names = self.listing.files(split)
    files = Files(self.place)
    parts: list[tuple[str, int, int]] = []  # (file, first frame, frames) at the file's own rate
    skipped = []
    for name in names:
      try:
        parts.extend((name, *part) for part in cut(*files.info(name), self.length, self.rate))
      except Broken as error:
        skipped.append(f"{name} ({error})")
    if not parts:
      raise UserError(f"no usable audio for the {split} split in {self.path}{': ' + skipped[0] if skipped else ''}")
    warn_skipped(self.path, skipped)
    return Decoded(len(parts), functools.partial(self.read, files, parts), skipped)

  def read(self, files: "Files", parts: list[tuple[str, int, int]], i: int) -> Example:
    """Record i: "x" float32 [T,1] before the crop, and "label" where there are labels."""
    name, start, frames = parts[i]
    wave = np.clip(loudness(files.read(name, start, frames, self.rate), self.normalize), -1, 1)
    if not self.names:
      return {"x": wave[:, None]}
    label = self.listing.label(name)
    label = self.names.index(prefix(name)) if label is None else label
    return {"x": wave[:, None], "label": np.int32(label)}

  def augment(self, example: Example, rng: np.random.Generator, train: bool) -> Example:
    """Pads or crops to `length`."""
    x = example["x"]
    spare = len(x) - self.length
    if spare < 0:
      return {**example, "x": np.pad(x, ((0, -spare), (0, 0)))}
    start = int(rng.integers(spare + 1)) if train and spare else spare // 2
    return {**example, "x": x[start : start + self.length]}


class Files:
  """The audio files of a folder or a zip; zip members are read into memory, never unpacked."""

  def __init__(self, path: str):
    self.path = path
    self.zip = None if os.path.isdir(path) else open_zip(path)

  def open(self, name: str) -> Any:
    """What soundfile can open: a path, or a zip member in memory. Raises Broken."""
    if self.zip is None:
      return os.path.join(self.path, name)
    if self.zip.getinfo(name).file_size > MEMBER:
      raise Broken(f"unpacks to more than {MEMBER >> 20} MiB")
    try:
      with self.zip.open(name) as member:
        data = member.read(MEMBER + 1)  # the stated size can lie
    except Exception as error:
      raise Broken("corrupt zip member") from error
    if len(data) > MEMBER:
      raise Broken(f"unpacks to more than {MEMBER >> 20} MiB")
    return io.BytesIO(data)

  def checksums(self, names: Iterable[str]) -> Iterator[str]:
    """'name bytes checksum' of zip members, as the archive's directory states them."""
    assert self.zip is not None
    for name in names:
      info = self.zip.getinfo(name)
      yield f"{name} {info.file_size} {info.CRC:08x}"

  def info(self, name: str) -> tuple[int, int]:
    """(frames, rate) from the header. Raises Broken."""
    import soundfile

    file = self.open(name)
    try:
      info = soundfile.info(file)
      size = os.path.getsize(file) if isinstance(file, str) else len(file.getbuffer())
    except Exception as error:
      raise Broken("not a readable recording") from error
    if not 0 < info.frames < SAMPLES or not 0 < info.samplerate < 1_000_000:
      raise Broken(f"{info.frames} frames at {info.samplerate} Hz")
    if info.channels > CHANNELS or info.frames > DENSITY * size:
      raise Broken(f"claims {info.frames} frames of {info.channels} channels in {size} bytes")
    return info.frames, info.samplerate

  def read(self, name: str, start: int, frames: int, rate: int) -> np.ndarray:
    """[T] float32 at `rate`, as loud as the file has it: `frames` of its frames from `start` on, and exactly what the
    whole file would give there. Raises Broken."""
    import soundfile

    try:
      with soundfile.SoundFile(self.open(name)) as file:
        begin, count, kept = around(start, frames, file.samplerate, rate)
        file.seek(begin)
        wave = file.read(count, dtype="float32", always_2d=True)
        own = file.samplerate
    except Exception as error:
      raise Broken(f"{name} (truncated or corrupt)") from error
    if not len(wave) or not np.isfinite(wave).all():
      raise Broken(f"{name} (empty or not finite)")
    wave = mono(wave, name)
    if own != rate:
      from scipy.signal import resample_poly  # polyphase FIR: antialiased

      common = math.gcd(own, rate)
      wave = resample_poly(wave, rate // common, own // common).astype(np.float32)
      wave = wave[kept]
    if not len(wave):
      raise Broken(f"{name} (shorter than it was)")
    return wave


def around(start: int, frames: int, own: int, rate: int) -> tuple[int, int, slice]:
  """(first frame to read, frames to read, which samples at `rate` to keep of them) for a part of a file at the rate
  `own`: with a margin that fills the resampling filter, begun where a new sample falls on an old one. Parts that
  follow each other in the file do so at the new rate."""
  if own == rate:
    return start, frames, slice(None)
  step, per = own // math.gcd(own, rate), rate // math.gcd(own, rate)  # frames that make so many samples
  margin = math.ceil(TAPS * max(step, per) / per) + 1
  begin = max(0, start - margin) // step * step
  first, last = (-(-frame * per // step) - begin // step * per for frame in (start, start + frames))
  return begin, start + frames + margin - begin, slice(first, last)


def mono(wave: np.ndarray, name: str) -> np.ndarray:
  """[T,C] -> [T]: the mean of the channels, or the first of those that cancel each other."""
  mean = wave.mean(1)
  # Channels that have nothing to do with each other lose a factor of the root of C.
  if np.mean(mean**2) >= 0.01 * np.mean(wave**2) / wave.shape[1]:
    return mean
  warnings.warn(f"{name}: its channels cancel each other, so the first is taken", stacklevel=3)
  return wave[:, np.argmax(np.mean(wave**2, 0) > 0)]


def members(path: str) -> tuple[list[str], list[str]]:
  """(the audio files in a zip, what was left out and why). Raises UserError when it is none."""
  if not os.path.exists(path):
    raise Missing(f"no such folder or zip file: {path}")
  with open_zip(path) as file:
    names = list(dict.fromkeys(info.filename for info in file.infolist() if not info.is_dir()))
  names = [name for name in names if not any(part.startswith(".") for part in re.split(r"[/\\]", name) if part != "..")]
  found = [name for name in names if name.lower().endswith(EXTENSIONS)]
  left = [f"{name} (a name that is no plain path)" for name in found if not safe(name)]
  return [name for name in found if safe(name)], [*unread(set(names) - set(found)), *left]


def open_zip(path: str) -> zipfile.ZipFile:
  """An archive. Raises UserError when it is none."""
  try:
    return zipfile.ZipFile(path)
  except Exception as error:
    raise UserError(f"{path} is neither a folder nor a readable zip file") from error


def safe(name: str) -> bool:
  """Neither absolute nor upwards."""
  parts = name.split("/")
  return (
    not name.startswith("/") and "\\" not in name and ":" not in name and not any(p[:1] in (".", "") for p in parts)
  )


def prefixes(listing: Listing) -> tuple[str, ...]:
  """The labels that file names begin with, where all have one and they tell files apart."""
  files = listing.train + listing.test
  found = {prefix(name) for name in files}
  return tuple(sorted(found)) if 1 < len(found) < len(files) and "" not in found else ()


def prefixed(listing: Listing) -> str:
  """Where labels come from if not from folders, in words."""
  return "" if listing.names or not prefixes(listing) else "labels: what stands before the first _ of the file names"


def prefix(name: str) -> str:
  """'train/3_jackson_0.flac' -> '3'; '' without an underscore."""
  stem = name.rsplit("/", 1)[-1]
  return stem.split("_", 1)[0] if "_" in stem else ""


def cut(frames: int, own: int, length: int, rate: int) -> list[tuple[int, int]]:
  """[(start, frames)] of the records of a file: one, or equal parts of at most two lengths if it has more
  than four; so a step never decodes an hour for a second."""
  unit = length * own / rate
  count = 1 if frames <= 4 * unit else math.ceil(frames / (2 * unit))
  edges = [round(frames * k / count) for k in range(count + 1)]
  return [(a, b - a) for a, b in itertools.pairwise(edges)]


def loudness(wave: np.ndarray, how: str) -> np.ndarray:
  """peak: the largest sample becomes 0.95; rms: the level becomes 0.1; silence stays."""
  level = np.abs(wave).max() / 0.95 if how == "peak" else np.sqrt(np.mean(wave**2)) / 0.1
  return wave if how == "none" or level < 1e-6 else (wave / level).astype(np.float32)

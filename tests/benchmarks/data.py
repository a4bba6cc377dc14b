"""Examples a second of the data loader, beside PyTorch's in the same run, and the cores that a training step needs.

  python tests/benchmarks/data.py [--json] [--seconds 5] [--step "name=seconds:batch:hosts" ...]

Makes its own data below a temporary folder: crops of scikit-image's photographs as JPEG of quality 90, prepared with
the code of `latents data prepare`, and a latent cache. The reference reads the same JPEG files with Pillow in a torch
DataLoader, or in a plain loop where torch is not installed. Nothing is kept in memory between epochs, by either.

CPU is counted over the process and its workers: on a shared machine it is the figure to trust. `main` is the share
of the process that trains: with workers it is what a batch still costs there.
"""

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))

from latents.data import CachedLatents, Photos, Tfds, batches, loader, prepare, write_cache
from latents.data.photos import photograph

BATCH, WORKERS = 64, (0, 1, 2)
# name -> (width and height of the stored picture, side that training reads, pictures)
SETS = {
  "64 px": ((64, 64), 64, 512),
  "128 px": ((128, 128), 128, 384),
  "256 px": ((256, 256), 256, 256),
  "500x375 to 256 px": ((500, 375), 256, 192),
}
# name -> (seconds a step, global batch, hosts). Both are estimates from 0.71 TFLOP an image (DiT-XL/2 at 256 px:
# 118.6 G multiply-adds forward, DiT 2212.09748 table 1; three times that with backward) at 40 % of the bf16 peak.
STEPS = {
  "DiT-XL/2, batch 256, v5e:16 (4 hosts; 197 TFLOP/s a chip)": (0.144, 256, 4),
  "DiT-XL/2, batch 256, 8 x H100 (1 host; 989 TFLOP/s a chip)": (0.0575, 256, 1),
}


def make_pictures(folder: str, size: tuple[int, int], count: int) -> None:
  """JPEG files of crops of real photographs, in two class folders."""
  rng = np.random.default_rng(0)
  names = ("astronaut.png", "coffee.png", "china.jpg", "rocket.jpg")
  for i in range(count):
    image = photograph(names[i % len(names)])
    ratio = rng.uniform(max(size[0] / image.width, size[1] / image.height, 0.15), 1.0)
    wide = min(image.width, max(size[0], round(image.width * ratio)))
    high = min(image.height, round(wide * size[1] / size[0]))
    left, top = int(rng.integers(image.width - wide + 1)), int(rng.integers(image.height - high + 1))
    crop = image.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + wide, top + high))
    place = os.path.join(folder, "ab"[i % 2])
    os.makedirs(place, exist_ok=True)
    crop.save(os.path.join(place, f"{i}.jpg"), quality=90)


def ticks(pids: list[int]) -> float:
  """CPU seconds that processes have had so far."""
  total = 0.0
  for pid in pids:
    with open(f"/proc/{pid}/stat") as file:
      fields = file.read().rpartition(")")[2].split()
    total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
  return total


def descendants() -> list[int]:
  """This process's children: the workers of either loader (the resource tracker costs nothing)."""
  found: list[str] = []
  for task in os.listdir(f"/proc/{os.getpid()}/task"):
    with contextlib.suppress(FileNotFoundError), open(f"/proc/{os.getpid()}/task/{task}/children") as file:
      found += file.read().split()  # a thread may have ended since it was listed
  return sorted({int(pid) for pid in found})


def measure(stream: Iterator[Any], seconds: float, rows: int = BATCH) -> dict[str, float]:
  """Examples a second, and CPU seconds an example in all and in this process, once the stream runs."""
  for _ in range(6):  # the buffers that were filled while nobody looked
    next(stream)
  pids = descendants()
  start, own, theirs, count = time.perf_counter(), time.process_time(), ticks(pids), 0
  while time.perf_counter() - start < seconds or count < 8:
    next(stream)
    count += 1
  wall = time.perf_counter() - start
  own, theirs = time.process_time() - own, ticks(pids) - theirs
  n = count * rows
  return {"per_second": n / wall, "cpu": (own + theirs) / n, "main": own / n}


def ours(source: Any, workers: int, seconds: float) -> dict[str, float]:
  """Our loader."""
  with batches(source, split="train", batch=BATCH, seed=0, workers=workers) as stream:
    return measure(stream, seconds)


class Pictures:
  """The reference's data set: what a PyTorch user writes with Pillow alone."""

  def __init__(self, folder: str, side: int):
    self.paths = [os.path.join(folder, c, name) for c in "ab" for name in sorted(os.listdir(os.path.join(folder, c)))]
    self.side = side

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, i: int) -> np.ndarray:
    with Image.open(self.paths[i]) as image:
      image = image.convert("RGB")
    ratio = self.side / min(image.size)
    width, height = (max(self.side, round(n * ratio)) for n in image.size)
    size = (width, height)
    if size != image.size:
      image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (np.random.randint(n - self.side + 1) for n in size)
    x = np.asarray(image)[top : top + self.side, left : left + self.side]
    return x[:, ::-1].copy() if np.random.rand() < 0.5 else x.copy()


class Memmap:
  """The reference of the latent cache: a .npy file, one of the two mirrored copies."""

  def __init__(self, path: str):
    self.array = np.load(path, mmap_mode="r")

  def __len__(self) -> int:
    return len(self.array)

  def __getitem__(self, i: int) -> np.ndarray:
    return self.array[i, np.random.randint(2)].copy()


def reference(data: Any, workers: int, seconds: float) -> dict[str, float] | None:
  """A torch DataLoader, or without torch a plain loop (workers 0 alone)."""
  try:
    import torch  # pyright: ignore[reportMissingImports]
    from torch.utils.data import DataLoader, RandomSampler  # pyright: ignore[reportMissingImports]
  except ImportError:
    return measure(plain(data), seconds) if workers == 0 else None
  torch.set_num_threads(1)
  order = RandomSampler(data, replacement=True, num_samples=10**8)  # one epoch without end: no seams
  return measure(iter(DataLoader(data, BATCH, sampler=order, num_workers=workers)), seconds)


def plain(data: Any) -> Iterator[np.ndarray]:
  """Batches without any library."""
  while True:
    order = np.random.permutation(len(data))
    for start in range(0, len(order) - BATCH + 1, BATCH):
      yield np.stack([data[i] for i in order[start : start + BATCH]])


def run(seconds: float) -> list[dict[str, Any]]:
  """All rows."""
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    for name, (size, side, count) in SETS.items():
      place = os.path.join(folder, f"pictures{size[0]}")
      make_pictures(place, size, count)
      prepare(place, f"set{size[0]}", os.path.join(folder, "tfds"))
      source = Tfds(name=f"set{size[0]}", data_dir=os.path.join(folder, "tfds"), size=side)
      for workers in WORKERS:
        found, other = ours(source, workers, seconds), reference(Pictures(place, side), workers, seconds)
        rows.append({"data": f"JPEG {name}", "workers": workers, "ours": found, "reference": other})
        print(line(rows[-1]), flush=True)
    rng = np.random.default_rng(0)
    stored = rng.normal(size=(2048, 2, 32, 32, 4)).astype(np.float32)
    cache = os.path.join(folder, "cache")
    write_cache(cache, [{"stored": stored}], split="train", count=len(stored), fingerprint="", statistics={})
    for workers in WORKERS[:2]:
      found = ours(CachedLatents(folder=cache), workers, seconds)
      other = reference(Memmap(os.path.join(cache, "train", "stored.npy")), workers, seconds)
      rows.append({"data": "cached latents 32x32x4", "workers": workers, "ours": found, "reference": other})
      print(line(rows[-1]), flush=True)
    loader.MEMORY, kept = 1 << 30, Photos(size=64, count=512)
    rows.append({"data": "64 px, kept in memory", "workers": 0, "ours": ours(kept, 0, seconds), "reference": None})
    print(line(rows[-1]), flush=True)
  return rows


HEAD = """| data | workers | examples/s | CPU ms an example (main) | reference: examples/s | CPU ms | CPU ratio |
|---|---:|---:|---:|---:|---:|---:|"""


def line(row: dict[str, Any]) -> str:
  """A row of the table."""
  a, b = row["ours"], row["reference"]
  cells = [row["data"], row["workers"], f"{a['per_second']:,.0f}", f"{1e3 * a['cpu']:.3f} ({1e3 * a['main']:.3f})"]
  cells += [f"{b['per_second']:,.0f}", f"{1e3 * b['cpu']:.3f}", f"{a['cpu'] / b['cpu']:.2f}"] if b else ["", "", ""]
  return "| " + " | ".join(map(str, cells)) + " |"


def needs(rows: list[dict[str, Any]], steps: dict[str, tuple[float, int, int]]) -> list[str]:
  """For every step and kind of data: the cores a host must give, so that under 2 % of the time waits for data."""
  out = ["| step | data | images/s a host | cores a host | main process |", "|---|---|---:|---:|---:|"]
  for name, (seconds, batch, hosts) in steps.items():
    rate = 0.98 * batch / seconds / hosts  # a loader this fast makes the step 2 % longer
    for data in dict.fromkeys(row["data"] for row in rows):
      row = max((r for r in rows if r["data"] == data), key=lambda r: r["workers"])["ours"]
      cores, main = rate * row["cpu"], rate * row["main"]
      busy = f"{100 * main:.0f} % of a core" + ("" if main < 1 else ": too slow")
      out.append(f"| {name} | {data} | {rate:,.0f} | {cores:.2f} | {busy} |")
  return out


def parse_step(text: str) -> tuple[str, tuple[float, int, int]]:
  """'name=seconds:batch:hosts'."""
  name, _, rest = text.rpartition("=")
  seconds, batch, hosts = rest.split(":")
  return name, (float(seconds), int(batch), int(hosts))


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--json", action="store_true", help="one JSON object at the end instead of tables")
  parser.add_argument("--seconds", type=float, default=5.0, help="of measuring, for each row and loader")
  parser.add_argument("--step", action="append", type=parse_step, metavar="NAME=SECONDS:BATCH:HOSTS")
  options = parser.parse_args()
  warnings.simplefilter("ignore")
  loader.MEMORY = 0
  print(HEAD)
  rows = run(options.seconds)
  steps = dict(options.step) if options.step else STEPS
  if options.json:
    machine = {"cores": len(os.sched_getaffinity(0)), "system": platform.platform(), "python": sys.version.split()[0]}
    print(json.dumps({"machine": machine, "batch": BATCH, "rows": rows, "steps": steps}))
  else:
    print("\n" + "\n".join(needs(rows, steps)))


if __name__ == "__main__":
  main()

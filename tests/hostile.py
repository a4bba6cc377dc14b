"""Damage for files: seeded mutations of bytes and of JSON, and the watch that is kept while a reader reads them."""

import contextlib
import json
import os
import random
import resource
import signal
import tempfile
import zipfile
from pathlib import Path

from latents.errors import UserError

SECONDS = 10  # for one file
MEBIBYTES = 700  # that the process may grow by, over all files of a reader
VALUES = (
  None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 10**400, 0.5, -1e308, float("nan"), float("inf"),
  "", "x", "../../../outside/secret", "/etc/passwd", "a" * 5000, "\0", "\ud800", "<script>alert(1)</script>",
  "{DATASET.__class__}", "os:system", "latents.experiment:Experiment", [], {}, [[]], [0] * 5000, {"": None},
)  # fmt: skip
TOKENS = (b"\0" * 8, b"\xff" * 8, b"\x7f\xff\xff\xff", b"../../", b"9" * 12, b"{", b"]", b"PK\x03\x04", b"\x80\x02")


def damage(data: bytes, rng: random.Random) -> bytes:
  """One to three ways of damage."""
  for _ in range(rng.choice((1, 1, 2, 3))):
    data = rng.choice((flip, flip, cut, splice, overwrite, remove))(bytearray(data), rng) if data else data
  return bytes(data)


def flip(data, rng):
  for _ in range(rng.choice((1, 3, 30))):
    place = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(256, len(data)))
    data[place] ^= 1 << rng.randrange(8)
  return data


def cut(data, rng):
  return data[: rng.randrange(len(data))]


def splice(data, rng):
  start, target, size = rng.randrange(len(data)), rng.randrange(len(data)), rng.randrange(400)
  data[target : target + rng.choice((0, size))] = data[start : start + size]
  return data


def overwrite(data, rng):
  token = rng.choice(TOKENS)
  place = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(256, len(data)))
  data[place : place + len(token)] = token
  return data


def remove(data, rng):
  place = rng.randrange(len(data))
  del data[place : place + rng.randrange(1, 64)]
  return data


def change(text: str, rng: random.Random) -> str:
  """JSON with one to three of its nodes replaced, deleted, doubled or swapped; sometimes nested without end."""
  if rng.random() < 0.03:
    return "[" * 100_000
  tree = [json.loads(text)]
  for _ in range(rng.choice((1, 1, 2, 3))):
    places = list(nodes(tree))
    holder, key = rng.choice(places)
    match rng.choice(("value", "value", "value", "delete", "deep", "swap", "key")):
      case "value":
        holder[key] = rng.choice(VALUES)
      case "delete" if holder is not tree:
        del holder[key]
      case "deep":
        for _ in range(rng.choice((5, 70, 600))):
          holder[key] = [holder[key]]
      case "swap":
        other, name = rng.choice(places)
        with contextlib.suppress(KeyError, IndexError):
          holder[key] = json.loads(json.dumps(other[name]))
      case "key" if isinstance(holder, dict):
        holder[rng.choice(("", "x", "../x", "!", "<b>", "pythonClassName"))] = holder.pop(key)
  try:
    return json.dumps(tree[0])
  except RecursionError:
    return "[" * 5000


def nodes(tree):
  """(holder, key) of every node below."""
  stack = [tree]
  while stack:
    holder = stack.pop()
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
      yield holder, key
      if isinstance(holder[key], dict | list):
        stack.append(holder[key])


def pack(files: dict[str, bytes], compress: bool = True) -> bytes:
  """A zip archive."""
  with tempfile.TemporaryFile() as file:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
      for name, data in files.items():
        archive.writestr(name, data)
    file.seek(0)
    return file.read()


class Watch:
  """Counts what comes of a reader's calls, and fails for what may not: see tests/test_fuzz.py."""

  def __init__(self, allowed: tuple[type[Exception], ...] = (UserError,)):
    self.allowed = allowed
    self.read = self.refused = 0

  def call(self, what: str, read) -> None:
    def late(*_):
      raise AssertionError(f"{what}: longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
      read()
      self.read += 1
    except self.allowed as error:
      assert "\n" not in str(error), f"{what}: more than one line"
      self.refused += 1
    except AssertionError:
      raise
    except BaseException as error:
      raise AssertionError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from error
    finally:
      signal.alarm(0)
      signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def watched(folder: Path):
  """Inside, `folder`/outside is not changed, the process is not swollen, and the working folder is `folder`/inside."""
  outside, inside = folder / "outside", folder / "inside"
  outside.mkdir()
  inside.mkdir()
  (outside / "secret").write_text("secret")
  before, here = peak(), os.getcwd()
  os.chdir(inside)
  try:
    yield inside
  finally:
    os.chdir(here)
  assert os.listdir(outside) == ["secret"] and (outside / "secret").read_text() == "secret"
  assert sorted(os.listdir(folder)) == ["inside", "outside"]
  assert peak() - before < MEBIBYTES, f"grew by {peak() - before:.0f} MiB"


def peak() -> float:
  """The most memory this process has had, MiB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

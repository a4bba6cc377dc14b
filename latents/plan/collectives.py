"""What a compiled program sends between devices, read from its text (HLO, after partitioning and scheduling).

All kinds are summed, since the TPU compiler merges weight gathers and gradient sums into tuples of its own
choice. Ring algorithms, n devices in a group, P bytes the whole array of the group (per device for
all-to-all and permute); each device sends
  all-gather, reduce-scatter: (n-1)/n P; all-reduce: 2 (n-1)/n P; all-to-all: (n-1)/n P; permute, broadcast: P.
A group over s islands (slices, hosts) of m devices each is taken as hierarchical: first within the island,
as above with m, then each device exchanges its share P/m with the other islands.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

KINDS = (
  "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
  "collective-broadcast",
)  # fmt: skip
SIZES = {"pred": 1, "token": 0, "c64": 8, "c128": 16, "s4": 0.5, "u4": 0.5, "s2": 0.25, "u2": 0.25}
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
SETS = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Collective:
  """kind; bytes: P of the module's docstring; groups: mesh positions; times: a step (0 = in a loop of unknown length,
  counted once); loop: whether it stands in such a loop."""

  kind: str
  bytes: float
  groups: tuple[tuple[int, ...], ...]
  times: int = 1
  loop: bool = False

  def sent(self, islands: Sequence[int]) -> tuple[float, float]:
    """(bytes over links, bytes beyond the island) that a device sends in a step; islands: of every position."""
    link = network = 0.0
    for group in self.groups:
      counts = np.unique([islands[i] for i in group], return_counts=True)[1]
      one, other = _sent(self.kind, self.bytes, len(group), int(counts.max()), len(counts))
      link, network = max(link, one), max(network, other)
    return link * self.times, network * self.times

  def axes(self, shape: dict[str, int]) -> str:
    """The mesh axes along which its groups extend, e.g. 'data+fsdp'; shape: axis -> size, in the mesh's order."""
    seen = set()
    for group in self.groups:
      places = np.array(np.unravel_index(group, tuple(shape.values())))
      seen |= {name for name, row in zip(shape, places, strict=True) if len(set(row.tolist())) > 1}
    return "+".join(name for name in shape if name in seen)


def _sent(kind: str, total: float, n: int, m: int, s: int) -> tuple[float, float]:
  if kind in ("collective-permute", "collective-broadcast"):
    return (total, 0.0) if s == 1 else (0.0, total)
  if kind in ("all-to-all", "ragged-all-to-all"):
    return total * (m - 1) / n, total * (n - m) / n
  both = 2 if kind == "all-reduce" else 1
  return both * total * (m - 1) / m, both * total / m * (s - 1) / s


def read(text: str, devices: int) -> list[Collective]:
  """All collectives of a step, of the text of `compiled.as_text()`; loops multiplied by their trip counts."""
  bodies, entry = _computations(text)
  return list(_walk(bodies, entry, 1, False, devices))


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  bodies: dict[str, list[str]] = {}
  entry = name = ""
  for line in text.splitlines():
    head = re.match(r"^(ENTRY )?%?([\w.\-]+)\s.*\{\s*$", line)
    if head and not line.startswith(("HloModule", " ")):
      name = head.group(2)
      entry = name if head.group(1) else entry
      bodies[name] = []
    elif line.startswith("}"):
      name = ""
    elif name:
      bodies[name].append(line)
  return bodies, entry


def _walk(bodies: dict[str, list[str]], name: str, times: int, loop: bool, devices: int) -> Iterator[Collective]:
  for line in bodies.get(name, ()):
    match = INSTRUCTION.match(line)
    if match is None:
      continue
    shape, operation, rest = _split(match.group(2))
    kind = operation.removesuffix("-start")
    if kind in KINDS:
      found = _collective(kind, operation, shape, rest, devices)
      if "all-reduce-scatter" in name:  # the TPU compiler's fusion: reduced, and each keeps its part
        found = dataclasses.replace(found, kind="reduce-scatter")
      yield dataclasses.replace(found, times=times, loop=loop)
    elif operation == "conditional":
      branches = [list(_walk(bodies, b, times, loop, devices)) for b in _called(rest)]
      yield from max(branches, key=lambda b: sum(c.bytes * c.times for c in b), default=[])
    elif operation == "while":
      trips = re.search(r'known_trip_count"?:\s*\{"n":"?(\d+)', rest)
      for inner in _called(rest):
        yield from _walk(bodies, inner, times * int(trips.group(1) if trips else 1), loop or not trips, devices)
    elif not operation.endswith(("-done", "-update")):  # what they name was counted at the start
      for inner in _called(rest):
        yield from _walk(bodies, inner, times, loop, devices)


def _split(text: str) -> tuple[str, str, str]:
  """'SHAPE operation(operands), attributes' -> its three parts."""
  end = text.find(" ")
  if text.startswith("("):
    depth = 0
    for end, letter in enumerate(text):  # noqa: B007
      depth += (letter == "(") - (letter == ")")
      if not depth:
        break
    end += 1
  operation = re.match(r"\s*([\w\-]+)\(", text[end:])
  return text[:end], operation.group(1) if operation else "", text[end:]


def _called(rest: str) -> list[str]:
  sets = [w.strip().lstrip("%") for group in SETS.findall(rest) for w in group.split(",")]
  return [*CALLED.findall(rest), *(w for w in sets if w)]


def _collective(kind: str, operation: str, shape: str, rest: str, devices: int) -> Collective:
  groups = _groups(rest, devices)
  if operation.endswith("-start") and kind != "all-reduce":
    parts = _parts(shape)  # (operands, results, contexts)
    size = _bytes(parts[1] if len(parts) > 1 else shape)
  else:
    size = _bytes(shape)
  if kind == "reduce-scatter":
    size *= len(groups[0])
  return Collective(kind, size, groups)


def _parts(shape: str) -> list[str]:
  """The elements of a tuple shape; of another shape, itself."""
  if not shape.startswith("("):
    return [shape]
  parts, depth, start = [], 0, 1
  for i, letter in enumerate(shape):
    depth += (letter in "([{") - (letter in ")]}")
    if depth == 0 or (depth == 1 and letter == ","):
      parts.append(shape[start:i])
      start = i + 1
  return parts


def _bytes(shape: str) -> float:
  total = 0.0
  for dtype, dims in re.findall(r"\b([a-z]\w*)\[([\d,<= ]*)\]", shape):
    bits = re.match(r"[a-z]+(\d+)", dtype)
    size = SIZES.get(dtype, int(bits.group(1)) / 8 if bits else 0)
    total += size * math.prod(int(n.strip().lstrip("<=")) for n in dims.split(",") if n.strip())
  return total


def _groups(rest: str, devices: int) -> tuple[tuple[int, ...], ...]:
  pairs = re.search(r"source_target_pairs=\{(\{.*?\})\}", rest)
  if pairs:
    return _listed(pairs.group(1))
  iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest)
  if iota:
    out, dims, order = ([int(n) for n in g.split(",")] if g else None for g in iota.groups())
    assert out is not None and dims is not None
    ids = np.arange(math.prod(dims)).reshape(dims).transpose(order).reshape(out[0], -1)
    return tuple(tuple(row) for row in ids.tolist())
  listed = re.search(r"replica_groups=\{(\{.*?\})\}", rest)
  return _listed(listed.group(1)) if listed else (tuple(range(devices)),)


def _listed(text: str) -> tuple[tuple[int, ...], ...]:
  return tuple(tuple(int(n) for n in g.split(",")) for g in re.findall(r"\{([\d,]+)\}", text))


def summary(found: Sequence[Collective], shape: dict[str, int], islands: Sequence[int]) -> dict:
  """By kind and by mesh axis: operations, bytes that a device sends over links and beyond its island, a step."""
  rows: dict[tuple[str, str], dict[str, float]] = {}
  for one in found:
    axes = one.axes(shape)
    if not axes:
      continue  # groups of one device send nothing
    link, network = one.sent(islands)
    row = rows.setdefault((one.kind, axes), {"operations": 0, "payload": 0.0, "link": 0.0, "network": 0.0})
    for key, value in zip(row, (one.times, one.bytes * one.times, link, network), strict=True):
      row[key] += value
  ordered = sorted(rows.items(), key=lambda kv: -kv[1]["link"] - kv[1]["network"])
  return {
    "rows": [{"kind": kind, "axes": axes, **{k: int(v) for k, v in row.items()}} for (kind, axes), row in ordered],
    "link": int(sum(row["link"] for row in rows.values())),
    "network": int(sum(row["network"] for row in rows.values())),
    "in_unknown_loops": sum(one.loop for one in found),
  }


def merged(found: Sequence[Collective]) -> list[list]:
  """A short JSON form: equal collectives once, with the sum of their times; `restored` reads it."""
  key = lambda c: (c.kind, c.bytes, c.groups, c.loop)  # noqa: E731
  return [
    [kind, size, list(map(list, groups)), sum(c.times for c in same), loop]
    for (kind, size, groups, loop), same in itertools.groupby(sorted(found, key=key), key=key)
  ]


def restored(rows: Sequence[Sequence]) -> list[Collective]:
  """The inverse of `merged`."""
  return [Collective(k, b, tuple(map(tuple, g)), t, loop) for k, b, g, t, loop in rows]

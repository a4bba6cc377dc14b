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

from latents.plan import hlo

KINDS = (
  "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
  "collective-broadcast",
)  # fmt: skip


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


def read(module: hlo.Module, devices: int, slices: int = 1) -> list[Collective]:
  """All collectives of a step; loops multiplied by their trip counts.

  slices: of TPUs. Each runs the program on its own devices // slices; what passes between them goes through the
  hosts, as sends to the runtime for several slices.
  """
  return list(_walk(module, module.entry, 1, False, (devices // slices, slices), set()))


def _walk(
  module: hlo.Module, computation: str, times: int, loop: bool, devices: tuple[int, int], seen: set[str]
) -> Iterator[Collective]:
  """seen: channels that were counted. The TPU compiler spreads one collective over the fusions that it overlaps."""
  for name, made in module[computation].items():
    kind = made.operation.removesuffix("-start")
    if name == "ROOT":
      continue  # it stands under its own name too
    if kind in KINDS:
      channel = re.search(r"channel_id=(\d+)", made.rest)
      if channel is None or channel.group(1) not in seen:
        seen |= {channel.group(1)} if channel else set()
        found = _collective(kind, made, devices[0])
        if "all-reduce-scatter" in computation:  # a fusion of the TPU compiler: summed, and each keeps its part
          found = dataclasses.replace(found, kind="reduce-scatter")
        yield dataclasses.replace(found, times=times, loop=loop)
    elif made.operation == "send" and (between := re.search(r'_xla_megascale_transfer_type="(\w+)"', made.rest)):
      yield dataclasses.replace(_between(between.group(1), made, *devices), times=times, loop=loop)
    elif made.operation == "conditional":
      branches = [(list(_walk(module, b, times, loop, devices, new := set(seen))), new) for b in made.called()]
      for _, new in branches:
        seen |= new
      yield from max((b for b, _ in branches), key=lambda b: sum(c.bytes * c.times for c in b), default=[])
    elif made.operation == "while":
      trips = module.trips(computation, made)
      for inner in made.called():
        yield from _walk(module, inner, times * (trips or 1), loop or trips is None, devices, seen)
    elif not made.operation.endswith(("-done", "-update")):  # what they name was counted at the start
      for inner in made.called():
        yield from _walk(module, inner, times, loop, devices, seen)


def _collective(kind: str, made: hlo.Instruction, devices: int) -> Collective:
  groups, shape = _groups(made.rest, devices), made.shape
  if made.operation.endswith("-start") and kind != "all-reduce":
    parts = hlo.elements(shape)  # (operands, results, contexts)
    shape = parts[1] if len(parts) > 1 else shape
  size = hlo.size(shape) * (len(groups[0]) if kind == "reduce-scatter" else 1)
  return Collective(kind, size, groups)


def _between(kind: str, made: hlo.Instruction, devices: int, slices: int) -> Collective:
  """Each device and its fellows in the other slices: they stand as far apart in the mesh as a slice is large."""
  kind = kind.lower().replace("_", "-")
  size = hlo.size(hlo.elements(made.shape)[0]) * (slices if kind == "all-gather" else 1)
  groups = tuple(tuple(range(i, devices * slices, devices)) for i in range(devices))
  return Collective(kind if kind in KINDS else "collective-permute", size, groups)


def _groups(rest: str, devices: int) -> tuple[tuple[int, ...], ...]:
  """Of any of the four forms: pairs, lists, [4,4]<=[16]T(1,0), mesh['a'=4,'b'=4] {'a'}."""
  pairs = re.search(r"source_target_pairs=\{(\{.*?\})\}", rest)
  if pairs:
    return _listed(pairs.group(1))
  iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest)
  if iota:
    out, dims, order = (_integers(g) if g else None for g in iota.groups())
    assert out is not None and dims is not None
    return _rows(np.arange(math.prod(dims)).reshape(dims).transpose(order).reshape(out[0], -1))
  mesh = re.search(r"replica_groups=mesh\[([^\]]*)\]([^{]*)\{([^}]*)\}", rest)
  if mesh:
    return _of_mesh(*mesh.groups())
  listed = re.search(r"replica_groups=\{(\{.*?\})\}", rest)
  return _listed(listed.group(1)) if listed else (tuple(range(devices)),)


def _of_mesh(axes: str, order: str, chosen: str) -> tuple[tuple[int, ...], ...]:
  """axes: 'a'=4,'b'=4. order: of the devices, none = 0, 1, ... chosen: 'a', or a part of an axis, 'a':(2)2."""
  shape = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", axes)}
  iota = re.search(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", order)
  ids = np.arange(math.prod(shape.values()))
  if iota:
    ids = ids.reshape(_integers(iota.group(1))).transpose(_integers(iota.group(2)) if iota.group(2) else None)
  parts: list[tuple[str, int, bool]] = []  # every axis cut into (before, part, after); is it a chosen part?
  wanted = {name: (before, size) for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", chosen)}
  for name, n in shape.items():
    before, size = (int(w) if w else None for w in wanted.get(name, ("1", "1")))
    before, size = before or 1, size or n
    parts += [(name, before, False), (name, size, True), (name, n // before // size, False)]
  grid = ids.reshape([n for _, n, _ in parts])
  inside = [i for i, part in enumerate(parts) if part[2]]
  outside = [i for i, part in enumerate(parts) if not part[2]]
  return _rows(grid.transpose([*outside, *inside]).reshape(-1, math.prod(parts[i][1] for i in inside)))


def _integers(text: str) -> list[int]:
  return [int(n) for n in text.split(",")]


def _rows(table: np.ndarray) -> tuple[tuple[int, ...], ...]:
  return tuple(tuple(row) for row in table.tolist())


def _listed(text: str) -> tuple[tuple[int, ...], ...]:
  return tuple(tuple(_integers(g)) for g in re.findall(r"\{([\d,]+)\}", text))


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

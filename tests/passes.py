"""The dear tests of experiment files, and the list of files that have passed them as they stand.

    python -m tests.passes          passes every file that is older than the code; goes on where it was stopped

A pass is the paper scale's two steps, traced at full size, and two real steps of each stage at the tiny scale. It stays
good until the declaration (the golden text) changes, or a file that the experiment or this check imports, directly or
through others: passes.json holds the hash of all of them, and the counts of parameters at paper size.

An import of a name through a room's `__init__` leads to the file that has the name, not to the whole room.
"""

import ast
import dataclasses
import functools
import hashlib
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from latents.data import Folder, Tfds, batches
from latents.declare import Stage1, dumps, to_json
from latents.declare.check import every_stage
from latents.train import objective, partition
from latents.train.build_step import abstract_autoencoder, build_step
from latents.train.sharding import place, place_batch
from latents.train.state import flatten
from latents.use.model import stage1_arrays
from tests import micro
from tests.declared import FILES, GOLDEN, build, make_data

ROOT = Path(__file__).parent.parent
PASSES = Path(__file__).parent / "passes.json"
BUDGET = 4  # files that a test run passes again; where more are older than the code, so many of them, spread


# -- what a pass depends on


def module_file(name: str) -> Path | None:
  """The file of a module of this repository; None for others, and for what is no module."""
  if name.split(".")[0] not in ("latents", "experiments"):
    return None
  base = ROOT.joinpath(*name.split("."))
  return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@functools.cache
def parsed(path: Path) -> ast.Module:
  return ast.parse(path.read_text())


def leads(module: str, name: str) -> set[Path]:
  """The files that `from module import name` leads to; where an `__init__` hands a name on, the file it is from."""
  inner, path = module_file(f"{module}.{name}"), module_file(module)
  found = {inner} if inner is not None else set()
  if path is None:
    return found
  handed = {alias.asname or alias.name: (node.module or "", alias.name) for node in parsed(path).body
            if isinstance(node, ast.ImportFrom) for alias in node.names}  # fmt: skip
  if path.name == "__init__.py" and name in handed:
    return found | leads(*handed[name])
  own = {getattr(node, "name", "") for node in parsed(path).body}
  return found | {path} if not found or name in own else found


@functools.cache
def imports(path: Path) -> frozenset[Path]:
  """The files of this repository that a file imports, anywhere in it."""
  found: set[Path] = set()
  for node in ast.walk(parsed(path)):
    if isinstance(node, ast.ImportFrom):
      found |= {p for alias in node.names for p in leads(node.module or "", alias.name)}
    elif isinstance(node, ast.Import):
      found |= {p for alias in node.names if (p := module_file(alias.name)) is not None}
  return frozenset(found)


def closure(path: Path) -> set[Path]:
  """A file and all that it imports, with what those import."""
  found, open_ = {path}, [path]
  while open_:
    new = imports(open_.pop()) - found
    found |= new
    open_ += new
  return found


def key(path: Path) -> str:
  """Ten hex digits of all that a pass of an experiment file depends on."""
  files = closure(path) | closure(Path(__file__))
  known = [(str(p.relative_to(ROOT)), hashlib.sha256(p.read_bytes()).hexdigest()) for p in sorted(files)]
  golden = GOLDEN / f"{path.stem}.json"
  text = golden.read_text() if golden.is_file() else ""
  return hashlib.sha256(json.dumps([known, text]).encode()).hexdigest()[:10]


# -- the list


def stored() -> dict[str, Any]:
  """name -> {"key", "parameters": [autoencoder, prior] at paper scale, "seconds"}."""
  return json.loads(PASSES.read_text()) if PASSES.is_file() else {}


def older() -> list[Path]:
  """The experiment files whose pass is older than the code."""
  known = stored()
  return [p for p in FILES if known.get(p.stem, {}).get("key") != key(p)]


def now(files: list[Path]) -> list[Path]:
  """Which of the files that are older than the code a test run passes: all that never passed, a sample of others."""
  known = stored()
  return [p for p in files if p.stem not in known] + spread([p for p in files if p.stem in known])


def spread(files: list[Path], most: int = BUDGET) -> list[Path]:
  """At most so many of them, of all chapters in turn; which ones changes with the code."""
  if len(files) <= most:
    return files
  order = sorted(files, key=lambda p: hashlib.sha256(f"{p.stem} {key(p)}".encode()).digest())
  rank = {p: [q for q in order if q.parent == p.parent].index(p) for p in order}
  return sorted(order, key=lambda p: (rank[p], order.index(p)))[:most]


# -- a pass


def paper_traces(path: Path, data: Path) -> tuple[int, int]:
  """The steps of both stages and of all before them at full size, without memory: shapes, names of terms;
  (autoencoder, prior) parameters that both train."""
  made, counts, known = build(path, "paper", data), {}, {}
  for name, stage in every_stage(made):
    number = 1 if isinstance(stage, Stage1) else 2
    same = json.dumps(to_json(stage))  # a chain of rounds names each stage many times
    if same not in known:
      alone = {"stage1": stage, "stage2": None} if number == 1 else {"stage2": stage}
      known[same] = paper_trace(dataclasses.replace(made, **alone), number)
    counts[name] = known[same]
  return counts["stage1"], counts.get("stage2", 0)


def paper_trace(made: Any, stage: int) -> int:
  """One stage's step, traced; the number of parameters that it trains."""
  program = build_step(made, stage, micro.one_device())
  state, logs = program.step.shapes(program.state, program.frozen, program.batch)
  assert jax.tree.map(lambda a: (a.shape, a.dtype), state) == jax.tree.map(lambda a: (a.shape, a.dtype), program.state)
  assert all(log.shape == () for log in logs.values())
  assert all(a.dtype == np.float32 for a in jax.tree.leaves(program.state.params))
  return sum(a.size for a in jax.tree.leaves(program.state.params["ae" if stage == 1 else "prior"]))


@dataclasses.dataclass
class FakeArtefact:
  weights: dict
  facts: dict


def tiny_steps(path: Path, data: Path) -> None:
  """Two real steps of each stage: finite, none skipped, and something has moved. Two examples a step, or the declared
  number where a codebook starts from a batch."""
  made = build(path, "tiny", data)
  made = dataclasses.replace(
    made,
    stage1=dataclasses.replace(
      present(made.stage1, data), batch=made.stage1.batch if re.search(r'"kmeans": \d', dumps(made)) else 2
    ),
    stage2=made.stage2 and dataclasses.replace(present(made.stage2, data), batch=2, cache=False),
  )
  mesh = micro.one_device()
  one = build_step(made, 1, mesh)
  state = one.init()
  if made.stage1.steps:
    state = _two_steps(one, state, _frozen(one, made.stage1, {}), made.stage1, made.seed)
  if made.stage2 is None:
    return
  shapes = abstract_autoencoder(made)
  statistics = {k: np.full(shapes[k].shape, v).tolist() for k, v in (("mean", 0.0), ("std", 1.0))}
  variables = partition.merge(jax.device_get(one.fixed()), jax.device_get(state.ema))
  artefact: Any = FakeArtefact(flatten(variables), {"statistics": statistics})
  arrays = stage1_arrays(made, artefact, "memory")
  two = build_step(made, 2, mesh)
  _two_steps(two, two.init(), _frozen(two, made.stage2, arrays), made.stage2, made.seed)


def present(stage: Any, data: Path) -> Any:
  """A stage of a TFDS data set on pictures of ours, which are there: no test needs what somebody must bring."""
  if not isinstance(stage.data, Tfds):
    return stage
  return dataclasses.replace(stage, data=Folder(path=str(data / "pictures"), size=stage.data.size))


def _frozen(program: Any, stage: Any, arrays: dict[str, Any]) -> dict[str, Any]:
  """What a step reads and does not change: `arrays`, what is not trained, and the losses' networks; at random where
  other stages would have trained it."""
  rng, known = np.random.default_rng(0), objective.load_frozen(stage.losses)

  def drawn(a: Any) -> np.ndarray:
    return 0.05 * rng.standard_normal(a.shape).astype(a.dtype)

  def trained(path: Any, a: Any) -> np.ndarray:  # a teacher whose last layer is 0 would have nothing to teach
    return a + drawn(a) if a.ndim > 1 and path[0].key == "params" else a

  networks = {n: known[n] if n in known else jax.tree.map(drawn, t) for n, t in program.frozen["losses"].items()}
  fixed = jax.tree_util.tree_map_with_path(trained, jax.device_get(program.fixed()))
  return place({**arrays, "losses": networks, "fixed": fixed}, program.mesh)


def _two_steps(program: Any, state: Any, frozen: Any, stage: Any, seed: int) -> Any:
  before = jax.device_get(state.params)
  with batches(stage.data, split="train", batch=stage.batch, seed=seed) as stream:
    for _ in range(2):
      batch = next(stream)
      if "stored" in program.batch:  # merged tokens: a table is fitted on a cache, and any tokens will do here
        tokens = np.random.default_rng(0).integers(0, 2, program.batch["stored"].shape, np.int32)
        made = {name: tokens for name in program.batch if "stored" in name or "places" in name}
        batch = {**{name: array for name, array in batch.items() if name != "x"}, **made}
      state, logs = program.step(state, frozen, place_batch(batch, stage.batch, program.mesh))
  assert np.isfinite(float(logs["total"])) and int(state.extra["skipped_total"]) == 0
  after = jax.device_get(state.params)
  moved = [not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)]
  assert any(moved)
  return state


def main() -> None:
  """Pass every file that is older than the code, and write each pass down."""
  with tempfile.TemporaryDirectory() as folder:
    data, todo = make_data(Path(folder)), sorted(older(), key=lambda p: p.stem in stored())  # the new ones first
    print(f"{len(todo)} of {len(FILES)} files are older than the code", flush=True)
    for path in todo:
      begun = time.monotonic()
      counts = paper_traces(path, data)
      tiny_steps(path, data)
      jax.clear_caches()
      seconds = round(time.monotonic() - begun, 1)
      known = {**stored(), path.stem: {"key": key(path), "parameters": counts, "seconds": seconds}}
      known = {p.stem: known[p.stem] for p in FILES if p.stem in known}
      temporary = PASSES.with_suffix(".tmp")
      temporary.write_text(json.dumps(known, indent=1) + "\n")
      os.replace(temporary, PASSES)
      print(f"{path.stem}: {seconds} s", flush=True)


if __name__ == "__main__":
  main()

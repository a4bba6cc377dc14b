"""Time and memory of a training pass of every quantiser beside vector-quantize-pytorch, in one run.

  taskset -c 1 python tests/benchmarks/quantisers.py [--json] [--runs 3] [--steps 8] [--only TASK] [--device cpu|gpu]
  taskset -c 1 python tests/benchmarks/quantisers.py --alone [--device cpu|gpu]

A pass: codes, z and the terms of a batch, their gradients to the batch and to a learned codebook with a push on z, and
the new averages. Ours also measures usage and perplexity. Defaults of the package are overridden so that both compute
the same: see `torch_step`. No projections. float32; the two sides as of `sides`.

Both sides have the same vectors and codebooks; the mean of the codes, the terms, the push on z and the lengths of the
gradients of step 1 must agree to 1e-4, or there is no table. --alone: 65,536 vectors of 256 among 16,384 codes, ours
only, with its peak of memory: all distances would be 4 GiB. --device gpu needs jax[cuda13] and torch with CUDA.
"""

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")))

from tests.benchmarks import sides

# nearest codes: (kind, vectors, V, D); the others: (kind, vectors, bits or levels). 18 bits: the package makes a table
# of 2^18 numbers for every vector, some times over: 512 of them take 4 GiB.
KINDS: dict[str, tuple[Any, ...]] = {
  "vq 16k": ("vq", 16384, 16384, 256),
  "ema 16k": ("ema", 16384, 16384, 256),
  "rotation 16k": ("rotation", 16384, 16384, 256),
  "vq 1k": ("vq", 16384, 1024, 64),
  "ema 1k": ("ema", 16384, 1024, 64),
  "rotation 1k": ("rotation", 16384, 1024, 64),
  "vq 8k narrow": ("vq", 16384, 8192, 8),
  "residual 8 x 1k": ("residual", 16384, 1024, 64),
  "fsq": ("fsq", 262144, (8, 8, 8, 6, 5)),
  "fsq symmetric": ("symmetric", 262144, (8, 8, 8, 6, 5)),
  "lfq 10 bits": ("lfq", 16384, 10),
  "lfq 18 bits": ("lfq", 512, 18),
  "bsq 10 bits": ("bsq", 16384, 10),
  "bsq 18 bits": ("bsq", 512, 18),
}
ALONE = ("vq", 65536, 16384, 256)
STAGES = 8


def arrays(spec: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(vectors [1,M,D], what pushes on z [1,M,D], codebooks [G,V,D] or none): of a codebook's, vectors lie near rows."""
  rng, (kind, count, size) = np.random.default_rng(0), spec[:3]
  dim = spec[3] if len(spec) > 3 else size if isinstance(size, int) else len(size)
  push, noise = (rng.standard_normal((1, count, dim), np.float32) for _ in range(2))
  if len(spec) == 3:
    noise = np.sign(noise) + 0.1 * noise if size == 18 else noise  # its logarithm stops at 1e-5: far from where it does
    return noise, push / push.size, np.zeros((0, 1, dim), np.float32)
  books = rng.standard_normal((STAGES if kind == "residual" else 1, size, dim), np.float32)
  books *= 0.7 ** np.arange(len(books), dtype=np.float32)[:, None, None]
  return books[0][rng.integers(0, size, (1, count))] + 0.5 * noise, push / push.size, books


def latents_step(task: str, device: str, spec: tuple[Any, ...] | None = None) -> tuple[Callable[[], Any], int]:
  """(one pass, waited for, that gives the numbers to compare; numbers in codebooks) of our quantiser."""
  from latents.machine import environment

  if device == "cpu":
    environment.keep_memory()
  import jax
  import jax.numpy as jnp

  from latents.bottlenecks import BSQ, EMAVQ, FSQ, LFQ, VQ, ResidualVQ

  spec = spec or KINDS[task]
  kind, _, size = spec[:3]
  h, push, books = arrays(spec)
  params, held = {}, {}
  if len(spec) > 3:
    sizes: dict[str, Any] = {"vocab": size, "dim": spec[3], "project": False}
    ema, states = EMAVQ(**sizes), [{"embedding": b, "counts": np.ones(len(b), np.float32), "sums": b} for b in books]
    module: Any = VQ(**sizes, beta=1.0, gradient="rotation" if kind == "rotation" else "straight")
    params = {"codebook": books[0]}
    if kind in ("ema", "residual"):
      module, params, held = ema, {}, states[0]
    if kind == "residual":
      module, held = ResidualVQ(ema, STAGES), {f"stages_{i}": state for i, state in enumerate(states)}
  elif kind in ("fsq", "symmetric"):
    module = FSQ(size, project=False, symmetric=kind == "symmetric")
  else:
    module = (LFQ if kind == "lfq" else BSQ)(bits=size, joint=size, project=False)

  def objective(params: Any, h: Any, held: Any) -> tuple[Any, Any]:
    latent, state = module.apply({"params": params, "codebook": held}, h, train=True, mutable=["codebook"])
    terms, pushed = sum(latent.terms.values(), start=jnp.zeros(())), (latent.z * push).sum()
    return terms + pushed, (latent, terms, pushed, state.get("codebook", {}))

  @jax.jit
  def one(params: Any, h: Any, held: Any) -> Any:
    (of_params, of_h), (latent, terms, pushed, state) = jax.grad(objective, (0, 1), has_aux=True)(params, h, held)
    lengths = [
      jnp.sqrt(sum((jnp.square(a).sum() for a in jax.tree.leaves(g)), jnp.zeros(()))) for g in (of_h, of_params)
    ]
    compared = [latent.codes.astype(jnp.float32).mean(), terms, pushed, *lengths]
    return jnp.stack(compared), state, (of_params, of_h, latent.z, latent.codes, latent.logs)

  params, h, push, state = jax.device_put((params, h, push, held))
  kept = [state]

  def step() -> list[float]:
    numbers, kept[0], _ = one(params, h, kept[0])
    return [float(n) for n in numbers]

  return step, books.size


def torch_step(task: str, device: str) -> tuple[Callable[[], Any], int]:
  """The same of vector-quantize-pytorch. Its residual quantiser goes straight through every stage, so that z's push
  counts once a stage: it is divided by them. A learned codebook has one square there, whose value ours counts twice.
  Its FSQ bounds by 1 + 1e-3 where the paper has 1 - 1e-3. The first of its bits is the most significant one."""
  import functools

  import torch  # pyright: ignore[reportMissingImports]
  import vector_quantize_pytorch as vqp  # pyright: ignore[reportMissingImports]

  from tests.benchmarks import reference

  place, (kind, _, size), spec = reference.place(device), KINDS[task][:3], KINDS[task]
  h, push, books = (torch.from_numpy(a).to(place) for a in arrays(spec))
  if kind in ("lfq", "bsq"):
    h, push = h.flip(-1), push.flip(-1)
  h.requires_grad_()
  if len(spec) > 3:
    options: dict[str, Any] = {"codebook_size": size, "threshold_ema_dead_code": 0, "kmeans_init": False, "decay": 0.99}
    options |= {"rotation_trick": kind == "rotation", "commitment_weight": 1.0, "dim": spec[3]}
    if kind in ("vq", "rotation"):
      options |= {"learnable_codebook": True, "ema_update": False}
    module: Any = (
      vqp.ResidualVQ(**options, num_quantizers=STAGES) if kind == "residual" else vqp.VectorQuantize(**options)
    )
    with torch.no_grad():
      for layer, rows in zip(module.layers if kind == "residual" else [module], books, strict=True):
        layer._codebook.embed.copy_(rows[None])
        layer._codebook.embed_avg.copy_(rows[None])
        layer._codebook.cluster_size.fill_(1.0)
  elif kind in ("fsq", "symmetric"):
    module = vqp.FSQ(list(size), preserve_symmetry=kind == "symmetric")
    module.bound = functools.partial(module.bound, eps=-1e-3)
  else:
    weights = {"entropy_loss_weight": 1.0, "commitment_loss_weight": 1.0}
    module = vqp.LFQ(codebook_size=2**size, spherical=kind == "bsq", **weights)
  module.to(place).train()
  learned, share = kind in ("vq", "rotation"), STAGES if kind == "residual" else 1

  def step() -> list[float]:
    h.grad = None
    module.zero_grad(set_to_none=True)
    z, codes, *loss = module(h)
    terms: Any = sum((part.sum() for part in loss), start=torch.zeros((), device=place))
    pushed, slope = (z * push).sum(), lambda a: a.grad.norm()
    (terms + pushed / share).backward()
    book = slope(module._codebook.embed) if learned else torch.zeros(())
    numbers: list[Any] = [codes.float().mean(), terms * (1 + learned), pushed, slope(h), book]
    return [float(n.detach()) for n in numbers]

  return step, books.numel()


def alone(device: str, steps: int, as_json: bool) -> None:
  """65k vectors, ours only, in this process."""
  step, _ = latents_step("", device, ALONE)
  step()
  before, times = sides.resident(), []
  for _ in range(steps):
    begin, wall = time.process_time(), time.perf_counter()
    step()
    times.append((time.process_time() - begin, time.perf_counter() - wall))
  cpu, wall = (statistics.median(column) for column in zip(*times, strict=True))
  peak = sides.device_peak("latents") if device == "gpu" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  found = {"vectors": ALONE[1], "cpu": cpu, "wall": wall, "peak": peak, "resident": before}
  if as_json:
    print(json.dumps(found))
  else:
    whole = ALONE[1] * ALONE[2] * 4 / 2**20
    print(f"{ALONE[1]:,} vectors of {ALONE[3]} among {ALONE[2]:,} codes: {cpu:.2f} s of CPU, {wall:.2f} s; the peak of "
          f"the process {peak:,.0f} MiB; all distances would be {whole:,.0f} MiB")  # fmt: skip


def main() -> None:
  """The command line."""
  parser = sides.parser(__doc__, tuple(KINDS))
  parser.add_argument("--alone", action="store_true", help="65k vectors, ours only, and its peak of memory")
  options = parser.parse_args()
  if options.alone:
    words = ["--inside", "latents", "--alone", "--device", options.device, "--steps", str(options.steps)]
    if options.inside:
      alone(options.device, options.steps, options.json)
    elif sides.spawn(__file__, words + ["--json"] * options.json, options.device).wait():
      raise SystemExit("the process failed: see above")
  else:
    sides.begin(options, __file__, tuple(KINDS), {"latents": latents_step, "torch": torch_step})


if __name__ == "__main__":
  main()

"""Time and memory of a training step beside PyTorch, in one run.

  taskset -c 1 python tests/benchmarks/train.py [--json] [--runs 3] [--steps 8]
                                                [--device cpu|gpu]

autoencoder: stage 1, f8, ch 32, 64 x 64 x 3, L2 + KL, against diffusers' AutoencoderKL of equal widths.
dit: stage 2, DiT-S/2 on latents of 16 x 16 x 4, flow matching, against a plain DiT in PyTorch.
lightning: the same with RMSNorm, SwiGLU, rotary positions and the term of direction, against `parity/torch_dit.py`.
unet: stage 2, LDM's U-Net of two levels (128, 256) that attends to the class, on the same latents, against diffusers'
UNet2DConditionModel.
All: batch 8, float32, AdamW of equal numbers, the two sides as of `sides`. Ours is the
program that `latents run` trains with (`build_step`): it also computes the norm of the gradients, refuses updates that
are not finite, which the reference does not. Both keep an average of the weights; PyTorch's AdamW is the fused one.

On CPU glibc's allocator is told to keep memory (ours: as the command line does; see `latents.machine.environment`).
--device gpu needs jax[cuda13] and torch with CUDA.
"""

import itertools
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")))

from tests.benchmarks import sides

BATCH, LR, CLASSES = 8, 1e-4, 8
TASKS = ("autoencoder", "dit", "lightning", "unet")
ALLOCATORS: dict[str, dict[str, Any]] = {
  "glibc's default": {"keep": False, "rhythm": -1},
  "kept": {"rhythm": -1},
  "kept, returned every 8 steps": {"rhythm": 8},
}


def latents_step(task: str, device: str, keep: bool = True, rhythm: int = 0) -> tuple[Callable[[], Any], int]:
  """(one step, waited for; number of parameters) of our program.

  keep: glibc keeps what is freed. rhythm: steps after which it is given back; 0 only after the first, as before the
  training loop's first checkpoint; -1 never.
  """
  from latents.machine import environment

  if device == "cpu" and keep:
    environment.keep_memory()
  import jax
  import jax.numpy as jnp
  import numpy as np

  from latents.autoencoders import Autoencoder
  from latents.backbones import UNet, dit_s
  from latents.bottlenecks import KL
  from latents.data import Shapes
  from latents.declare import Experiment, Mesh, Stage1, Stage2
  from latents.decoders import ConvDecoder
  from latents.diffusion import Process
  from latents.encoders import ConvEncoder
  from latents.losses import L2, Weight
  from latents.optim import Adam
  from latents.priors import FlowPrior
  from latents.train import sharding
  from latents.train.build_step import build_step

  data = Shapes(size=64 if task == "autoencoder" else 128)
  model = Autoencoder(
    encoder=ConvEncoder(ch=32, mult=(1, 2, 4, 4), blocks=2, out=8),
    bottleneck=KL(dim=4),
    decoder=ConvDecoder(ch=32, mult=(1, 2, 4, 4), blocks=2),
  )
  fixed = {"optimizer": Adam(lr=LR, decay=0.01), "steps": 1000, "batch": BATCH}
  one = Stage1(data=data, model=model, losses={"l2": L2(), "kl": Weight(1e-6)}, **fixed)
  backbone, process = dit_s(2, classes=CLASSES), Process()
  if task == "lightning":
    backbone, process = backbone.clone(norm="rms", mlp="swiglu", rope=True), Process(direction=1.0)
  elif task == "unet":
    backbone = UNet(128, (1, 2), 1, (0, 1), 4, film=False, classes=CLASSES, depth=1, context=256, resample="both")
  two = Stage2(data=data, prior=FlowPrior(backbone=backbone, process=process), **fixed)
  experiment = Experiment(name="benchmark", stage1=one, stage2=two)
  mesh = sharding.make_mesh(Mesh(), jax.devices()[:1])
  stored = jax.ShapeDtypeStruct((16, 16, 8), jnp.float32)  # mean and log-variance of the posterior
  program = build_step(experiment, 1, mesh) if task == "autoencoder" else build_step(experiment, 2, mesh, stored=stored)
  rng = np.random.default_rng(0)
  rows = np.arange(BATCH, dtype=np.int32)
  batch: dict[str, Any] = {"index": rows, "label": rows % CLASSES}
  if task == "autoencoder":
    batch["x"] = rng.integers(0, 256, (BATCH, 64, 64, 3), dtype=np.uint8)
  else:
    batch["stored"] = rng.normal(size=(BATCH, 16, 16, 8)).astype(np.float32)
  frozen = jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), program.frozen)
  held, done = [program.init()], itertools.count(1)

  def step() -> float:
    held[0], scalars = program.step(held[0], frozen, sharding.place_batch(batch, BATCH, mesh))
    total = float(scalars["total"])
    number = next(done)
    if rhythm >= 0 and (number == 1 or (rhythm and number % rhythm == 0)):
      environment.return_memory()
    return total

  return step, sum(a.size for a in jax.tree.leaves(program.state.params))


def torch_step(task: str, device: str) -> tuple[Callable[[], Any], int]:
  """The same of PyTorch."""
  import torch  # pyright: ignore[reportMissingImports]

  from tests.benchmarks import reference

  place = reference.place(device)
  torch.manual_seed(0)
  model, loss = reference.TASKS[task](CLASSES)
  model.to(place)
  optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01, fused=True)
  average = [p.detach().clone() for p in model.parameters()]
  data = [torch.from_numpy(a).to(place) for a in reference.data(task, BATCH, CLASSES)]

  def step() -> float:
    optimizer.zero_grad(set_to_none=True)
    value = loss(model, *data)
    value.backward()
    optimizer.step()
    torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 0.001)
    return float(value.detach())

  return step, sum(p.numel() for p in model.parameters())


def allocator(task: str, name: str, steps: int) -> None:
  """A row of the other table, in a process of its own."""
  step, _ = latents_step(task, "cpu", **ALLOCATORS[name])
  held, times = [], []
  for _ in range(steps):
    begin = time.process_time()
    step()
    times.append(time.process_time() - begin)
    held.append(sides.resident())
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  cells = [task, name, f"{1e3 * statistics.median(times[2:]):,.0f}", f"{held[1]:,.0f}", f"{max(held):,.0f}"]
  print("| " + " | ".join([*cells, f"{held[-1]:,.0f}", f"{peak:,.0f}"]) + " |", flush=True)


def main() -> None:
  """The command line."""
  parser = sides.parser(__doc__, TASKS, tuple(ALLOCATORS))
  parser.add_argument("--allocator", action="store_true", help="24 steps of ours with each setting of glibc")
  options = parser.parse_args()
  tasks = TASKS if options.only is None else (options.only,)
  if options.inside in ALLOCATORS:
    allocator(tasks[0], options.inside, 24)
  elif options.allocator:
    print("| step | freed memory | CPU ms | MiB after 2 steps | at most after a step | after 24 | peak |")
    print("|---|---|" + "---:|" * 5, flush=True)
    for task in tasks:
      for name in ALLOCATORS:
        if sides.spawn(__file__, ["--inside", name, "--only", task], "cpu").wait():
          raise SystemExit("a process failed: see above")
  else:
    sides.begin(options, __file__, TASKS, {"latents": latents_step, "torch": torch_step})


if __name__ == "__main__":
  main()

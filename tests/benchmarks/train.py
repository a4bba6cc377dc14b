"""Time and memory of a training step beside PyTorch, in one run.

  taskset -c 1 python tests/benchmarks/train.py [--json] [--steps 8] [--only autoencoder|dit] [--device cpu|gpu]

autoencoder: stage 1, f8, ch 32, 64 x 64 x 3, L2 + KL, against diffusers' AutoencoderKL of equal widths.
dit: stage 2, DiT-S/2 on latents of 16 x 16 x 4, flow matching, against a plain DiT written below.
Both: batch 8, float32, AdamW of equal numbers, every side in a process of its own. Ours is the program that `latents
run` trains with (`build_step`): it also computes the norm of the gradients, refuses updates that are not finite and
keeps an average of the weights, which the reference does not.

On CPU every process has one core and one thread, glibc's allocator is told to keep memory (ours: as the command line
does; see `latents.environment`), and CPU seconds (`time.process_time`) are compared: on a shared machine they are the
figure to trust. With --device gpu the wall time of steps that are waited for; needs jax[cuda13] and torch with CUDA.
"""

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
sys.path.insert(0, ROOT)

BATCH, LR, CLASSES = 8, 1e-4, 8
TASKS, SIDES = ("autoencoder", "dit"), ("latents", "torch")


def latents_step(task: str, device: str) -> tuple[Callable[[], Any], int]:
  """(one step, waited for; number of parameters) of our program."""
  from latents import environment

  if device == "cpu":
    environment.keep_memory()
  import jax
  import jax.numpy as jnp
  import numpy as np

  from latents.autoencoder import Autoencoder
  from latents.backbones.dit import dit_s
  from latents.bottlenecks import KL
  from latents.data import Shapes
  from latents.decoders import ConvDecoder
  from latents.encoders import ConvEncoder
  from latents.experiment import Experiment, Mesh, Stage1, Stage2
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
  two = Stage2(data=data, prior=FlowPrior(backbone=dit_s(2, classes=CLASSES)), **fixed)
  experiment = Experiment(name="benchmark", stage1=one, stage2=two)
  mesh = sharding.make_mesh(Mesh(), jax.devices()[:1])
  stored = jax.ShapeDtypeStruct((16, 16, 8), jnp.float32)  # mean and log-variance of the posterior
  program = build_step(experiment, 1, mesh) if task == "autoencoder" else build_step(experiment, 2, mesh, stored=stored)
  rng = np.random.default_rng(0)
  batch = {"index": np.arange(BATCH, dtype=np.int32), "label": np.arange(BATCH, dtype=np.int32) % CLASSES}
  if task == "autoencoder":
    batch["x"] = rng.integers(0, 256, (BATCH, 64, 64, 3), dtype=np.uint8)
  else:
    batch["stored"] = rng.normal(size=(BATCH, 16, 16, 8)).astype(np.float32)
  frozen = jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), program.frozen)
  held = [program.init()]

  def step() -> float:
    held[0], scalars = program.step(held[0], frozen, sharding.place_batch(batch, mesh))
    return float(scalars["total"])

  return step, sum(a.size for a in jax.tree.leaves(program.state.params))


def torch_step(task: str, device: str) -> tuple[Callable[[], Any], int]:
  """The same of PyTorch."""
  import torch

  if device == "cpu":
    torch.set_num_threads(1)
  place = torch.device("cuda" if device == "gpu" else "cpu")
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as jax does by default
  torch.manual_seed(0)
  if task == "autoencoder":
    model, loss = torch_autoencoder(torch)
  else:
    model, loss = torch_dit(torch)
  model.to(place)
  optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
  data = [torch.from_numpy(a).to(place) for a in torch_data(task)]

  def step() -> float:
    optimizer.zero_grad(set_to_none=True)
    value = loss(model, *data)
    value.backward()
    optimizer.step()
    return float(value.detach())

  return step, sum(p.numel() for p in model.parameters())


def torch_data(task: str) -> list[Any]:
  """Arrays as the reference takes them: channels first."""
  import numpy as np

  rng = np.random.default_rng(0)
  if task == "autoencoder":
    return [rng.uniform(-1, 1, (BATCH, 3, 64, 64)).astype(np.float32)]
  return [rng.normal(size=(BATCH, 8, 16, 16)).astype(np.float32), np.arange(BATCH) % CLASSES]


def torch_autoencoder(torch: Any) -> tuple[Any, Callable]:
  """diffusers' AutoencoderKL; mean squared error and the KL per element."""
  from diffusers import AutoencoderKL

  model = AutoencoderKL(
    block_out_channels=(32, 64, 128, 128),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=2,
    latent_channels=4,
  )

  def loss(model: Any, x: Any) -> Any:
    posterior = model.encode(x).latent_dist
    x_hat = model.decode(posterior.sample()).sample
    return torch.nn.functional.mse_loss(x_hat, x) + 1e-6 * posterior.kl().mean() / posterior.mean[0].numel()

  return model, loss


def torch_dit(torch: Any) -> tuple[Any, Callable]:
  """DiT-S/2 (2212.09748): 12 blocks of width 384 with 6 heads, adaLN-Zero; flow matching on posterior draws."""
  nn, f = torch.nn, torch.nn.functional
  width, heads, depth = 384, 6, 12

  def modulate(x: Any, shift: Any, scale: Any) -> Any:
    return x * (1 + scale[:, None]) + shift[:, None]

  class Block(nn.Module):
    def __init__(self) -> None:
      super().__init__()
      self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
      self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
      self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
      self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Any, c: Any) -> Any:
      shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(f.silu(c)).chunk(6, -1)
      b, n, _ = x.shape
      q, k, v = self.qkv(modulate(self.norm(x), shift1, scale1)).view(b, n, 3, heads, -1).permute(2, 0, 3, 1, 4)
      h = f.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width)
      x = x + gate1[:, None] * self.out(h)
      h = self.down(f.gelu(self.up(modulate(self.norm(x), shift2, scale2)), approximate="tanh"))
      return x + gate2[:, None] * h

  class Net(nn.Module):
    def __init__(self) -> None:
      super().__init__()
      self.embed = nn.Linear(16, width)
      self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
      self.label = nn.Embedding(CLASSES + 1, width)
      self.blocks = nn.ModuleList([Block() for _ in range(depth)])
      self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
      self.modulation, self.final = nn.Linear(width, 2 * width), nn.Linear(width, 16)
      self.register_buffer("position", torch.randn(1, 64, width) * 0.5)

    def forward(self, z: Any, t: Any, label: Any) -> Any:
      b = len(z)
      tokens = z.view(b, 4, 8, 2, 8, 2).permute(0, 2, 4, 3, 5, 1).reshape(b, 64, 16)
      rates = torch.exp(-9.21 * torch.arange(128, device=z.device) / 128)
      angles = 1000 * t[:, None] * rates
      c = self.time(torch.cat([angles.cos(), angles.sin()], -1)) + self.label(label)
      h = self.embed(tokens) + self.position
      for block in self.blocks:
        h = block(h, c)
      shift, scale = self.modulation(f.silu(c)).chunk(2, -1)
      h = self.final(modulate(self.norm(h), shift, scale))
      return h.view(b, 8, 8, 2, 2, 4).permute(0, 5, 1, 3, 2, 4).reshape(b, 4, 16, 16)

  def loss(model: Any, stored: Any, label: Any) -> Any:
    mean, logvar = stored.chunk(2, 1)
    z = mean + (0.5 * logvar.clamp(-30, 20)).exp() * torch.randn_like(mean)
    tau, eps = torch.sigmoid(torch.randn(len(z), device=z.device)), torch.randn_like(z)
    mixed = (1 - tau[:, None, None, None]) * z + tau[:, None, None, None] * eps
    label = torch.where(torch.rand(len(z), device=z.device) < 0.1, CLASSES, label)
    return f.mse_loss(model(mixed, tau, label), eps - z)

  return Net(), loss


@dataclasses.dataclass(frozen=True)
class Result:
  """cpu, wall: median seconds a step. spread: largest over smallest CPU time. peak: MiB, of the process (CPU) or of
  the device (GPU). first: wall seconds of the first step, with its compilation."""

  parameters: int
  cpu: float
  wall: float
  spread: float
  peak: float
  first: float
  losses: tuple[float, float]


def measure(side: str, task: str, device: str, steps: int) -> Result:
  """In a process of its own: two steps to warm up, then `steps` that are timed one by one."""
  step, parameters = (latents_step if side == "latents" else torch_step)(task, device)
  begin = time.perf_counter()
  begun = step()
  first = time.perf_counter() - begin
  step()
  cpu, wall = [], []
  for _ in range(steps):
    at, on = time.process_time(), time.perf_counter()
    value = step()
    cpu.append(time.process_time() - at)
    wall.append(time.perf_counter() - on)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  if device == "gpu":
    peak = device_peak(side)
  mid = statistics.median
  return Result(parameters, mid(cpu), mid(wall), max(cpu) / min(cpu), peak, first, (begun, value))


def device_peak(side: str) -> float:
  """MiB that the accelerator's allocator has handed out at most."""
  if side == "torch":
    import torch

    return torch.cuda.max_memory_allocated() / 2**20
  import jax

  return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**20


def apart(side: str, task: str, device: str, steps: int) -> Result:
  """`measure` in a new process with one thread."""
  env = {**os.environ, "PYTHONPATH": ROOT, "TF_CPP_MIN_LOG_LEVEL": "2"}
  if device == "cpu":
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    env |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"}
    core = min(os.sched_getaffinity(0))
    pin: Any = lambda: os.sched_setaffinity(0, {core})
  else:
    pin = None
  command = [sys.executable, os.path.abspath(__file__), "--inside", side, "--only", task]
  command += ["--device", device, "--steps", str(steps)]
  done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, preexec_fn=pin)
  if done.returncode:
    raise SystemExit(f"{side}, {task}: failed")
  return Result(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--json", action="store_true")
  parser.add_argument("--steps", type=int, default=8, help="steps that are timed")
  parser.add_argument("--only", choices=TASKS)
  parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
  parser.add_argument("--inside", choices=SIDES, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.inside:
    print(json.dumps(dataclasses.asdict(measure(options.inside, options.only, options.device, options.steps))))
    return
  rows: dict[str, dict[str, Result]] = {}
  for task in TASKS if options.only is None else (options.only,):
    rows[task] = {}
    for side in SIDES:
      rows[task][side] = apart(side, task, options.device, options.steps)
      print(f"{task}, {side}: {rows[task][side]}", file=sys.stderr, flush=True)
  if options.json:
    print(json.dumps({t: {s: dataclasses.asdict(r) for s, r in found.items()} for t, found in rows.items()}))
    return
  print("| step | parameters, ours / torch | CPU ms, ours | CPU ms, torch | ratio | wall ms, ours | torch | ratio "
        "| peak MiB, ours | torch | ratio | first step s, ours |")  # fmt: skip
  print("|---|---|" + "---:|" * 10)
  for task, found in rows.items():
    a, b = found["latents"], found["torch"]
    cells = [task, f"{a.parameters:,} / {b.parameters:,}"]
    for x, y in ((1e3 * a.cpu, 1e3 * b.cpu), (1e3 * a.wall, 1e3 * b.wall), (a.peak, b.peak)):
      cells += [f"{x:,.0f}", f"{y:,.0f}", f"{x / y:.2f}"]
    print("| " + " | ".join([*cells, f"{a.first:.1f}"]) + " |")


if __name__ == "__main__":
  main()

"""Time and memory of drawing latents beside PyTorch, in one run.

  taskset -c 1 python tests/benchmarks/sampling.py [--json] [--runs 3] [--steps 8] [--only diffusion|tokens]
                                                   [--device cpu|gpu]

diffusion: 8 latents of 16 x 16 x 4 by DiT-S/2, 10 steps of Euler with guidance: 10 passes of 16 rows, against a plain
DiT in PyTorch. tokens: 8 sequences of 256 tokens of 1,024 by LlamaGen's transformer (12 blocks of width 384) with a
cache, against the same in PyTorch with a cache of its own. Float32; the two sides as of `sides`. Ours is what
`latents sample` draws with, the prior's `sample`, compiled; PyTorch's is a loop without gradients.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")))

from tests.benchmarks import sides

TASKS = ("diffusion", "tokens")
BATCH, CLASSES, STEPS, GUIDANCE = 8, 8, 10, 1.5
LENGTH, VOCAB, WIDTH, DEPTH, HEADS = 256, 1024, 384, 12, 6


def latents_draw(task: str, device: str) -> tuple[Callable[[], float], int]:
  """(one draw of the batch, waited for; number of parameters) of our program."""
  from latents.machine import environment

  if device == "cpu":
    environment.keep_memory()
  import jax
  import jax.numpy as jnp

  from latents.backbones import Transformer
  from latents.backbones.dit import dit_s
  from latents.diffusion.samplers import Euler
  from latents.nn.streams import streams
  from latents.priors import AutoregressivePrior, FlowPrior
  from latents.types import Latent

  if task == "diffusion":
    prior: Any = FlowPrior(backbone=dit_s(2, classes=CLASSES), sampler=Euler(STEPS), guidance=GUIDANCE)
    shape, one = (16, 16, 4), Latent(z=jnp.zeros((1, 16, 16, 4)))
  else:
    network = Transformer(VOCAB, WIDTH, DEPTH, HEADS, LENGTH, classes=CLASSES)
    prior, shape = AutoregressivePrior(backbone=network), (LENGTH,)
    one = Latent(codes=jnp.zeros((1, LENGTH), jnp.int32))
  labels = lambda n: {"label": jnp.arange(n) % CLASSES}
  key = jax.random.key(0)
  first = jax.jit(lambda key: prior.init({"params": key, **streams(key)}, one, labels(1), train=False, method="loss"))
  variables = first(key)
  draw = jax.jit(
    lambda variables, key: prior.apply(variables, labels(BATCH), shape=shape, method="sample", rngs=streams(key))
  )

  def step() -> float:
    drawn = draw(variables, key)
    return float((drawn.z if task == "diffusion" else drawn.codes).sum())

  return step, sum(a.size for a in jax.tree.leaves(variables))


def torch_draw(task: str, device: str) -> tuple[Callable[[], float], int]:
  """The same of PyTorch."""
  import torch  # pyright: ignore[reportMissingImports]

  from tests.benchmarks import reference

  place = reference.place(device)
  torch.manual_seed(0)
  label = torch.arange(BATCH, device=place) % CLASSES
  made = reference.dit(CLASSES)[0] if task == "diffusion" else None
  model = made or reference.transformer(CLASSES, VOCAB, LENGTH, WIDTH, DEPTH, HEADS)
  model.to(place).eval()

  @torch.inference_mode()
  def diffusion() -> float:
    z = torch.randn(BATCH, 4, 16, 16, device=place)
    both = torch.cat([torch.full_like(label, CLASSES), label])
    for i in range(STEPS):
      tau = torch.full((2 * BATCH,), 1 - i / STEPS, device=place)
      null, told = model(torch.cat([z, z]), tau, both).chunk(2)
      z = z - (null + GUIDANCE * (told - null)) / STEPS
    return float(z.sum())

  @torch.inference_mode()
  def tokens() -> float:
    cache, token, total = model.cache(BATCH, place), label, 0
    for i in range(LENGTH):
      token = torch.multinomial(model(token, label, i, cache).softmax(-1), 1)[:, 0]
      total = total + token.sum()
    return float(total)

  return {"diffusion": diffusion, "tokens": tokens}[task], sum(p.numel() for p in model.parameters())


def main() -> None:
  """The command line."""
  options = sides.parser(__doc__, TASKS).parse_args()
  sides.begin(options, __file__, TASKS, {"latents": latents_draw, "torch": torch_draw})


if __name__ == "__main__":
  main()

"""Time and memory of drawing latents beside PyTorch, in one run.

  taskset -c 1 python tests/benchmarks/sampling.py [--json] [--runs 3] [--steps 8] [--only diffusion|tokens|...]
                                                   [--device cpu|gpu]

diffusion: 8 latents of 16 x 16 x 4 by DiT-S/2, 10 steps of Euler with guidance: 10 passes of 16 rows, against a plain
DiT in PyTorch. tokens, tokens1, tokens16: 8, 1 and 16 sequences of 256 tokens of 1,024 by LlamaGen's transformer (12
blocks of width 384) with a cache, against the same in PyTorch with a cache of its own; early, late: the first and the
last 32 tokens of one sequence. Float32; the two sides as of `sides`. Ours is what `latents sample` draws with, the
prior's `sample`, compiled (of early and late the backbone's steps alone); PyTorch's is a loop without gradients. Both
transformers have the same numbers, and first tell the nats of the same tokens, one after the other with the cache,
which must agree. A side that compiles again for another label or key fails.

Behind the table: time a token; late beside early; on a GPU the bytes of the weights over the time of a token at batch
1, as a share of the bandwidth of its memory.
"""

import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")))

import numpy as np

from tests.benchmarks import sides

BATCH, CLASSES, STEPS, GUIDANCE = 8, 8, 10, 1.5
LENGTH, VOCAB, WIDTH, DEPTH, HEADS = 256, 1024, 384, 12, 6
TOKENS = {  # sequences, and their tokens that are drawn
  "tokens": (BATCH, 0, LENGTH),
  "tokens1": (1, 0, LENGTH),
  "tokens16": (16, 0, LENGTH),
  "early": (1, 0, 32),
  "late": (1, LENGTH - 32, LENGTH),
}
TASKS = ("diffusion", *TOKENS)
CHECKED = 24  # tokens whose nats both sides tell


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """The numbers of a parameter of the transformer, by the name that it has in ours; kernels are [in,out]."""
  drawn = np.random.default_rng(zlib.crc32(name.encode())).normal(0, 0.05, shape)
  return (1 + drawn if "norm" in name else drawn).astype(np.float32)


def given() -> np.ndarray:
  """The tokens that both sides tell the nats of."""
  return np.random.default_rng(0).integers(0, VOCAB, CHECKED)


def prepare(device: str) -> None:
  """Our side, before jax is used."""
  from latents.machine import environment

  if device == "cpu":
    environment.keep_memory()


def latents_tokens(task: str, device: str) -> tuple[Callable[[], Any], int]:
  """(one draw of the batch, waited for; number of parameters) of our program."""
  prepare(device)
  import jax
  import jax.numpy as jnp

  from latents.backbones import Transformer
  from latents.nn.streams import streams
  from latents.priors import AutoregressivePrior

  batch, first, last = TOKENS[task]
  network = Transformer(VOCAB, WIDTH, DEPTH, HEADS, LENGTH, classes=CLASSES)
  prior = AutoregressivePrior(backbone=network)
  shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, LENGTH), jnp.int32), None))

  def filled(path: Any, a: Any) -> Any:
    words = [key.key for key in path][1:]
    return jnp.asarray(numbers("/".join(w for w in words if w not in ("kernel", "embedding", "scale")), a.shape))

  params = jax.tree_util.tree_map_with_path(filled, shapes)

  def stepped(params: Any, label: Any, tokens: Any, start: int, draw: Callable) -> Any:
    """Tokens from `start` on, or nats of the tokens that are given; draw: (index, logits [B,V]) -> what is kept."""

    def step(carry: Any, at: Any) -> Any:
      token, cache = carry
      logits, cache = network.apply(params, token, {"label": label}, at[0], cache, method="step")
      token, kept = draw(at, logits)
      return (token, cache), kept

    begin = jnp.zeros(len(label), jnp.int32), network.cache(len(label))
    return jax.lax.scan(step, begin, (start + jnp.arange(len(tokens)), tokens))[1]

  def nats(params: Any) -> Any:
    keep = lambda at, logits: (at[1][None], -jax.nn.log_softmax(logits)[0, at[1]])
    return stepped(params, jnp.zeros(1, jnp.int32), jnp.asarray(given(), jnp.int32), 0, keep)

  def some(params: Any, label: Any, key: Any) -> Any:
    def pick(at: Any, logits: Any) -> Any:
      token = jax.random.categorical(jax.random.fold_in(key, at[0]), logits).astype(jnp.int32)
      return token, token

    return stepped(params, label, jnp.zeros(last - first, jnp.int32), first, pick)

  def whole(params: Any, label: Any, key: Any) -> Any:
    variables = {"params": {"backbone": params["params"]}}
    found: Any = prior.apply(variables, {"label": label}, shape=(LENGTH,), method="sample", rngs=streams(key))
    return found.codes

  done: list[float] = []
  draw: Any = jax.jit(whole if last - first == LENGTH else some)

  def step() -> Any:
    label = (jnp.arange(batch) + len(done)) % CLASSES
    found = float(draw(params, label, jax.random.key(len(done))).sum())
    done.append(found)
    if draw._cache_size() > 1:
      raise SystemExit(f"{task}: compiled again at draw {len(done)}")
    return np.asarray(jax.jit(nats)(params)).tolist() if len(done) == 1 else found

  return step, sum(a.size for a in jax.tree.leaves(params))


def torch_tokens(task: str, device: str) -> tuple[Callable[[], Any], int]:
  """The same of PyTorch."""
  import torch  # pyright: ignore[reportMissingImports]

  from tests.benchmarks import reference

  batch, first, last = TOKENS[task]
  place = reference.place(device)
  model = reference.transformer(CLASSES, VOCAB, LENGTH, WIDTH, DEPTH, HEADS)
  for name, p in model.named_parameters():
    ours = name.removesuffix(".weight").replace("blocks.", "blocks_").replace(".", "/").replace("/out", "/proj")
    for part in ("gate", "up", "down"):
      ours = ours.replace(f"/{part}", f"/mlp/{part}")
    turned = p.ndim == 2 and not any(word in name for word in ("embed", "label", "positions"))
    values = numbers(ours, tuple(p.shape[::-1] if turned else p.shape))
    p.data = torch.from_numpy(np.ascontiguousarray(values.T if turned else values))
  model.to(place).eval()
  done: list[float] = []

  def nats() -> list[float]:
    tokens, cache = torch.from_numpy(given()).to(place), model.cache(1, place)
    label, before, found = torch.zeros(1, dtype=torch.long, device=place), torch.zeros_like(tokens[:1]), []
    for i, token in enumerate(tokens):
      found.append(-float(model(before, label, i, cache).log_softmax(-1)[0, token]))
      before = token[None]
    return found

  @torch.inference_mode()
  def step() -> Any:
    label = (torch.arange(batch, device=place) + len(done)) % CLASSES
    cache, token, total = model.cache(batch, place), label, 0
    for i in range(first, last):
      token = torch.multinomial(model(token, label, i, cache).softmax(-1), 1)[:, 0]
      total = total + token.sum()
    done.append(float(total))
    return nats() if len(done) == 1 else done[-1]

  return step, sum(p.numel() for p in model.parameters())


def latents_draw(task: str, device: str) -> tuple[Callable[[], float], int]:
  """(one draw of the batch, waited for; number of parameters) of our program."""
  if task in TOKENS:
    return latents_tokens(task, device)
  prepare(device)
  import jax
  import jax.numpy as jnp

  from latents.backbones.dit import dit_s
  from latents.diffusion.samplers import Euler
  from latents.nn.streams import streams
  from latents.priors import FlowPrior
  from latents.types import Latent

  prior = FlowPrior(backbone=dit_s(2, classes=CLASSES), sampler=Euler(STEPS), guidance=GUIDANCE)
  shape, one = (16, 16, 4), Latent(z=jnp.zeros((1, 16, 16, 4)))
  labels = lambda n: {"label": jnp.arange(n) % CLASSES}
  key = jax.random.key(0)
  first = jax.jit(lambda key: prior.init({"params": key, **streams(key)}, one, labels(1), train=False, method="loss"))
  variables = first(key)
  draw = jax.jit(
    lambda variables, key: prior.apply(variables, labels(BATCH), shape=shape, method="sample", rngs=streams(key))
  )

  def step() -> float:
    return float(draw(variables, key).z.sum())

  return step, sum(a.size for a in jax.tree.leaves(variables))


def torch_draw(task: str, device: str) -> tuple[Callable[[], Any], int]:
  """The same of PyTorch."""
  if task in TOKENS:
    return torch_tokens(task, device)
  import torch  # pyright: ignore[reportMissingImports]

  from tests.benchmarks import reference

  place = reference.place(device)
  torch.manual_seed(0)
  label = torch.arange(BATCH, device=place) % CLASSES
  model = reference.dit(CLASSES)[0]
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

  return diffusion, sum(p.numel() for p in model.parameters())


def told(results: dict[str, list[dict[str, Any]]], device: str, card: str = "") -> list[str]:
  """Lines on the tokens of all runs: the least time of each side, which other jobs lengthen. card: the GPU's name."""
  from latents.plan.chips import CHIPS

  what = "wall" if device == "gpu" else "cpu"
  least = {
    (task, side): 1e3 * min(one[side][what] for one in runs) / (TOKENS[task][2] - TOKENS[task][1])
    for task, runs in results.items()
    if task in TOKENS
    for side in sides.SIDES
  }
  lines = [
    f"{task}: {least[task, 'latents']:.3f} ms of {what} time a token of {TOKENS[task][0]}, PyTorch "
    f"{least[task, 'torch']:.3f}"
    for task in TOKENS
    if (task, "latents") in least
  ]
  if {"early", "late"} <= results.keys():
    for side in sides.SIDES:
      lines.append(
        f"{side}: a late token takes {least['late', side] / least['early', side]:.2f} of an early one's time"
      )
  chip = next((chip for name, chip in CHIPS.items() if name in card.lower()), None)
  if device == "gpu" and "tokens1" in results and chip is not None:
    for side in sides.SIDES:
      weights = 4 * results["tokens1"][0][side]["parameters"]
      share = weights / (1e-3 * least["tokens1", side]) / chip.bandwidth
      lines.append(
        f"{side}: {weights / 2**20:.0f} MiB of weights a token at batch 1, {share:.1%} of {card}'s bandwidth"
      )
  return lines


def card() -> str:
  """What the first GPU is called."""
  found = subprocess.run(
    ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=True
  )
  return found.stdout.splitlines()[0]


def main() -> None:
  """The command line."""
  options = sides.parser(__doc__, TASKS).parse_args()
  found = sides.begin(options, __file__, TASKS, {"latents": latents_draw, "torch": torch_draw})
  if found and not options.json:
    print("\n".join(told(found, options.device, card() if options.device == "gpu" else "")))


if __name__ == "__main__":
  main()

"""Time and memory of a whole GAN step of an autoencoder beside PyTorch, in one run.

  taskset -c 1 python tests/benchmarks/gan.py [--json] [--runs 3] [--steps 8] [--only ldm|cut] [--device cpu|gpu]

LDM's f8 recipe (2112.10752): L1 + LPIPS on VGG16 + KL + PatchGAN by hinge with the adaptive weight at the decoder's
last kernel, Adam for both networks; f8, ch 64, batch 2 of 64 x 64 x 3, float32. Ours is the program that `latents run`
trains with. PyTorch's: diffusers' AutoencoderKL, LPIPS and PatchGAN of `reference`, fused Adam, an average of the
weights. ldm: PyTorch as LDM's own code does it, but for one pass of the autoencoder for both networks, where LDM's has
two: every loss is taken back to the last kernel for the adaptive weight, and once more in the sum of all. cut: PyTorch
with our way to the same numbers: every loss is taken back to x_hat, once, and from there to the last kernel.

Both sides have the same weights, drawn by the names that PyTorch's arrays have, and the same pictures; the posterior's
variance starts at e^-28, so that the draws do not matter. The losses of step 1 must agree to 1e-4, or there is no
table. The two sides as of `sides`. --device gpu needs jax[cuda13] and torch with CUDA.
"""

import os
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")))

from tests.benchmarks import sides

TASKS = ("ldm", "cut")
BATCH, SIZE, CH, MULT, DIM, LR = 2, 64, 64, (1, 2, 4, 4), 4, 1e-5
BETAS, KL_WEIGHT, GAN_WEIGHT, CLAMP = (0.5, 0.9), 1e-6, 0.5, 1e4
LOSSES = ("l1", "lpips", "kl", "gan", "gan_adaptive", "disc", "total")


def pictures() -> np.ndarray:
  """[B,H,W,3] uint8."""
  return np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """The array of a name of PyTorch's, [out,in,...] where it is a kernel."""
  found = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
  if len(shape) > 1:
    found *= (2.0 if name.startswith("features") else 1.0) ** 0.5 / np.prod(shape[1:]) ** 0.5
    return np.abs(found) if name.startswith("lin") else found
  found = 0.1 * found + (1.0 if name.endswith("weight") else 0.0)
  if name == "quant_conv.bias":
    found[DIM:] -= 28.0
  return found


def drawn(shapes: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """`draw` by name, of arrays or shapes."""
  return {name: draw(name, tuple(a.shape)) for name, a in shapes.items()}


def latents_step(task: str, device: str) -> tuple[Callable[[], Any], int]:
  """(one step, waited for, that gives LOSSES; number of parameters) of our program."""
  from latents.machine import environment

  if device == "cpu":
    environment.keep_memory()
  import jax

  from latents import interop
  from latents.autoencoders import Autoencoder
  from latents.bottlenecks import KL
  from latents.data import Shapes
  from latents.declare import Experiment, Mesh, Stage1
  from latents.decoders import ConvDecoder
  from latents.encoders import ConvEncoder
  from latents.interop.mapping import KERNEL
  from latents.losses import L1, Adversarial, LPIPSLoss, Weight
  from latents.optim import Adam
  from latents.train import sharding
  from latents.train.build_step import build_step
  from latents.train.state import flatten, nest, unflatten

  size: dict[str, Any] = {"ch": CH, "mult": MULT, "blocks": 2, "least": 1}
  adam = Adam(lr=LR, betas=BETAS)
  stage = Stage1(
    data=Shapes(size=SIZE),
    model=Autoencoder(ConvEncoder(**size, out=2 * DIM), KL(dim=DIM), ConvDecoder(**size)),
    losses={
      "l1": L1(), "lpips": LPIPSLoss(net="vgg"), "kl": Weight(KL_WEIGHT),
      "gan": Adversarial(weight=GAN_WEIGHT, clamp=CLAMP, optimizer=adam),
    },
    optimizer=adam, steps=1000, batch=BATCH,
  )  # fmt: skip
  mesh = sharding.make_mesh(Mesh(), jax.devices()[:1])
  program = build_step(Experiment(name="benchmark", stage1=stage, stage2=None), 1, mesh)

  def like(tree: Any, name_of: Callable[[str], str]) -> Any:
    def one(path: str, a: Any) -> np.ndarray:
      turned = KERNEL.give(np.broadcast_to(np.float32(0), a.shape)).shape if len(a.shape) > 1 else a.shape
      turned = (1, *a.shape, 1, 1) if path.startswith("lin") else turned
      found = draw(name_of(path), turned)
      return found.reshape(a.shape) if path.startswith("lin") else KERNEL.take(found) if found.ndim > 1 else found

    return unflatten(tree, {path: one(path, a) for path, a in flatten(tree).items()})

  def vgg(path: str) -> str:
    if path.startswith("lin"):
      return f"{path}.model.1.weight"
    return path.removeprefix("trunk/").replace("features_", "features.").replace("/", ".").replace("kernel", "weight")

  def judge(path: str) -> str:
    return path.replace("/", ".").replace("kernel", "weight").replace("scale", "weight")

  empty = {path: np.zeros(a.shape, np.float32) for path, a in flatten(program.state.params["ae"]).items()}
  autoencoder = interop.take("diffusers-kl", drawn(interop.give("diffusers-kl", empty)), "benchmark")
  params = {"ae": nest(autoencoder), "disc": like(program.state.params["disc"], judge)}
  frozen = {**program.frozen, "losses": {"lpips": like(program.frozen["losses"]["lpips"], vgg)}}
  start = {"model": {"params": params["ae"]}, "losses": {"gan": {"params": params["disc"]}}}
  held = [program.init(start)]
  frozen = jax.device_put(frozen)
  batch = {"x": pictures(), "index": np.arange(BATCH, dtype=np.int32), "label": np.zeros(BATCH, np.int32)}

  def step() -> list[float]:
    held[0], scalars = program.step(held[0], frozen, sharding.place_batch(batch, BATCH, mesh))
    return [float(scalars[name]) for name in LOSSES]

  return step, sum(a.size for a in jax.tree.leaves(program.state.params))


def torch_step(task: str, device: str) -> tuple[Callable[[], Any], int]:
  """The same of PyTorch, as the task says."""
  import torch  # pyright: ignore[reportMissingImports]

  from tests.benchmarks import reference

  place = reference.place(device)
  model, judge = reference.autoencoder(tuple(CH * m for m in MULT), DIM)[0], reference.patchgan()
  for net in (model, judge):
    net.load_state_dict({name: torch.from_numpy(a) for name, a in drawn(net.state_dict()).items()})
    net.to(place)
  distance = reference.lpips(
    {name: torch.from_numpy(draw(name, shape)).to(place) for name, shape in reference.LPIPS.items()}
  )
  adams = [torch.optim.Adam(net.parameters(), lr=LR, betas=BETAS, fused=True) for net in (model, judge)]
  average = [p.detach().clone() for p in model.parameters()]
  x = torch.from_numpy(pictures()).to(place).permute(0, 3, 1, 2).float() / 127.5 - 1
  last = model.decoder.conv_out.weight

  def descend(adam: Any) -> None:
    adam.step()
    adam.zero_grad(set_to_none=True)

  def ratio(one: Any, two: Any) -> Any:
    return (one.norm() / (two.norm() + 1e-4)).clamp(0.0, CLAMP).detach()

  def step() -> list[float]:
    judge.requires_grad_(False)
    posterior = model.encode(x).latent_dist
    x_hat = model.decode(posterior.sample()).sample
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    seen = x_hat.detach().requires_grad_() if task == "cut" else x_hat
    l1, perceptual = (x - seen).abs().mean(), distance(x, seen).mean()
    felt, told = -judge(seen).mean(), l1 + perceptual
    if task == "cut":
      pushes = [torch.autograd.grad(loss, seen)[0] for loss in (told, felt)]
      weight = ratio(*(torch.autograd.grad(x_hat, last, push, retain_graph=True)[0] for push in pushes))
      both = pushes[0] + GAN_WEIGHT * weight * pushes[1]
      torch.autograd.backward([x_hat, KL_WEIGHT * kl], [both, None])
    else:
      weight = ratio(*(torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in (told, felt)))
      (told + KL_WEIGHT * kl + GAN_WEIGHT * weight * felt).backward()
    descend(adams[0])
    torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 0.001)
    judge.requires_grad_(True)
    real, fake = judge(x), judge(x_hat.detach())
    learnt = 0.5 * (torch.relu(1 - real).mean() + torch.relu(1 + fake).mean())
    learnt.backward()
    descend(adams[1])
    total = told + KL_WEIGHT * kl + GAN_WEIGHT * weight * felt
    return [float(v.detach()) for v in (l1, perceptual, kl, weight * felt, weight, learnt, total)]

  return step, sum(p.numel() for net in (model, judge) for p in net.parameters())


def main() -> None:
  """The command line."""
  options = sides.parser(__doc__, TASKS).parse_args()
  sides.begin(options, __file__, TASKS, {"latents": latents_step, "torch": torch_step})


if __name__ == "__main__":
  main()

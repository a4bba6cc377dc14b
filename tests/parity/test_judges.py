"""The StyleGAN2 discriminator, spectral norm, GAN objectives and penalties, and regression losses against torch.

Values and input gradients, to 1e-4 of the largest.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from latents.discriminators import PatchGAN, SpectralNorm, StyleGAN
from latents.losses import L1, L2, Adversarial, Charbonnier, Huber, LowPass, conversions
from latents.losses.adversarial import lecam_term
from latents.types import Seen

KEY = jax.random.key(0)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def first(a) -> torch.Tensor:
  """Channels last -> a leaf of torch with channels first."""
  return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(a), -1, 1))).requires_grad_()


def close(ours, theirs: torch.Tensor, moved: bool = True) -> None:
  wanted = np.asarray(theirs.detach())
  found = np.moveaxis(np.asarray(ours), -1, 1) if moved else np.asarray(ours)
  np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max(), rtol=0)


def stylegan(params: dict, x: torch.Tensor, group: int) -> torch.Tensor:
  """Karras et al. 2020, written with torch's own convolutions: a whole 2-D filter for the blur, pictures only."""
  taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
  taps = torch.outer(taps, taps) / 64

  def linear(name: str, h: torch.Tensor, stride: int = 1, padding: int = 0) -> torch.Tensor:
    own = params[name]
    weight = torch.from_numpy(np.asarray(own["kernel"]))
    weight = weight / weight[..., 0].numel() ** 0.5
    bias = torch.from_numpy(np.asarray(own["bias"])) if "bias" in own else None
    if weight.ndim == 2:
      return F.linear(h, weight.T, bias)
    return F.conv2d(h, weight.permute(3, 2, 0, 1), bias, stride, padding)

  def act(h: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(h, 0.2) * 2**0.5

  def smooth(h: torch.Tensor, padding: int) -> torch.Tensor:
    return F.conv2d(F.pad(h, (padding,) * 4), taps.expand(h.shape[1], 1, 4, 4), groups=h.shape[1])

  h, i = act(linear("signal", x)), 0
  while f"block{i}_conv0" in params:
    short = linear(f"block{i}_short", smooth(h, 1)[..., ::2, ::2])
    deep = act(linear(f"block{i}_conv0", h, padding=1))
    deep = act(linear(f"block{i}_conv1", smooth(deep, 2), stride=2))
    h, i = (short + deep) / 2**0.5, i + 1
  rows = h.reshape(-1, group, *h.shape[1:])
  spread = (rows.var(1, unbiased=False) + 1e-8).sqrt().flatten(1).mean(1)
  beside = spread.repeat_interleave(group)[:, None, None, None].expand(-1, 1, *h.shape[2:])
  h = act(linear("conv", torch.cat([h, beside], 1), padding=1))
  h = act(linear("dense", h.permute(0, 2, 3, 1).flatten(1)))  # our order of a grid's numbers: rows, columns, channels
  return linear("dense_out", h)


@pytest.mark.parametrize(("side", "base", "group"), [(32, 512, 4), (64, 1024, 2), (8, 64, 1)])
def test_stylegan(side, base, group):
  net, x = StyleGAN(base=base, most=48, group=group), np.tanh(draw(4, side, side, 3))
  params = jax.tree.map(np.asarray, jax.jit(lambda x: net.init(KEY, x, train=True))(x))["params"]
  params = jax.tree.map(lambda a: a + 0.1 * draw(*a.shape, seed=a.size), params)
  theirs_in = first(x)
  theirs = stylegan(params, theirs_in, group)
  judge = lambda x: net.apply({"params": params}, x, train=True).logits[0]
  ours, grad = jax.jit(lambda x: (judge(x), jax.grad(lambda x: judge(x).sum())(x)))(x)
  close(ours, theirs, moved=False)
  close(grad, torch.autograd.grad(theirs.sum(), theirs_in)[0])


def test_patchgan_input_gradients_and_spectral_norm():
  """torch's spectral norm of each convolution, from the same vectors, one round a pass: three passes."""
  inner, x = PatchGAN(ch=8, layers=2, norm="none"), np.tanh(draw(2, 32, 32, 3))
  net = SpectralNorm(inner)
  state = jax.jit(lambda x: net.init(KEY, x, train=True))(x)
  params = state["params"]["judge"]
  names = ["conv0", "conv1", "conv2", "conv_out"]
  convs = []
  for i, name in enumerate(names):
    kernel, bias = (np.asarray(params[name][k]) for k in ("kernel", "bias"))
    conv = torch.nn.Conv2d(kernel.shape[2], kernel.shape[3], 4, 2 if i < 2 else 1, 1)
    conv.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    conv.bias.data = torch.from_numpy(bias.copy())
    conv = torch.nn.utils.spectral_norm(conv, n_power_iterations=1)
    v = np.asarray(state["spectral"]["vectors"][f"{name}.kernel"])  # [out]: torch's u
    conv.weight_u.data = torch.from_numpy(v.copy())
    convs += [conv.train(), *([torch.nn.LeakyReLU(0.2)] if name != "conv_out" else [])]
  module = torch.nn.Sequential(*convs)

  @jax.jit
  def step(state, x):
    def total(x):
      verdict, changed = net.apply(state, x, train=True, mutable=["spectral"])
      return verdict.logits[0].sum(), (verdict.logits[0], changed)

    (_, (logits, changed)), slope = jax.value_and_grad(total, has_aux=True)(x)
    return logits, slope, {**state, **changed}

  for _ in range(3):
    theirs_in = first(x)
    theirs = module(theirs_in)
    (slope,) = torch.autograd.grad(theirs.sum(), theirs_in)
    ours, ours_slope, state = step(state, x)
    close(ours, theirs)
    close(ours_slope, slope)


def seen(x, x_hat) -> Seen:
  return Seen(x, x, x_hat, None, None, None, {}, jnp.int32(0))


@pytest.mark.parametrize("objective", ["hinge", "vanilla", "nonsaturating", "lsgan"])
def test_objectives_and_lazy_r1(objective):
  """Values, the decoder's input gradient and the judge's gradient, with R1 by torch's double differentiation."""
  gamma, every = 10.0, 4
  judge = PatchGAN(ch=4, layers=1, norm="group")
  loss = Adversarial(discriminator=judge, objective=objective, r1=gamma, r1_every=every)
  x, y = np.tanh(draw(2, 12, 12, 3)), np.tanh(draw(2, 12, 12, 3, seed=1))
  params = jax.tree.map(lambda a: 0.3 * draw(*a.shape, seed=a.size), jax.eval_shape(
    lambda x: judge.init(KEY, x, train=True), x)["params"])  # fmt: skip
  leaves = {k: {n: torch.from_numpy(v.copy()).requires_grad_() for n, v in part.items()} for k, part in params.items()}

  def d(x: torch.Tensor) -> torch.Tensor:
    conv = lambda h, name, stride: F.conv2d(
      h, leaves[name]["kernel"].permute(3, 2, 0, 1), leaves[name]["bias"], stride, 1
    )
    h = F.leaky_relu(conv(x, "conv0", 2), 0.2)
    h = F.group_norm(conv(h, "conv1", 1), 8, leaves["norm1"]["scale"], leaves["norm1"]["bias"], 1e-5)
    return conv(F.leaky_relu(h, 0.2), "conv_out", 1)

  real, fake = first(x), first(y)
  a, b = d(real), d(fake)
  sides = {
    "hinge": (F.relu(1 - a).mean() + F.relu(1 + b).mean(), -b.mean()),
    "lsgan": (
      F.mse_loss(a, torch.ones_like(a)) + F.mse_loss(b, torch.zeros_like(b)),
      F.mse_loss(b, torch.ones_like(b)),
    ),
  }
  bce = F.binary_cross_entropy_with_logits
  learnt = bce(a, torch.ones_like(a)) + bce(b, torch.zeros_like(b))
  sides |= {"vanilla": (learnt, -b.mean()), "nonsaturating": (learnt, bce(b, torch.ones_like(b)))}
  whole, felt = sides[objective]
  (at_real,) = torch.autograd.grad(a.flatten(1).mean(1).sum(), real, create_graph=True)
  penalised = 0.5 * whole + every * 0.5 * gamma * at_real.flatten(1).square().sum(1).mean()

  measure = jax.jit(
    jax.value_and_grad(lambda y: loss.measure(seen(x, y), {"params": params}, aux=None, key=None).value)
  )
  learn = jax.jit(jax.value_and_grad(lambda p: loss.learn(seen(x, y), {"params": p}, aux=None, key=None).value))
  ours_felt, slope = measure(y)
  close(ours_felt, felt, moved=False)
  close(slope, torch.autograd.grad(felt, fake, retain_graph=True)[0])
  value, grads = learn(params)
  close(value, penalised, moved=False)
  flat = [(name, key) for name, part in leaves.items() for key in part]
  theirs = torch.autograd.grad(penalised, [leaves[n][k] for n, k in flat], retain_graph=True, allow_unused=True)
  wanted = [np.zeros(leaves[n][k].shape) if g is None else g.numpy() for (n, k), g in zip(flat, theirs, strict=True)]
  largest = max(np.abs(g).max() for g in wanted)
  for (name, key), other in zip(flat, wanted, strict=True):
    np.testing.assert_allclose(grads[name][key], other, atol=1e-4 * largest, rtol=0, err_msg=f"{name}/{key}")
  # and StyleGAN2's own sum, softplus + softplus + gamma / 2 |..|^2, is twice the objective with `penalty`'s gamma
  halved = Adversarial(discriminator=judge, objective=objective, r1=conversions.penalty(gamma), r1_every=1)
  twice = 2 * halved.learn(seen(x, y), {"params": params}, aux=None, key=None).value
  close(twice, whole + 0.5 * gamma * at_real.flatten(1).square().sum(1).mean(), moved=False)


def test_lecam():
  """The released code's: relu of the logits beyond the other side's average, squared, both sides summed."""
  real, fake = draw(3, 4), draw(3, 4, seed=1) - 0.5
  held = {"real": 0.2, "fake": -0.1, "share": 0.5}
  kept, ours = lecam_term({k: jnp.float32(v) for k, v in held.items()}, (real,), (fake,))
  r, f = torch.from_numpy(real), torch.from_numpy(fake)
  share = 0.999 * 0.5 + 0.001
  at_real, at_fake = (0.999 * held[k] + 0.001 * v.mean() for k, v in (("real", r), ("fake", f)))
  theirs = F.relu(r - at_fake / share).pow(2).mean() + F.relu(at_real / share - f).pow(2).mean()
  close(ours, theirs, moved=False)
  close(kept["real"], at_real, moved=False)


LOSSES = {
  "l1": (L1(), F.l1_loss),
  "l2": (L2(), F.mse_loss),
  "huber": (Huber(delta=0.3), lambda y, x: F.huber_loss(y, x, delta=0.3)),
  "smooth l1": (conversions.smooth_l1(1.0, 0.05), lambda y, x: F.smooth_l1_loss(y, x, beta=0.05)),
  "gaussian": (
    conversions.gaussian(0.7),
    lambda y, x: F.gaussian_nll_loss(y, x, torch.full_like(y, 0.7)) - 0.5 * torch.log(torch.tensor(0.7)),
  ),
  "charbonnier": (Charbonnier(eps=0.01), lambda y, x: ((y - x).square() + 1e-4).sqrt().mean() - 0.01),
  "pooled": (LowPass(factor=4), lambda y, x: F.mse_loss(F.avg_pool2d(y, 4), F.avg_pool2d(x, 4))),
}


@pytest.mark.parametrize("name", LOSSES)
def test_regressions(name):
  loss, other = LOSSES[name]
  x, y = np.tanh(draw(2, 8, 12, 3)), np.tanh(draw(2, 8, 12, 3, seed=1))
  theirs_in = first(y)
  theirs = other(theirs_in, first(x).detach())
  value, slope = jax.value_and_grad(lambda y: loss.weight * loss(jnp.asarray(x), y))(jnp.asarray(y))
  close(value, theirs, moved=False)
  close(slope, torch.autograd.grad(theirs, theirs_in)[0])

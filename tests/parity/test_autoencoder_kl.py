"""Our convolutional autoencoder against diffusers' AutoencoderKL, and the waveform nets against transformers' DAC.

Weights go over by the tables of `latents.interop`, those of `latents import` and `export`.
"""

import json

import jax
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from transformers import DacConfig, DacModel

import latents
from latents import interop, main
from latents.decoders import WaveDecoder
from latents.encoders import WaveEncoder
from latents.interop.mapping import CONV, SAME, Table, Turn
from latents.store.folder import open_folder
from latents.train.state import nest
from latents.types import Latent
from latents.use import tiles


def randomise(model: torch.nn.Module, seed: int = 0) -> dict[str, np.ndarray]:
  """Every parameter random (norms and biases too), as numpy by name."""
  torch.manual_seed(seed)
  with torch.no_grad():
    for name, p in model.named_parameters():
      spread = 0.3 if p.ndim == 1 else 1.0 / np.sqrt(p[0].numel())
      p.copy_(spread * torch.randn_like(p) + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
  return {k: v.detach().numpy() for k, v in model.state_dict().items()}


def first(x):
  """Channels last -> channels first, as torch has them."""
  return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1)))


def last(t):
  return np.moveaxis(t.detach().numpy(), 1, -1)


def kl(widths=(64, 64), attended=(), kind=AutoencoderKL, **options):
  """A model of diffusers on these halves: AutoencoderKL, or another `kind`."""
  kinds = ["Attn" if i in attended else "" for i in range(len(widths))]
  return kind(
    block_out_channels=widths,
    down_block_types=tuple(f"{word}DownEncoderBlock2D" for word in kinds),
    up_block_types=tuple(f"{word}UpDecoderBlock2D" for word in kinds[::-1]),
    **options,
  ).eval()


KINDS = {
  "sd": {"layers_per_block": 2},
  "attention in a level": {"attended": (1,), "layers_per_block": 2, "norm_num_groups": 16},
  "sd3 and flux": {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
  "one quant_conv": {"latent_channels": 3, "use_quant_conv": True, "use_post_quant_conv": False},
  "narrow, three levels": {"widths": (32, 48, 32), "attended": (0, 2), "norm_num_groups": 16},
  "no attention in the middle": {"widths": (32, 64), "mid_block_add_attention": False},
  "one level, grey to colour": {"widths": (32,), "in_channels": 1, "out_channels": 3, "layers_per_block": 3},
}


def worst(ours, theirs) -> float:
  """The largest difference, relative to the largest value."""
  theirs = np.asarray(theirs)
  return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


def test_blended_tiles_come_nearer_to_the_whole_than_diffusers():
  theirs = kl((32, 32, 32))
  model, ours = interop.read("diffusers-kl", randomise(theirs), dict(theirs.config), "f4")
  variables = {"params": nest(ours)}
  rows, columns = np.mgrid[:112, :144] / 30
  x = np.sin(np.stack([rows + columns, rows * columns, columns - rows**2], -1)).astype(np.float32)[None]

  def encode(x: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(lambda x: model.apply(variables, x, method="encode").z)(x))

  def decode(z: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(lambda z: model.apply(variables, Latent(z=z), method="decode"))(z))

  z = encode(x)
  theirs.enable_tiling()
  theirs.tile_sample_min_size, theirs.tile_latent_min_size = 64, 16
  with torch.no_grad():
    in_tiles = last(theirs.encode(first(x)).latent_dist.mean), last(theirs.decode(first(z)).sample)
  parts = (
    (tiles.Part("encoder", encode, (16, 16), (4, 4), (1, 1)), x, z),
    (tiles.Part("decoder", decode, (16, 16), (1, 1), (4, 4)), z, decode(z)),
  )
  for (part, given, whole), other in zip(parts, in_tiles, strict=True):
    assert tiles.found(part, (True, True), given.shape[-1]) is None
    found, told = tiles.joined(part, given, None)
    off, off_theirs = (np.sqrt(np.mean((y - whole) ** 2)) / whole.std() for y in (found, other))
    assert off < off_theirs < 1
    assert 0.2 < told / off < 5


@pytest.mark.parametrize("name", KINDS)
def test_autoencoder_kl(name):
  theirs = kl(**KINDS[name])
  weights = randomise(theirs)
  model, ours = interop.read("diffusers-kl", weights, dict(theirs.config), name)
  variables = {"params": nest(ours)}
  x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 24, theirs.config.in_channels)).astype(np.float32)
  wave = np.random.default_rng(1).normal(size=(2, 16, 24, 3)).astype(np.float32)
  seen = first(x).requires_grad_()
  posterior = theirs.encode(seen).latent_dist
  z = posterior.mean
  x_hat = theirs.decode(z).sample
  (x_hat * first(wave)).sum().backward()

  def pull(x):
    latent = model.apply(variables, x, method="encode")
    y = model.apply(variables, latent, method="decode")
    return (y * wave).sum(), (latent, y)

  (_, (latent, y)), gradient = jax.jit(jax.value_and_grad(pull, has_aux=True))(x)
  moments = np.asarray(model.apply(variables, x, method="store"))
  found = {
    "mean": worst(latent.z, last(z)),
    "std": worst(np.split(moments, 2, -1)[1], last(posterior.std)),
    "decode": worst(y, last(x_hat)),
    "gradient": worst(gradient, last(seen.grad)),
  }
  print(name, found)
  assert all(v < 1e-4 for v in found.values()), found
  trained, _ = jax.jit(lambda v, x: model.apply(v, x, train=True, rngs={"bottleneck": jax.random.key(0)}))(variables, x)
  np.testing.assert_allclose(trained.logs["kl_sum"], posterior.kl().mean().detach(), rtol=1e-4)


@pytest.mark.parametrize("name", ["sd", "sd3 and flux"])
def test_latent_diffusions_own_names(name):
  """What we write as LDM's checkpoint, diffusers' own conversion reads as its model (without attention in levels)."""
  theirs = kl(**KINDS[name])
  weights = randomise(theirs)
  _, ours = interop.read("diffusers-kl", weights, dict(theirs.config), name)
  ldm = {key: torch.from_numpy(array.copy()) for key, array in interop.give("ldm-kl", ours).items()}
  back = convert_ldm_vae_checkpoint(ldm, dict(theirs.config))
  assert back.keys() == weights.keys()
  for key, array in weights.items():
    np.testing.assert_array_equal(back[key].reshape(array.shape).numpy(), array, key)
  _, again = interop.read("ldm-kl", {k: a.numpy() for k, a in ldm.items()}, dict(theirs.config), name)
  assert again.keys() == ours.keys() and all(np.array_equal(again[n], ours[n]) for n in ours)


SIZES = {"widths": (128, 256, 512, 512), "layers_per_block": 2}
FULL = {  # release -> (its network, its parameters)
  "sd": ({"latent_channels": 4, "sample_size": 512}, 83_653_863),
  "flux": ({"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}, 83_819_683),
}


@pytest.mark.parametrize("name", FULL)
def test_the_full_sizes(name):
  """Counted by shapes: their arrays take no memory."""
  options, count = FULL[name]
  with torch.device("meta"):
    theirs = kl(**SIZES, **options)
  assert sum(p.numel() for p in theirs.parameters()) == count
  arrays = {k: np.broadcast_to(np.float32(0), tuple(p.shape)) for k, p in theirs.state_dict().items()}
  model, ours = interop.read("diffusers-kl", arrays, dict(theirs.config), name)
  assert sum(a.size for a in ours.values()) == count
  assert (model.encoder.ch, model.encoder.mult, model.encoder.blocks) == (128, (1, 2, 4, 4), 2)
  assert model.bottleneck.dim == options["latent_channels"]


PRIOR = """
import dataclasses
from experiments.images import photos
from latents.backbones import DiT
from latents.data import Photos
from latents.declare import Evaluation

def experiment(scale="tiny"):
  base = photos.experiment()
  prior = base.stage2.prior.clone(backbone=DiT(depth=1, width=32, heads=2, patch=1))
  two = dataclasses.replace(base.stage2, data=Photos(size=32, count=8), prior=prior, steps=2, batch=4)
  two = dataclasses.replace(two, optimizer=dataclasses.replace(two.optimizer, warmup=0))
  few = Evaluation(images=4, samples=2, batch=4, features=False)
  return dataclasses.replace(base, name="prior", stage2=two, evaluation=few)
"""


def call(*words) -> None:
  assert main.main([str(word) for word in words]) == 0, words


def test_a_release_end_to_end(tmp_path, capsys):
  """SD's autoencoder at full size: in, reconstructed, encoded, a prior on it, and out, as diffusers has it."""
  theirs = kl(**SIZES, **FULL["sd"][0])
  randomise(theirs)
  theirs.save_pretrained(tmp_path / "release")
  runs = tmp_path / "runs"
  call("import", tmp_path / "release", "--layout", "sd", "--name", "sd", "--runs", runs)
  made = latents.load(runs / "sd")
  assert open_folder(runs / "sd").artefact(1).facts["statistics"]["std"][0] == 1 / 0.18215
  x = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
  with torch.no_grad():
    z = theirs.encode(first(x)).latent_dist.mean
    x_hat = theirs.decode(z).sample
  latent = made.encode(x)
  assert worst(latent.z, 0.18215 * last(z)) < 1e-4
  assert np.abs(made.decode(latent) - last(x_hat).clip(-1, 1)).max() < 1e-4
  file = tmp_path / "prior.py"
  file.write_text(PRIOR)
  call("run", file, "--on", runs / "sd", "--runs", runs)
  assert "stage 1 is the same as in" in capsys.readouterr().err
  with_prior = latents.load(runs / "prior")
  assert with_prior.sample(number=1).shape == (1, 32, 32, 3)
  call("export", runs / "prior", "--layout", "diffusers-kl", "--out", tmp_path / "out")
  back = AutoencoderKL.from_pretrained(tmp_path / "out").eval()
  assert back.config.scaling_factor == 0.18215
  for key, value in theirs.state_dict().items():
    assert torch.equal(back.state_dict()[key], value), key
  with torch.no_grad():
    assert (back.decode(back.encode(first(x)).latent_dist.mean).sample - x_hat).abs().max() <= 1e-4
  said, of = (json.loads((tmp_path / d / "config.json").read_text()) for d in ("out", "release"))
  assert {k: said[k] for k in ("block_out_channels", "norm_num_groups")} == {
    k: of[k] for k in ("block_out_channels", "norm_num_groups")
  }


@pytest.mark.parametrize("how", ["bin", "checkpoint"])
def test_files_of_torch(tmp_path, how):
  theirs = kl(widths=(32, 64))
  weights = randomise(theirs)
  _, ours = interop.read("diffusers-kl", weights, {}, "x")
  if how == "bin":
    torch.save(theirs.state_dict(), tmp_path / "diffusion_pytorch_model.bin")
    asked = tmp_path
  else:
    held = {f"first_stage_model.{k}": torch.from_numpy(a) for k, a in interop.give("ldm-kl", ours).items()}
    asked = tmp_path / "model.ckpt"
    torch.save({"epoch": 3, "state_dict": {**held, "model_ema.decay": torch.tensor(0.9)}}, asked)
  call("import", asked, "--layout", "sd", "--name", "x", "--runs", tmp_path)
  found = open_folder(tmp_path / "x").artefact(1)
  assert all(np.array_equal(found.weights[f"params/{name}"], a) for name, a in ours.items())


ALPHA = Turn(lambda a: a[0, :, 0], lambda a: a[None, :, None])
# [in,out,k]: torch's transposed convolution is a gradient, its taps reversed
BACKWARDS = Turn(lambda w: w.transpose(2, 0, 1)[::-1], lambda w: w[::-1].transpose(1, 2, 0))


def snake(theirs):
  return theirs, {"alpha": ("alpha", ALPHA)}


def wave(theirs):
  return theirs, {"conv": ("", CONV)}


UNIT = {"act1": snake("snake1"), "conv1": wave("conv1"), "act2": snake("snake2"), "conv2": wave("conv2")}
ENDS = {"conv_in": wave("conv1"), "act_out": snake("snake1"), "conv_out": wave("conv2")}
DAC = Table.of({
  "encoder": ("encoder", {
    **ENDS,
    **{f"level{{i}}_unit{j}": (f"block.{{i}}.res_unit{j + 1}", UNIT) for j in range(3)},
    "level{i}_act": snake("block.{i}.snake1"),
    "level{i}_down": wave("block.{i}.conv1"),
  }),
  "decoder": ("decoder", {
    **ENDS,
    **{f"level{{k}}_unit{j}": (f"block.{{~k}}.res_unit{j + 1}", UNIT) for j in range(3)},
    "level{k}_act": snake("block.{~k}.snake1"),
    "level{k}_up": ("block.{~k}.conv_t1", {"kernel": ("weight", BACKWARDS), "bias": ("bias", SAME)}),
  }),
}, ignored=("quantizer.",))  # fmt: skip


def test_wave_nets_against_dac():
  strides = (2, 4)
  config = DacConfig(
    encoder_hidden_size=4, downsampling_ratios=list(strides), decoder_hidden_size=16, upsampling_ratios=[4, 2]
  )
  theirs = DacModel(config).eval()
  weights = randomise(theirs)
  for name in [n for n in weights if n.endswith("alpha")]:
    weights[name][...] = np.abs(weights[name]) + 0.5  # in place: torch shares the memory
  params = nest(DAC.take(weights, "DAC"))
  x = np.random.default_rng(0).uniform(-1, 1, (2, 64, 1)).astype(np.float32)
  with torch.no_grad():
    h = theirs.encoder(torch.from_numpy(x.transpose(0, 2, 1)))
    y = theirs.decoder(h).numpy()  # ends in tanh
  out = h.shape[1]
  ours = WaveEncoder(ch=4, strides=strides, out=out).apply({"params": params["encoder"]}, x, train=False)
  np.testing.assert_allclose(ours, h.numpy().transpose(0, 2, 1), atol=1e-4)
  decoder = WaveDecoder(ch=4, strides=strides, channels=1)
  back = decoder.apply({"params": params["decoder"]}, Latent(z=h.numpy().transpose(0, 2, 1)), method="sample")
  length = min(y.shape[-1], back.shape[1])  # their decoder may lose samples at odd strides
  np.testing.assert_allclose(np.tanh(back)[:, :length, 0], y.reshape(2, -1)[:, :length], atol=1e-4)
  back = DAC.give(DAC.take(weights, "DAC"))
  assert all(np.array_equal(back[name], weights[name]) for name in back) and len(back) > 40

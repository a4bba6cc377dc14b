"""Our convolutional autoencoder against diffusers' AutoencoderKL, and the waveform nets against transformers' DAC."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from transformers import DacConfig, DacModel

from latents.bottlenecks import KL
from latents.decoders import ConvDecoder, WaveDecoder
from latents.encoders import ConvEncoder, WaveEncoder
from latents.types import Latent


def randomise(model: torch.nn.Module) -> dict[str, np.ndarray]:
  """Every parameter random (norms and biases too), as numpy by name."""
  torch.manual_seed(0)
  with torch.no_grad():
    for name, p in model.named_parameters():
      spread = 0.3 if p.ndim == 1 else 1.0 / np.sqrt(p[0].numel())
      p.copy_(spread * torch.randn_like(p) + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
  return {k: v.detach().numpy() for k, v in model.state_dict().items()}


def conv(weights, name):
  """torch [out,in,*k] or [out,in] -> flax kernel [*k,in,out]."""
  w = weights[f"{name}.weight"]
  return {"kernel": jnp.asarray(np.moveaxis(w, (0, 1), (-1, -2))), "bias": jnp.asarray(weights[f"{name}.bias"])}


def norm(weights, name):
  return {"scale": jnp.asarray(weights[f"{name}.weight"]), "bias": jnp.asarray(weights[f"{name}.bias"])}


def block(weights, name):
  parts = {"norm1": norm, "conv1": conv, "norm2": norm, "conv2": conv}
  found = {part: of(weights, f"{name}.{part}") for part, of in parts.items()}
  if f"{name}.conv_shortcut.weight" in weights:
    found["shortcut"] = conv(weights, f"{name}.conv_shortcut")
  return found


def attention(weights, name):
  linear = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
  found = {ours: conv(weights, f"{name}.{theirs}") for ours, theirs in linear.items()}
  return {"norm": norm(weights, f"{name}.group_norm"), **found}


def half(weights, side, levels, blocks, attended):
  """The parameters of the encoder ("down") or decoder ("up") from diffusers' state dict."""
  root, names = ("encoder", "down") if side == "down" else ("decoder", "up")
  params = {
    "conv_in": conv(weights, f"{root}.conv_in"),
    "mid_block0": block(weights, f"{root}.mid_block.resnets.0"),
    "mid_attention": attention(weights, f"{root}.mid_block.attentions.0"),
    "mid_block1": block(weights, f"{root}.mid_block.resnets.1"),
    "norm_out": norm(weights, f"{root}.conv_norm_out"),
    "conv_out": conv(weights, f"{root}.conv_out"),
  }
  for i in range(levels):
    place = f"{root}.{names}_blocks.{i if side == 'down' else levels - 1 - i}"
    for j in range(blocks):
      params[f"level{i}_block{j}"] = block(weights, f"{place}.resnets.{j}")
      if i in attended:
        params[f"level{i}_attention{j}"] = attention(weights, f"{place}.attentions.{j}")
    sampler = f"{place}.{names}samplers.0.conv"
    if f"{sampler}.weight" in weights:
      params[f"level{i}_{names}"] = {"conv": conv(weights, sampler)}
  return {"params": params}


@pytest.mark.parametrize("attended", [(), (1,)])
def test_autoencoder_kl(attended):
  kinds = lambda side: tuple(f"{'Attn' if i in attended else ''}{side}EncoderBlock2D" for i in range(2))
  theirs = AutoencoderKL(
    block_out_channels=(64, 64),
    down_block_types=kinds("Down"),
    up_block_types=tuple(k.replace("Encoder", "Decoder") for k in kinds("Up")[::-1]),
    layers_per_block=2,
    latent_channels=4,
    norm_num_groups=16,
  ).eval()
  weights = randomise(theirs)
  encoder, bottleneck = ConvEncoder(ch=64, mult=(1, 1), out=8, attention=attended), KL(4)
  decoder = ConvDecoder(ch=64, mult=(1, 1), attention=attended)
  e, d = half(weights, "down", 2, 2, attended), half(weights, "up", 2, 3, attended)
  squeeze = lambda c: {"kernel": c["kernel"][0, 0], "bias": c["bias"]}
  b = {"params": {"project": squeeze(conv(weights, "quant_conv"))}}
  d["params"]["project"] = conv(weights, "post_quant_conv")

  x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)
  with torch.no_grad():
    posterior = theirs.encode(torch.from_numpy(x.transpose(0, 3, 1, 2))).latent_dist
    z = posterior.mean
    x_hat = theirs.decode(z).sample.numpy().transpose(0, 2, 3, 1)
    kl = posterior.kl().numpy()
  h = jax.jit(lambda x: encoder.apply(e, x, train=False))(x)
  latent = bottleneck.apply(b, h, train=False)
  moments = np.asarray(bottleneck.apply(b, h, method="store"))
  channels_last = lambda t: t.numpy().transpose(0, 2, 3, 1)
  worst = {
    "mean": np.abs(latent.z - channels_last(z)).max(),
    "std": np.abs(moments[..., 4:] - channels_last(posterior.std)).max(),
  }
  ours = jax.jit(lambda z: decoder.apply(d, Latent(z=z), method="sample"))(channels_last(z))
  worst["decode"] = np.abs(ours - x_hat).max()
  print({k: float(v) for k, v in worst.items()}, float(np.abs(x_hat).max()))
  assert all(v < 1e-4 for v in worst.values()), worst
  np.testing.assert_allclose(latent.logs["kl_sum"], kl.mean(), rtol=1e-4)
  made = jax.eval_shape(lambda: encoder.init(jax.random.key(0), x, train=False))
  assert jax.tree.map(jnp.shape, e) == jax.tree.map(jnp.shape, made)


def wave_conv(weights, name):
  return {"conv": conv(weights, name)}


def wave_act(weights, name):
  return {"alpha": jnp.asarray(weights[f"{name}.alpha"][0, :, 0])}


def wave_unit(weights, name):
  convs = {c: wave_conv(weights, f"{name}.{c}") for c in ("conv1", "conv2")}
  return {**convs, "act1": wave_act(weights, f"{name}.snake1"), "act2": wave_act(weights, f"{name}.snake2")}


def test_wave_nets_against_dac():
  strides = (2, 4)
  config = DacConfig(
    encoder_hidden_size=4, downsampling_ratios=list(strides), decoder_hidden_size=16, upsampling_ratios=[4, 2]
  )
  theirs = DacModel(config).eval()
  weights = randomise(theirs)
  for name in [n for n in weights if n.endswith("alpha")]:
    weights[name][...] = np.abs(weights[name]) + 0.5  # in place: torch shares the memory
  enc = {
    "conv_in": wave_conv(weights, "encoder.conv1"),
    "act_out": wave_act(weights, "encoder.snake1"),
    "conv_out": wave_conv(weights, "encoder.conv2"),
  }
  dec = {
    "conv_in": wave_conv(weights, "decoder.conv1"),
    "act_out": wave_act(weights, "decoder.snake1"),
    "conv_out": wave_conv(weights, "decoder.conv2"),
  }
  for i in range(2):
    at, up = f"encoder.block.{i}", f"decoder.block.{1 - i}"
    enc |= {f"level{i}_unit{j}": wave_unit(weights, f"{at}.res_unit{j + 1}") for j in range(3)}
    enc |= {f"level{i}_act": wave_act(weights, f"{at}.snake1"), f"level{i}_down": wave_conv(weights, f"{at}.conv1")}
    dec |= {f"level{i}_unit{j}": wave_unit(weights, f"{up}.res_unit{j + 1}") for j in range(3)}
    w = weights[f"{up}.conv_t1.weight"]  # [in,out,k]; torch's transposed convolution is a gradient: taps reversed
    dec[f"level{i}_up"] = {"kernel": jnp.asarray(w.transpose(2, 0, 1)[::-1]), "bias": weights[f"{up}.conv_t1.bias"]}
    dec[f"level{i}_act"] = wave_act(weights, f"{up}.snake1")
  x = np.random.default_rng(0).uniform(-1, 1, (2, 64, 1)).astype(np.float32)
  with torch.no_grad():
    h = theirs.encoder(torch.from_numpy(x.transpose(0, 2, 1)))
    y = theirs.decoder(h).numpy()  # ends in tanh
  out = h.shape[1]
  ours = WaveEncoder(ch=4, strides=strides, out=out).apply({"params": enc}, x, train=False)
  np.testing.assert_allclose(ours, h.numpy().transpose(0, 2, 1), atol=1e-4)
  decoder = WaveDecoder(ch=4, strides=strides, channels=1)
  back = decoder.apply({"params": dec}, Latent(z=h.numpy().transpose(0, 2, 1)), method="sample")
  length = min(y.shape[-1], back.shape[1])  # their decoder may lose samples at odd strides
  np.testing.assert_allclose(np.tanh(back)[:, :length, 0], y.reshape(2, -1)[:, :length], atol=1e-4)

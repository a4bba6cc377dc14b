"""Releases of random sizes, drawn by seed: numbers of AutoencoderKL and AutoencoderDC, in float64, and the way through
the command line and back, equal to the bit.

The reference is float64 because torch's own float32 is off by more than 1e-4 where a norm sees hardly any variance.
"""

import jax
import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL

from latents import interop
from latents.interop.layouts import whole
from latents.train.state import nest
from latents.types import Latent
from tests.parity.test_autoencoder_dc import RES, VIT, theirs_of
from tests.parity.test_autoencoder_kl import call, first, last, randomise, worst

SIDES = ("encoder", "decoder")


def draw_kl(rng):
  groups, levels = int(rng.choice([8, 16])), int(rng.integers(1, 4))
  chance = lambda p: bool(rng.random() < p)
  kinds = lambda name: tuple(f"{'Attn' * chance(0.3)}{name}" for _ in range(levels))
  channels = int(rng.choice([1, 3]))
  return {
    "block_out_channels": tuple(int(groups * rng.integers(1, 5)) for _ in range(levels)), "norm_num_groups": groups,
    "down_block_types": kinds("DownEncoderBlock2D"), "up_block_types": kinds("UpDecoderBlock2D"),
    "layers_per_block": int(rng.integers(1, 3)), "latent_channels": int(rng.choice([1, 3, 4, 16])),
    "mid_block_add_attention": chance(0.6), "use_quant_conv": chance(0.5), "use_post_quant_conv": chance(0.5),
    "in_channels": channels, "out_channels": channels,
  }  # fmt: skip


def draw_dc(rng):
  levels, pick = int(rng.integers(2, 4)), lambda *of: of[rng.integers(len(of))]
  widths, config = [16], {}
  for _ in range(levels - 1):
    widths.append(widths[-1] * pick(1, 2))
  scales = pick((), (3,), (5, 3))
  for side in SIDES:
    kinds = tuple(pick(RES, VIT) for _ in range(levels))
    config |= {
      f"{side}_block_types": kinds, f"{side}_block_out_channels": tuple(widths),
      f"{side}_layers_per_block": (pick(0, 1, 2), *(pick(1, 2) for _ in range(levels - 1))),
      f"{side}_qkv_multiscales": tuple(scales if kind == VIT else () for kind in kinds),
    }  # fmt: skip
  return config | {
    "latent_channels": pick(4, 8, 16), "attention_head_dim": pick(4, 8, 16), "in_channels": pick(1, 3),
    "decoder_norm_types": tuple(pick("batch_norm", "rms_norm") for _ in range(levels)),
    "decoder_act_fns": tuple(pick("relu", "silu") for _ in range(levels)),
    "downsample_block_type": pick("Conv", "pixel_unshuffle"),
    "upsample_block_type": pick("interpolate", "pixel_shuffle"),
    "encoder_out_shortcut": pick(True, False), "decoder_in_shortcut": pick(True, False),
  }  # fmt: skip


KINDS = {
  "diffusers-kl": (AutoencoderKL, draw_kl, lambda t, x: t.encode(x).latent_dist.mean),
  "diffusers-dc": (AutoencoderDC, draw_dc, lambda t, x: t.encode(x).latent),
}


def made(layout, seed):
  """(their class, a random model of theirs with random weights, the sides of its pictures)."""
  cls, draw, _ = KINDS[layout]
  rng = np.random.default_rng(seed)
  config = draw(rng)
  if cls is AutoencoderDC:
    theirs = theirs_of(config)
  else:
    randomise(theirs := cls(**config).eval(), seed)
  levels = len(config.get("block_out_channels", config.get("encoder_block_types", ())))
  return cls, theirs, tuple(int(n) * 2 ** (levels - 1) for n in rng.integers(3, 6, 2))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("layout", KINDS)
def test_a_random_release(layout, seed, tmp_path):
  cls, theirs, size = made(layout, seed)
  print(dict(theirs.config), size)
  arrays = {name: a.numpy().copy() for name, a in theirs.state_dict().items()}
  model, ours = interop.read(layout, arrays, dict(theirs.config), "x")
  variables, rng = nest(whole(ours)), np.random.default_rng(seed)
  x = rng.uniform(-1, 1, (2, *size, theirs.config.in_channels)).astype(np.float32)
  wave = rng.normal(size=x.shape).astype(np.float32)

  def pull(x):
    z = model.apply(variables, x, method="encode").z
    x_hat = model.apply(variables, Latent(z=z), method="decode")
    return (x_hat * wave).sum(), (z, x_hat)

  (_, (z, x_hat)), slope = jax.jit(jax.value_and_grad(pull, has_aux=True))(x)
  theirs.double()
  seen = first(x).double().requires_grad_()
  found = KINDS[layout][2](theirs, seen)
  back = theirs.decode(found).sample
  (back * first(wave)).sum().backward()
  errors = {"z": worst(z, last(found)), "x_hat": worst(x_hat, last(back)), "gradient": worst(slope, last(seen.grad))}
  print(errors)
  assert all(error < 1e-4 for error in errors.values()), errors

  theirs.float().save_pretrained(tmp_path / "in")
  call("import", tmp_path / "in", "--name", "x", "--runs", tmp_path / "runs")
  call("export", tmp_path / "runs" / "x", "--layout", layout, "--out", tmp_path / "out")
  again = cls.from_pretrained(tmp_path / "out")
  assert again.state_dict().keys() == arrays.keys()
  assert all(torch.equal(a, torch.from_numpy(arrays[name])) for name, a in again.state_dict().items())
  assert again.config.scaling_factor == theirs.config.scaling_factor
  with torch.no_grad():
    assert torch.equal(again.eval()(first(x)).sample, theirs(first(x)).sample)

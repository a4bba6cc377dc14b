"""DC-AE against diffusers' AutoencoderDC: outputs, input gradients, the layout both ways, the sizes of the releases."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC
from safetensors.torch import load_file

from latents import interop
from latents.interop import dc
from latents.interop.layouts import whole
from latents.train.state import flatten, nest
from latents.types import Latent
from tests.parity.test_autoencoder_kl import randomise

# what a configuration of theirs says beside the defaults: (of AutoencoderDC, sides of the picture)
BOTH = lambda **kw: {f"{side}_{k}": v for side in ("encoder", "decoder") for k, v in kw.items()}
RES, VIT = "ResBlock", "EfficientViTBlock"
CONFIGS = {
  "in-1.0": (
    {
      **BOTH(
        block_types=(RES, RES, VIT), block_out_channels=(8, 16, 32), qkv_multiscales=((), (), ())
      ),
      "encoder_layers_per_block": (0, 2, 1), "decoder_layers_per_block": (0, 1, 2), "latent_channels": 16,
      "attention_head_dim": 8, "decoder_norm_types": ("batch_norm", "batch_norm", "rms_norm"),
      "decoder_act_fns": ("relu", "relu", "silu"),
    },
    (32, 24),
  ),
  "sana": (
    {
      **BOTH(block_types=(RES, VIT, VIT), block_out_channels=(16, 16, 32), qkv_multiscales=((), (5,), (5,))),
      "encoder_layers_per_block": (1, 1, 2), "decoder_layers_per_block": (2, 1, 1), "latent_channels": 8,
      "attention_head_dim": 8, "downsample_block_type": "Conv", "upsample_block_type": "interpolate",
    },
    (16, 24),
  ),
  "grey, few positions, no shortcuts at the latent, batch norm with attention": (
    {
      **BOTH(block_types=(RES, VIT), block_out_channels=(8, 32), qkv_multiscales=((), (3, 5))),
      "encoder_layers_per_block": (1, 1), "decoder_layers_per_block": (1, 2), "latent_channels": 8, "in_channels": 1,
      "attention_head_dim": 16, "encoder_out_shortcut": False, "decoder_in_shortcut": False,
      "decoder_norm_types": ("rms_norm", "batch_norm"), "decoder_act_fns": ("relu", "silu"),
    },
    (4, 8),
  ),
}  # fmt: skip


def theirs_of(config):
  model = AutoencoderDC(**config).eval()
  randomise(model)
  torch.manual_seed(1)
  for name, buffer in model.named_buffers():
    if name.endswith("running_mean"):
      buffer.copy_(0.3 * torch.randn_like(buffer))
    elif name.endswith("running_var"):
      buffer.copy_(0.5 + torch.rand_like(buffer))
  return model


def close(ours, theirs, what):
  """At most 1e-4 of the largest number."""
  theirs = theirs.detach().numpy().transpose(0, 2, 3, 1)
  error = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
  print(what, float(error))
  assert error < 1e-4, what


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_and_input_gradients(name, tmp_path):
  config, size = CONFIGS[name]
  theirs = theirs_of(config)
  arrays = {k: v.numpy() for k, v in theirs.state_dict().items()}
  assert interop.guess(arrays, "x") == "diffusers-dc"
  model, ours = interop.read("diffusers-dc", arrays, dict(theirs.config), "x")
  variables = nest({path: jnp.asarray(a) for path, a in whole(ours).items()})

  rng = np.random.default_rng(0)
  x = rng.uniform(-1, 1, (2, *size, config.get("in_channels", 3))).astype(np.float32)
  tx = torch.from_numpy(x.transpose(0, 3, 1, 2)).requires_grad_()
  z = theirs.encode(tx).latent
  push = rng.normal(size=z.shape).astype(np.float32)
  (gx,) = torch.autograd.grad((z * torch.from_numpy(push)).sum(), tx)
  tz = z.detach().requires_grad_()
  y = theirs.decode(tz).sample
  pull = rng.normal(size=y.shape).astype(np.float32)
  (gz,) = torch.autograd.grad((y * torch.from_numpy(pull)).sum(), tz)

  last = lambda a: a.transpose(0, 2, 3, 1)
  encode = lambda x: model.apply(variables, x, method="encode").z
  decode = lambda z: model.apply(variables, Latent(z=z), method="decode")
  mine, back = jax.vjp(jax.jit(encode), x)
  close(mine, z, "z")
  close(back(last(push))[0], gx, "gradient at x")
  mine, back = jax.vjp(jax.jit(decode), last(tz.detach().numpy()))
  close(mine, y, "x_hat")
  close(back(last(pull))[0], gz, "gradient at z")

  given = interop.give("diffusers-dc", ours)  # back to the bit, and as diffusers itself reads it
  assert all(np.array_equal(given[k].reshape(arrays[k].shape), arrays[k]) for k in arrays) and len(given) == len(arrays)
  said = interop.LAYOUTS["diffusers-dc"].config(model, {"mean": [0.0], "std": [2.0]}, x.shape[1:])
  assert said["scaling_factor"] == 0.5 and dc.model_of({k: v.shape for k, v in ours.items()}, said, need(ours))
  torch_save(tmp_path, given, said)
  again = AutoencoderDC.from_pretrained(tmp_path).eval()
  with torch.no_grad():
    assert torch.equal(again.decode(tz.detach()).sample, theirs.decode(tz.detach()).sample)
  assert flatten(variables).keys() == whole(ours).keys()


def need(ours):
  return lambda path: ours[path].shape


def torch_save(folder, given, said):
  from safetensors.numpy import save_file

  save_file(given, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
  (folder / "config.json").write_text(json.dumps(said))
  assert load_file(folder / "diffusion_pytorch_model.safetensors")


WIDE = {"f32c32": (0, 32), "f64c128": (1, 128), "f128c512": (2, 512)}


@pytest.mark.parametrize("name", WIDE)
def test_sizes_of_the_releases(name):
  """Every array of the released networks (dc-ae-fFcC-in-1.0) has its place here, with its shape."""
  more, channels = WIDE[name]
  levels = 6 + more
  norms = ("batch_norm",) * 3 + ("rms_norm",) * (levels - 3)
  config = {
    **BOTH(
      block_types=(RES,) * 3 + (VIT,) * (levels - 3), qkv_multiscales=((),) * levels,
      block_out_channels=(128, 256, 512, 512, 1024, 1024, *(2048,) * more),
    ),
    "encoder_layers_per_block": (0, 4, 8, *(2,) * (levels - 3)),
    "decoder_layers_per_block": (0, 5, 10, *(2,) * (levels - 3)), "latent_channels": channels,
    "decoder_norm_types": norms, "decoder_act_fns": ("relu",) * 3 + ("silu",) * (levels - 3),
  }  # fmt: skip
  with torch.device("meta"):
    theirs = AutoencoderDC(**config)
  shapes = {k: np.broadcast_to(np.float32(0), tuple(v.shape)) for k, v in theirs.state_dict().items()}
  found, _ = dc.DIFFUSERS.find(shapes)
  ours = {
    path: np.broadcast_to(np.float32(0), shape)
    for path, parts in found.items()
    for shape in [_shape(path, [shapes[n[0]] for n in parts])]
  }
  model = dc.model_of({p: a.shape for p, a in ours.items()}, config, need(ours))
  wanted = interop.parameters(model, 3)
  assert wanted == {p: a.shape for p, a in ours.items()}
  count = sum(math.prod(s) for p, s in wanted.items() if not p.startswith("batch_stats"))
  print(name, count)
  assert count == sum(p.numel() for p in theirs.parameters()) == COUNTS[name]


def _shape(path, arrays):
  row, _ = dc.DIFFUSERS._row(path)
  parts = [np.atleast_1d(row.turn.take(a)) for a in arrays]
  return (*parts[0].shape[:-1], sum(a.shape[-1] for a in parts))


COUNTS = {"f32c32": 323_356_460, "f64c128": 676_896_140, "f128c512": 1_120_682_252}

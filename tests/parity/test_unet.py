"""Our U-Net against diffusers' UNet2DConditionModel and UNet2DModel of random sizes, drawn by seed, with the same
random weights, which go over by the tables of `latents.interop`: outputs, all gradients, and back to the bit.

The reference is float64 because torch's own float32 is off by as much as ours.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel

from latents import interop
from latents.interop.layouts import whole
from latents.train.state import flatten, nest
from tests.parity.test_autoencoder_kl import first, last, randomise

WORDS = 77


def draw(rng, plain: bool) -> dict:
  pick = lambda *of: of[rng.integers(len(of))]
  levels, groups = int(rng.integers(1, 4)), pick(8, 16)
  widths = tuple(int(groups * rng.integers(2, 5)) for _ in range(levels))
  attends = [bool(rng.random() < 0.6) for _ in range(levels)]
  config = {
    "in_channels": pick(3, 4), "out_channels": pick(3, 4, 8), "block_out_channels": widths, "norm_num_groups": groups,
    "layers_per_block": pick(1, 2), "resnet_time_scale_shift": pick("default", "scale_shift"),
    "downsample_padding": pick(1, 1, 0), "num_class_embeds": pick(None, 5), "sample_size": 8,
  }  # fmt: skip
  if plain:
    config["attn_norm_num_groups"] = pick(None, groups)
    kind = pick("conv", "resnet")
    bare = "Resnet{}sampleBlock2D" if kind == "resnet" else "{}Block2D"
    name = lambda way: [f"Attn{way}Block2D" if on else bare.format(way) for on in attends]
    config |= {"attention_head_dim": pick(None, 4, 8), "downsample_type": kind, "upsample_type": kind}
  else:
    name = lambda way: [f"{'CrossAttn' * on}{way}Block2D" for on in attends]
    depths = tuple(pick(1, 2) for _ in range(levels))
    config |= {
      "cross_attention_dim": pick(8, 24), "use_linear_projection": pick(True, False),
      "attention_head_dim": pick(2, 4, tuple(pick(1, 2, 4) for _ in range(levels))),
      "transformer_layers_per_block": pick(1, 2, depths),
    }  # fmt: skip
  return config | {"down_block_types": tuple(name("Down")), "up_block_types": tuple(name("Up")[::-1])}


def relative(ours, theirs) -> float:
  ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
  return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-3))


CASES = [(layout, seed) for layout in ("diffusers-unet", "diffusers-unet2d") for seed in range(4)]


@pytest.mark.parametrize(("layout", "seed"), CASES)
def test_a_random_unet(layout, seed):
  plain, rng = layout.endswith("2d"), np.random.default_rng(seed)
  config = draw(rng, plain)
  print(config)
  theirs = (UNet2DModel if plain else UNet2DConditionModel)(**config).eval()
  arrays = {name: a.copy() for name, a in randomise(theirs, seed).items()}
  assert interop.guess(arrays, "x") == layout
  model, ours = interop.read(layout, arrays, dict(theirs.config), "x")
  back = interop.give(layout, ours)
  assert back.keys() == arrays.keys() and all(np.array_equal(back[n], a) for n, a in arrays.items())
  size = [int(n) * 2 ** (len(config["block_out_channels"]) - 1) for n in rng.integers(2, 5, 2)]
  x = rng.normal(size=(2, *size, config["in_channels"])).astype(np.float32)
  wave = rng.normal(size=(2, *size, config["out_channels"])).astype(np.float32)
  steps, label = np.array([3, 801]), np.array([0, 4])
  cond = {"label": jnp.asarray(label)}
  told = {} if config["num_class_embeds"] is None else {"class_labels": torch.from_numpy(label)}
  if not plain:
    text = rng.normal(size=(2, WORDS, config["cross_attention_dim"])).astype(np.float32)
    mask = np.arange(WORDS) < np.array([[WORDS], [5]])
    cond |= {"text": jnp.asarray(text), "text_mask": jnp.asarray(mask)}
    told |= {"encoder_hidden_states": torch.from_numpy(text).double(), "encoder_attention_mask": torch.from_numpy(mask)}

  def pull(params, x):
    y = model.apply(params, x, jnp.asarray((steps + 1) / 1000, jnp.float32), cond)
    return (y * wave).sum(), y

  (_, y), (slopes, slope) = jax.jit(jax.value_and_grad(pull, (0, 1), has_aux=True))(nest(whole(ours)), x)
  theirs.double()
  seen = first(x).double().requires_grad_()
  found = theirs(seen, torch.from_numpy(steps), **told).sample
  (found * first(wave)).sum().backward()
  pushed = interop.give(layout, {name.removeprefix("params/"): np.asarray(a) for name, a in flatten(slopes).items()})
  errors = {"y": relative(y, last(found)), "x": relative(slope, last(seen.grad))}
  if not model.stem:  # what goes out is built again by diffusers, and is the same
    said = interop.LAYOUTS[layout].config(model, {}, (8, 8, config["in_channels"]))
    again = type(theirs).from_config(said).eval()
    again.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
    with torch.no_grad():
      assert torch.equal(again.double()(seen, torch.from_numpy(steps), **told).sample, found)
  largest = max(float(p.grad.abs().max()) for p in theirs.parameters())
  grads = {name: float(np.abs(pushed[name] - p.grad.numpy()).max()) / largest for name, p in theirs.named_parameters()}
  worst = max(grads, key=lambda name: grads[name])
  print(errors, worst, grads[worst])
  assert errors["y"] < 1e-5 and errors["x"] < 5e-5 and grads[worst] < 5e-5

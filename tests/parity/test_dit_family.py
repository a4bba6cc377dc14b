"""DiT, SiT and LightningDiT of any size: their files come in, compute the same, and go out to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from latents import interop
from latents.diffusion import guide
from latents.errors import UserError
from latents.train.state import nest
from tests.parity.torch_dit import random_net

# kind, layout, (depth, width, heads, patch, channels, classes, side), options
CONFIGURATIONS = {
  "dit": ("dit", "dit", (3, 32, 4, 2, 4, 10, 8), {}),
  "dit, other sizes": ("dit", "dit-4", (2, 48, 3, 4, 3, 5, 16), {}),
  "sit": ("sit", "sit", (2, 32, 2, 2, 4, 7, 8), {}),
  "sit, other sizes": ("sit", "sit", (4, 24, 2, 2, 6, 3, 12), {}),
  "lightning": ("lightning-dit", "lightning-dit", (3, 32, 4, 1, 6, 10, 5), {}),
  "lightning, wide heads, qk-norm": ("lightning-dit", "lightning-dit-2", (2, 72, 1, 2, 4, 4, 8), {"qk_norm": True}),
}
FIXED = ("pos_embed", "feat_rope.")


@pytest.mark.parametrize("of", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_outputs_agree_and_files_go_out_as_they_came(of):
  kind, layout, sizes, options = of
  depth, width, heads, patch, channels, classes, side = sizes
  net = random_net(1, kind, *sizes, **options)
  arrays = {name: array.numpy() for name, array in net.state_dict().items()}
  told = {} if options else {"num_heads": heads}
  model, ours = interop.read(layout, arrays, told, "file")
  assert (model.depth, model.width, model.heads, model.patch, model.classes) == (depth, width, heads, patch, classes)
  back = interop.give(layout, ours)
  assert back.keys() == {name for name in arrays if not name.startswith(FIXED)}
  assert all(np.array_equal(back[name], arrays[name]) for name in back)
  interop.LAYOUTS[layout].check(model)

  rng = np.random.default_rng(2)
  x = rng.normal(size=(3, side, side, channels)).astype(np.float32)
  tau, label = np.array([0.001, 0.4, 1.0]), np.array([0, 1, classes])
  params = {"params": nest(ours)}
  run = jax.jit(model.apply)
  got = np.asarray(run(params, x, jnp.asarray(tau, jnp.float32), {"label": label})).transpose(0, 3, 1, 2)
  time = torch.from_numpy((1000 * tau - 1 if kind == "dit" else 1 - tau).astype(np.float32))
  theirs = torch.from_numpy(x.transpose(0, 3, 1, 2)), time, torch.from_numpy(label)
  sign = 1 if kind == "dit" else -1  # theirs goes from noise to data
  with torch.no_grad():
    expected, guided = sign * net(*theirs).numpy(), sign * net.guided(*theirs, null=classes, scale=4.0).numpy()
  assert got.shape == expected.shape
  assert np.abs(expected).max() > 0.1
  assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()

  none = np.asarray(run(params, x, jnp.asarray(tau, jnp.float32), None)).transpose(0, 3, 1, 2)
  mine = np.concatenate([guide(none[:, :3], got[:, :3], 4.0), got[:, 3:]], 1)
  assert np.abs(mine - guided).max() <= 4e-5 * np.abs(guided).max()
  assert np.abs(guided - expected).max() > 1e-2

  prior = interop.LAYOUTS[layout].prior(model, {})
  assert prior.process.width(channels) == expected.shape[1]


def test_what_does_not_fit_is_one_clear_line():
  sizes = (2, 32, 4, 2, 4, 10, 8)
  arrays = {name: array.numpy() for name, array in random_net(0, "dit", *sizes).state_dict().items()}

  def refused(told: str, layout: str = "dit", config=None, **changed):
    with pytest.raises(UserError, match=told):
      interop.read(layout, {**arrays, **changed}, {"num_heads": 4} if config is None else config, "file")

  refused("nothing says how many heads share a width of 32", config={})
  refused("nothing says how many heads share a width of 32", config={"num_heads": 5})
  refused("x_embedder.proj.weight has patches of 2x2, and this layout has 4x4: dit, dit-4, dit-8", layout="dit-4")
  refused("file: pos_embed holds other positions", pos_embed=arrays["pos_embed"] + 0.1)
  refused("file is no lightning-dit-2: .*extra .*mlp.fc1", layout="lightning-dit-2")
  refused("misshapen .*t_embedder.mlp.2.weight", **{"t_embedder.mlp.2.weight": np.zeros((8, 32), np.float32)})
  less = {name: array for name, array in arrays.items() if name != "blocks.1.mlp.fc2.bias"}
  with pytest.raises(UserError, match=r"1 missing \(blocks.1.mlp.fc2.bias\)"):
    interop.read("dit", less, {"num_heads": 4}, "file")

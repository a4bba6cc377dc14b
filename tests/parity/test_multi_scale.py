"""Resizing against PyTorch's `interpolate`, and VAR's quantiser against the paper's algorithm in PyTorch."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from latents.bottlenecks import VQ, MultiScaleVQ
from latents.bottlenecks.multi_scale import phi_of
from latents.nn.resize import area, bicubic, resized
from tests.test_nn import drawn, normal

SIDES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def shown(x) -> torch.Tensor:
  return torch.from_numpy(np.array(x)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("side", SIDES)
def test_resizing(side: int):
  large, small = normal(2, 16, 12, 3), normal(2, side, side + 2, 3)
  down = F.interpolate(shown(large), size=(side, side + 1), mode="area").permute(0, 2, 3, 1)
  assert np.abs(resized(large, (side, side + 1), area) - down.numpy()).max() < 1e-6
  up = F.interpolate(shown(small), size=(16, 12), mode="bicubic").permute(0, 2, 3, 1)
  assert np.abs(resized(small, (16, 12), bicubic) - up.numpy()).max() < 5e-6


def test_quantiser():
  sides, dim = (1, 2, 3, 5, 8), 6
  quantiser = MultiScaleVQ(VQ(20, dim, project=False), tuple((n, n) for n in sides))
  h = normal(2, 8, 8, dim)
  params = drawn(quantiser, h, train=False)
  own = params["params"]
  book = torch.from_numpy(np.array(own["stage"]["codebook"]))
  rest, z, codes = shown(h), torch.zeros(2, dim, 8, 8), []
  for k, n in enumerate(sides):
    rows = F.interpolate(rest, size=(n, n), mode="area").permute(0, 2, 3, 1).reshape(-1, dim)
    found = torch.cdist(rows, book).argmin(1)
    codes.append(found.reshape(2, -1))
    up = F.interpolate(book[found].reshape(2, n, n, dim).permute(0, 3, 1, 2), size=(8, 8), mode="bicubic")
    phi = own[f"phis_{phi_of(5, 4)[k]}"]
    kernel = torch.from_numpy(np.array(phi["kernel"])).permute(3, 2, 0, 1)
    part = 0.5 * up + 0.5 * F.conv2d(up, kernel, torch.from_numpy(np.array(phi["bias"])), padding=1)
    z, rest = z + part, rest - part
  latent = quantiser.apply(params, h, train=False)
  assert np.array_equal(latent.codes, torch.cat(codes, 1).numpy())
  assert np.abs(latent.z - jnp.asarray(z.permute(0, 2, 3, 1).numpy())).max() < 1e-4

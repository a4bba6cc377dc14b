"""Files as others release them, with random weights: made by the layouts' own tables, so that no torch is needed."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from latents import interop
from latents.autoencoders import Autoencoder
from latents.bottlenecks import KL
from latents.decoders import ConvDecoder
from latents.encoders import ConvEncoder


def model(dim: int = 4, quant: bool = True, attention: tuple[int, ...] = (), mult=(1, 2), **encoder) -> Autoencoder:
  fields = {"ch": 32, "mult": mult, "blocks": 1, "attention": attention, "groups": 32, "least": 1}
  return Autoencoder(
    encoder=ConvEncoder(out=2 * dim, **{**fields, **encoder}),
    bottleneck=KL(dim=dim, projected=quant),
    decoder=ConvDecoder(project=quant, **fields),
  )


def weights(of: Autoencoder, seed: int = 0) -> dict[str, np.ndarray]:
  """Random parameters by path."""
  rng = np.random.default_rng(seed)
  shapes = interop.parameters(of, 3)
  return {name: (0.1 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def arrays(layout: str = "diffusers-kl", of: Autoencoder | None = None, **sizes) -> dict[str, np.ndarray]:
  of = of or model(**sizes)
  return interop.give(layout, weights(of))


def write(path: Path, held: dict[str, np.ndarray] | None = None, config: dict | None = None) -> Path:
  """A safetensors file, and the config.json beside it if one is given."""
  path.parent.mkdir(parents=True, exist_ok=True)
  save_file(arrays() if held is None else held, path)
  if config is not None:
    path.with_name("config.json").write_text(json.dumps({"_class_name": "AutoencoderKL", **config}))
  return path

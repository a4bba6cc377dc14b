"""Transformers over codes that others trained: over an imported tokenizer, from the file to a picture and back."""

import json

import numpy as np
import pytest

import latents
from latents import interop
from latents.backbones import Transformer
from latents.interop.layouts import of_backbone
from latents.pretrained.readers import read_weights
from latents.store.folder import open_folder
from tests import releases
from tests.test_interop import call
from tests.test_interop_vq import model

NETWORKS = {
  "llamagen": Transformer(20, 32, 2, 2, 64, classes=5, position="rotary", grid=(8, 8), blind=True, multiple=256),
  "taming-gpt": Transformer(20, 32, 2, 2, 64, classes=5, kind="gpt", label_tokens=True),
}


def weights(network, seed=0):
  rng = np.random.default_rng(seed)
  shapes = of_backbone(network, (network.length,))
  return {path: (0.3 * rng.standard_normal(shape)).astype(np.float32) for path, shape in shapes.items()}


@pytest.fixture(scope="module")
def there(tmp_path_factory):
  """A folder with runs/vq, a VQGAN of 16 px in 8 x 8 codes of 20."""
  there = tmp_path_factory.mktemp("gpt")
  file = there / "vqgan.safetensors"
  releases.write(file, interop.give("taming", releases.weights(model())))
  assert call("import", file, "--layout", "taming", "--size", 16, "--name", "vq", "--runs", there / "runs") == 0
  return there


def brought(there, network, layout, name, **told):
  file = there / name / "model.safetensors"
  config = {"_class_name": {"llama": "LlamaGen", "gpt": "GPT"}[network.kind], "n_head": 2, "classes": 5}
  releases.write(file, interop.give(layout, weights(network)), config | {"block_size": 64} | told)
  runs = there / "runs"
  return call("import", file, "--layout", layout, "--on", runs / "vq", "--name", name, "--runs", runs)


@pytest.mark.parametrize("layout", NETWORKS)
def test_from_a_file_to_a_picture_and_back(there, layout):
  network = NETWORKS[layout]
  assert brought(there, network, layout, layout) == 0
  run = there / "runs" / layout
  two = open_folder(run).experiment.stage2
  assert two.prior.backbone == network
  assert (two.prior.guidance, two.prior.top_k) == {"llamagen": (2.0, 0), "taming-gpt": (1.0, 100)}[layout]
  made = latents.load(run)
  codes = made.sample_latents(labels=[4, 0], seed=1).codes
  assert codes.shape == (2, 8, 8) and codes.min() >= 0 and codes.max() < 20 and len(np.unique(codes)) > 5
  assert made.sample(labels=[4], seed=1).shape == (1, 16, 16, 3)
  assert call("export", run, "--layout", layout, "--out", there / "out" / layout) == 0
  back, first = (read_weights(str(next(p.glob("*.safetensors")))) for p in (there / "out" / layout, there / layout))
  assert back.keys() == first.keys() and all(np.array_equal(back[name], first[name]) for name in first)
  config = json.loads((there / "out" / layout / "config.json").read_text())
  assert config["n_head"] == 2


@pytest.mark.parametrize(
  ("change", "told", "line"),
  [
    ({"vocab": 21}, {}, "21 codes"),
    ({"length": 36, "grid": (6, 6)}, {"block_size": 36}, "a grid of (6, 6), but codes are (8, 8)"),
    ({}, {"n_head": 3}, "n_head in config.json is 3, but it must be a number of heads that divides 32"),
    ({}, {"n_head": True}, "n_head in config.json is True"),
    ({}, {"block_size": 60}, "block_size in config.json is 60, but LlamaGen's tokens are a square grid"),
    ({}, {"block_size": -4}, "block_size in config.json is -4"),
    ({}, {"block_size": 10**400}, "a number of many digits"),
    ({}, {"_class_name": None}, "does not say whose numbers these are"),
  ],
)
def test_what_does_not_fit_is_one_line(there, capsys, change, told, line, request):
  name = request.node.callspec.id.replace(" ", "-")
  assert brought(there, NETWORKS["llamagen"].clone(**change), "llamagen", name, **told) == 2
  err = capsys.readouterr().err.strip().splitlines()
  assert len(err) == 1 and line in err[0], err
  assert not (there / "runs" / name).exists()

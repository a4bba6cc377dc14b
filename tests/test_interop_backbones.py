"""Priors that others trained: a backbone in a layout comes in over a stage 1, starts a stage 2, and goes out."""

import hashlib
import re

import numpy as np
import pytest

import latents
from latents import interop
from latents.backbones import DiT, UNet
from latents.conditioners import Labels
from latents.declare import Experiment, Released, Stage2, Start
from latents.diffusion import Betas, Euler, Process
from latents.errors import UserError
from latents.interop.layouts import Layout, of_backbone
from latents.interop.mapping import DENSE, LINEAR, SAME, Table
from latents.pretrained.readers import read_weights
from latents.priors import FlowPrior
from latents.runs import begin
from latents.store.folder import Folder, open_folder
from latents.train.build_step import build_step
from tests import micro, releases
from tests.test_interop import call

TOY = Table.of({
  "embed": ("in", LINEAR), "label": ("names", {"embedding": ("weight", SAME)}),
  "time": ("t", {"fc1": ("0", LINEAR), "fc2": ("2", LINEAR)}),
  "blocks_{i}": ("blocks.{i}", {
    "modulation": ("ada", LINEAR), "attention": ("att", {"qkv": ("qkv", LINEAR), "out": ("out", LINEAR)}),
    "mlp": ("mlp", {"fc1": ("0", LINEAR), "fc2": ("2", LINEAR)}),
  }),
  "final_modulation": ("last.ada", LINEAR), "final": ("last", {"kernel": ("weight", DENSE), "bias": ("bias", SAME)}),
})  # fmt: skip
MODEL = DiT(2, 16, 2, classes=10)
NAME = "dalle"  # one that declarations know: for these tests it is the toy's


def model_of(shapes, config, need):
  depth = 1 + max((int(m[1]) for path in shapes if (m := re.match(r"blocks_(\d+)/", path))), default=0)
  return DiT(depth, need("embed/kernel")[-1], 2, classes=need("label/embedding")[0] - 1)


def prior_of(backbone, config):
  return FlowPrior(backbone=backbone, process=Process(path=Betas(), predict="noise"), sampler=Euler(2))


def check(backbone):
  if type(backbone) is not DiT:
    raise UserError(f"this layout holds a DiT, and the run has {type(backbone).__name__}")


def weights(backbone=MODEL, seed=0):
  rng = np.random.default_rng(seed)
  shapes = of_backbone(backbone, (4, 4, 4))
  return {path: (0.1 * rng.standard_normal(shape)).astype(np.float32) for path, shape in shapes.items()}


@pytest.fixture
def there(tmp_path, monkeypatch):
  """A folder with runs/one, an autoencoder of 8 px in latents of [4,4,4], and toy.safetensors, a backbone."""
  toy = Layout(TOY, model_of, check, "toy.safetensors", latent=lambda model, shapes: (4, 4, 4), prior=prior_of)
  monkeypatch.setitem(interop.LAYOUTS, NAME, toy)
  file = releases.write(tmp_path / "vae.safetensors")
  assert call("import", file, "--layout", "sd", "--size", 8, "--name", "one", "--runs", tmp_path / "runs") == 0
  releases.write(tmp_path / "toy.safetensors", interop.give(NAME, weights()))
  return tmp_path


def brought(there, *words, file="toy.safetensors", name="two"):
  given = ("import", there / file, "--layout", NAME, "--on", there / "runs" / "one", "--name", name)
  return call(*given, "--runs", there / "runs", *words)


def test_a_prior_comes_in_samples_and_goes_out(there):
  assert brought(there) == 0
  folder = open_folder(there / "runs" / "two")
  two, made = folder.experiment.stage2, folder.artefact(2)
  assert two.prior.backbone == MODEL and two.conditioner == Labels(classes=10) and made is not None
  ours = weights()
  assert made.weights.keys() == {f"params/backbone/{path}" for path in ours}
  assert all(np.array_equal(made.weights[f"params/backbone/{path}"], a) for path, a in ours.items())
  model = latents.load(folder.path)
  first, second = model.sample(labels=[3, 3]), model.sample(labels=[9, 9])
  assert first.shape == (2, 8, 8, 3) and not np.array_equal(first, second)  # labels that no data name
  assert call("export", folder.path, "--layout", NAME, "--out", there / "out") == 0
  back, first = (read_weights(str(at / "toy.safetensors")) for at in (there / "out", there))
  assert back.keys() == first.keys() and all(np.array_equal(back[name], first[name]) for name in first)


def test_what_cannot_come_in_or_go_out(there, capsys):
  wide, long = DiT(2, 16, 2, classes=10).clone(out=8), dict(interop.give(NAME, weights()))
  long.pop("blocks.1.ada.weight")
  releases.write(there / "short.safetensors", long)
  releases.write(there / "wide.safetensors", interop.give(NAME, weights(wide)))
  capsys.readouterr()
  one = there / "runs" / "one"
  for words, told in (
    (
      ("import", there / "toy.safetensors", "--layout", NAME, "--name", "x"),
      "the network of a prior: say --on RUN",
    ),
    (("import", there / "vae.safetensors", "--layout", "sd", "--on", one, "--name", "x"), "is a stage 1 itself"),
    (("export", one, "--layout", NAME, "--out", there / "o"), "has no finished stage 2"),
  ):
    runs = ("--runs", there / "runs") if words[0] == "import" else ()
    assert call(*words, *runs) == 2
    assert told in capsys.readouterr().err
  for words, told in (
    ({"file": "short.safetensors"}, r"does not fit: 1 missing \(blocks.1.ada.weight\)"),
    ({"file": "wide.safetensors"}, r"misshapen .*last.weight \(32, 16\) instead of \(16, 16\)"),
  ):
    assert brought(there, **words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search(told, said), said
  assert brought(there, "--statistics", "1,0") == 2 and "--statistics and --data are of" in capsys.readouterr().err
  assert brought(there, "--texts", there / "t.npz") == 2 and "a prior that reads texts" in capsys.readouterr().err
  assert sorted(path.name for path in (there / "runs").iterdir()) == [".stages", "one"]


@pytest.mark.parametrize(
  ("depth", "patch", "told"),
  [
    (1, 2, "no array 'params/backbone/blocks_1/"),
    (3, 2, r"has no array for 'params/backbone/blocks_2/.*\(\d+ in all\)"),
    (2, 4, r"embed/kernel' is \(16, 16\) where it comes from and \(64, 16\) here: the release has another size"),
  ],
)
def test_a_stage_2_begins_with_a_release_or_says_why_not(there, depth, patch, told):
  base = open_folder(there / "runs" / "one").experiment
  file = there / "toy.safetensors"
  release = Released(path=str(file), sha256=hashlib.sha256(file.read_bytes()).hexdigest(), layout=NAME)  # pyright: ignore
  prior = FlowPrior(backbone=DiT(depth, 16, 2, patch=patch, classes=10))
  start, told_labels = (Start(stage=release, into="backbone"),), Labels(classes=10)
  two = Stage2(data=base.stage1.data, prior=prior, steps=0, batch=1, start=start, conditioner=told_labels)
  made = Experiment(name="x", stage1=base.stage1, stage2=two)
  with pytest.raises(UserError, match=told):
    begin.check(Folder(there / "x", made), 2, build_step(made, 2, micro.one_device()))


@pytest.mark.parametrize(("layout", "clock"), [("dit", (1000.0, -1.0)), ("sit", (-1.0, 1.0))])
def test_published_transformers_come_in_by_name(there, capsys, layout, clock):
  """Their sizes are read from the arrays, the number of heads from a config.json beside them."""
  backbone = DiT(2, 16, 2, classes=10, clock=clock, **({"out": 8} if layout == "dit" else {"spare": True}))
  file = there / f"{layout}.safetensors"
  releases.write(file, interop.give(layout, weights(backbone)))
  words = (
    "import",
    file,
    "--layout",
    layout,
    "--on",
    there / "runs" / "one",
    "--runs",
    there / "runs",
    "--name",
    "two",
  )
  capsys.readouterr()
  assert call(*words) == 2
  assert "nothing says how many heads share a width of 16" in capsys.readouterr().err
  (there / "config.json").write_text('{"_class_name": "DiT", "num_heads": 2}')
  assert call(*words) == 0
  folder = open_folder(there / "runs" / "two")
  prior, made = folder.experiment.stage2.prior, folder.artefact(2)
  assert prior.backbone == backbone and made is not None
  assert prior.process.predict == ("noise" if layout == "dit" else "velocity")
  same = np.array_equal(made.weights["params/backbone/final/kernel"], weights(backbone)["final/kernel"])
  assert same  # what went out with another sign came in with it again
  assert call("export", folder.path, "--layout", layout, "--out", there / "out") == 0
  back, first = read_weights(str(there / "out" / "model.safetensors")), read_weights(str(file))
  assert back.keys() == first.keys() and all(np.array_equal(back[name], first[name]) for name in first)
  assert call("export", folder.path, "--layout", "lightning-dit-2", "--out", there / "no") == 2
  assert "lightning-dit has mlp = 'swiglu', and the run's backbone 'gelu'" in capsys.readouterr().err


# -- diffusers' U-Nets

UNETS = {
  "diffusers-unet": UNet(
    32,
    (1, 2),
    1,
    (0,),
    (2, 4),
    False,
    out=4,
    depth=(1, 2),
    linear=True,
    text=(77, 6),
    resample="both",
    groups=8,
    clock=(1000.0, -1.0),
  ),
  "diffusers-unet2d": UNet(16, (1, 1), 2, (1,), classes=3, head=8, resample="block", groups=16, clock=(1000.0, -1.0)),
}


def unet_weights(model, channels=4):
  rng, shapes = np.random.default_rng(0), of_backbone(model, (2, 2, channels))
  return {path: (0.1 * rng.standard_normal(shape)).astype(np.float32) for path, shape in shapes.items()}


@pytest.mark.parametrize("layout", UNETS)
def test_a_unet_comes_back_to_the_bit(layout):
  model, held = UNETS[layout], interop.LAYOUTS[layout]
  ours = unet_weights(model)
  theirs = interop.give(layout, ours)
  assert interop.guess(theirs, "x") == layout
  config = held.config(model, {}, (8, 8, 4))
  found, again = interop.read(layout, theirs, config, "x")
  assert found == model.clone(out=None)
  assert again.keys() == ours.keys() and all(np.array_equal(again[n], ours[n]) for n in ours)
  theirs.pop("up_blocks.1.resnets.0.conv1.weight")
  with pytest.raises(UserError, match=r"1 missing \(up_blocks.1.resnets.0.conv1.weight\)"):
    interop.read(layout, theirs, config, "x")
  with pytest.raises(UserError, match=r"config.json: freq_shift is 1, our U-Net has 0"):
    interop.read(layout, theirs, {**config, "freq_shift": 1}, "x")


def test_unets_that_a_layout_does_not_hold():
  text, plain = (interop.LAYOUTS[name] for name in UNETS)
  of_text, of_label = UNETS.values()
  for held, model, words in (
    (text, MODEL, "holds a UNet, and the run has DiT"),
    (text, of_label, "attends to texts and has convolutions"),
    (text, of_text.clone(resample="block"), "attends to texts and has convolutions"),
    (plain, of_text, "has plain attention"),
    (plain, of_label.clone(head=0, heads=2), "how many heads it has"),
    (text, of_text.clone(mult=(2, 2)), "as wide as level 0"),
    (text, of_text.clone(groups=0), r"one number of groups in all norms, this model \[8, 16\]"),
  ):
    with pytest.raises(UserError, match=words):
      held.check(model)
  arrays = interop.give("diffusers-unet", unet_weights(of_text))
  with pytest.raises(UserError, match="must say how many heads"):
    interop.read("diffusers-unet", {**arrays}, {}, "x")
  with pytest.raises(UserError, match="size beside the text"):
    interop.read("diffusers-unet", {**arrays, "add_embedding.linear_1.bias": np.zeros(3)}, {}, "x")


def test_stable_diffusion_comes_in(there):
  """In diffusers' folders, with texts; the U-Net is told the steps that it was trained on, 0 to 999."""
  model = UNETS["diffusers-unet"]
  config = {**interop.LAYOUTS["diffusers-unet"].config(model, {}, (4, 4, 4)), "_class_name": "UNet2DConditionModel"}
  arrays = interop.give("diffusers-unet", unet_weights(model))
  releases.write(there / "sd" / "unet" / "diffusion_pytorch_model.safetensors", arrays, config)
  rng = np.random.default_rng(0)
  text = rng.normal(size=(2, 77, 6)).astype(np.float32)
  np.savez(there / "texts.npz", text=text, text_mask=np.ones((2, 77), bool), null=text[1] / 2)
  words = ("--on", there / "runs" / "one", "--runs", there / "runs", "--texts", there / "texts.npz")
  assert call("import", there / "sd", "--layout", "diffusers-unet", "--name", "two", *words) == 0
  made = latents.load(there / "runs" / "two")
  two = made.experiment.stage2
  assert two.prior.backbone == model.clone(out=None) and two.prior.guidance == 7.5
  first, second = (made.sample_latents(labels=[k], steps=2).z for k in (0, 1))
  assert first.shape == (1, 4, 4, 4) and not np.array_equal(first, second)
  alone = made.sample_latents(labels=[0], steps=2, guidance=1.0).z
  assert not np.array_equal(first, alone)

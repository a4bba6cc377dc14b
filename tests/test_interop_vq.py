"""Autoencoders with a codebook, in and out: layouts of VQModel and of VQGAN, what a prior sees, what is refused."""

import json
import math
import re

import numpy as np
import pytest

import latents
from experiments.codes import ldm_vq, vqgan
from latents import interop
from latents.autoencoders import Autoencoder
from latents.bottlenecks import EMAVQ, KL, VQ, Gumbel, VQReg
from latents.declare import Released, Stage1
from latents.errors import UserError
from latents.pretrained.readers import read_weights
from latents.store.folder import open_folder
from latents.train.state import nest
from tests import releases
from tests.test_interop import call

CODES, VECTORS = ("diffusers-vq", "taming"), ("diffusers-vq-reg", "ldm-vq")
OPEN = {"mean": [0.0] * 3, "std": [1.0] * 3}


def model(vocab: int = 20, dim: int = 3, out: int = 3, reg: bool = False, **sizes) -> Autoencoder:
  plain = releases.model(**sizes)
  inner = VQ(vocab=vocab, dim=dim, legacy=True)
  return plain.clone(
    encoder=plain.encoder.clone(out=out),
    bottleneck=VQReg(inner) if reg else inner,
    decoder=plain.decoder.clone(entry=0 if out == dim else out),
  )


MODELS = {
  "plain": {},
  "factorised codes": {"dim": 4, "out": 16},
  "attention, three levels": {"attention": (1,), "mult": (1, 2, 1)},
}


@pytest.mark.parametrize("layout", [*CODES, *VECTORS])
@pytest.mark.parametrize("name", MODELS)
def test_a_round_trip_is_equal_to_the_bit(name, layout):
  made = model(reg=layout in VECTORS, **MODELS[name])
  ours = releases.weights(made)
  theirs = interop.give(layout, ours)
  assert theirs["quantize.embedding.weight"].shape == (20, 4 if made.decoder.entry else 3)
  assert interop.guess(theirs, "x") == dict(zip(VECTORS, CODES, strict=True)).get(layout, layout)
  found, again = interop.read(layout, theirs, {}, "x")
  assert found == made and again.keys() == ours.keys()
  assert all(np.array_equal(again[n], ours[n]) for n in ours)
  back = interop.give(layout, again)
  assert back.keys() == theirs.keys() and all(np.array_equal(back[n], theirs[n]) for n in theirs)


def test_both_uses_of_a_codebook_are_one_file():
  """What VQReg writes, VQ reads, and the other way round: only the layout's name says what a prior is to see."""
  for codes, vectors in zip(CODES, VECTORS, strict=True):
    theirs = interop.give(vectors, releases.weights(model(reg=True)))
    found, ours = interop.read(codes, theirs, {}, "x")
    assert found == model() and all(np.array_equal(a, theirs[n]) for n, a in interop.give(codes, ours).items())


def test_a_checkpoint_round_a_vqgan():
  inner = interop.give("taming", releases.weights(model()))
  outer = {f"state_dict/{name}": array for name, array in inner.items()}
  outer["state_dict/loss.discriminator.main.0.bias"] = outer["state_dict/model_ema.decay"] = np.zeros(3)
  for held in (outer, {f"state_dict/first_stage_model.{name}": array for name, array in inner.items()}):
    assert interop.guess(held, "x") == "taming"
    assert interop.read("ldm-vq", held, {}, "x")[0] == model(reg=True)


def broken(layout, change, **sizes):
  theirs = interop.give(layout, releases.weights(model(**sizes)))
  change(theirs)
  return theirs


def spatial(arrays) -> None:
  for name in [n for n in arrays if n.startswith("decoder.") and "norm" in n]:
    part, _, leaf = name.rpartition(".")
    arrays[f"{part}.norm_layer.{leaf}"] = arrays.pop(name)
    arrays[f"{part}.conv_y.{leaf}"] = np.zeros(3)


WRONG = {
  "a quant_conv of another codebook": (
    "diffusers-vq", lambda a: a.update({"quant_conv.weight": np.zeros((5, 3, 1, 1), np.float32)}),
    r"x does not fit: 1 misshapen \(quant_conv.weight \(5, 3, 1, 1\) instead of \(3, 3, 1, 1\)\)$",
  ),
  "a codebook of another quant_conv": (
    "taming", lambda a: a.update({"quantize.embedding.weight": np.zeros((20, 7), np.float32)}),
    r"x does not fit: 4 misshapen \(post_quant_conv.weight .*, quant_conv.*, ...\)$|x does not fit: \d misshapen \(",
  ),
  "no codebook": (
    "diffusers-vq", lambda a: a.pop("quantize.embedding.weight"),
    r"x is no diffusers-vq: it lacks quantize.embedding.weight$",
  ),
  "no codebook, of vectors": (
    "ldm-vq", lambda a: a.pop("quantize.embedding.weight"), r"x is no ldm-vq: it lacks quantize.embedding.weight$",
  ),
  "no quant_conv": (
    "taming", lambda a: (a.pop("quant_conv.weight"), a.pop("quant_conv.bias")),
    r"x does not fit: 2 missing \(quant_conv.(weight|bias), quant_conv.(weight|bias)\)$",
  ),
  "no post_quant_conv": (
    "taming", lambda a: (a.pop("post_quant_conv.weight"), a.pop("post_quant_conv.bias")),
    r"x is no taming: it lacks post_quant_conv.weight$",
  ),
  "MoVQ": ("diffusers-vq", spatial, r"x is no diffusers-vq: its norms read the code \(MoVQ, norm_type 'spatial'\)"),
  "remapped": (
    "taming", lambda a: a.update({"quantize.used": np.arange(4)}),
    r"x is no taming: its codes are numbered anew \(remap: quantize.used\)",
  ),
  "not finite": (
    "diffusers-vq", lambda a: a["quantize.embedding.weight"].fill(np.inf),
    r"x: quantize.embedding.weight holds numbers that are not finite$",
  ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named(name):
  layout, change, words = WRONG[name]
  reg = layout in VECTORS
  with pytest.raises(UserError, match=words) as told:
    interop.read(layout, broken(layout, change, reg=reg), {}, "x")
  assert "\n" not in str(told.value)


def test_a_guess():
  with pytest.raises(UserError, match=r"nearest is diffusers-vq: its norms read the code \(MoVQ"):
    interop.guess(broken("diffusers-vq", spatial), "x")
  with pytest.raises(UserError, match=r"x is no diffusers-kl: 1 extra \(quantize.embedding.weight\)$"):
    interop.read("diffusers-kl", broken("diffusers-vq", len), {}, "x")
  assert interop.guess(releases.arrays(), "x") == "diffusers-kl"


def test_models_that_a_layout_does_not_hold():
  made, reg = model(), model(reg=True)
  for layout, of, words in (
    ("diffusers-kl", made, "holds a ConvEncoder, KL and a ConvDecoder, and the run has VQ$"),
    ("ldm-kl", reg, "holds a ConvEncoder, KL and a ConvDecoder, and the run has VQReg$"),
    ("diffusers-vq", reg, "holds a ConvEncoder, VQ and a ConvDecoder, and the run has VQReg$"),
    (
      "taming",
      made.clone(bottleneck=EMAVQ(20, 3)),
      "holds a ConvEncoder, VQ and a ConvDecoder, and the run has EMAVQ$",
    ),
    ("ldm-vq", reg.clone(bottleneck=VQReg(EMAVQ(20, 3))), "a VQReg of VQ, and the run has one of EMAVQ$"),
    ("taming", made.clone(bottleneck=VQ(20, 3, normalise="codes")), r"this run's are normalised \('codes'\)$"),
    ("taming", made.clone(bottleneck=VQ(20, 3, project=False)), "has quant_conv and post_quant_conv"),
    ("taming", made.clone(decoder=made.decoder.clone(project=False)), "has quant_conv and post_quant_conv"),
    ("taming", made.clone(bottleneck=VQ(20, 5)), "back to the encoder's$"),
    ("taming", model(groups=16), "32 groups in all norms, this model 16, 32$"),
  ):
    with pytest.raises(UserError, match=words):
      interop.LAYOUTS[layout].check(of)
  config, kl = (interop.LAYOUTS[name].config for name in ("diffusers-vq", "diffusers-kl"))
  assert config is not None and kl is not None
  with pytest.raises(UserError, match="VQModel has encoder and decoder of the same sizes"):
    config(made.clone(decoder=made.decoder.clone(blocks=2)), OPEN, (16, 16, 3))
  wide = releases.model().clone(decoder=releases.model().decoder.clone(entry=7))
  with pytest.raises(UserError, match="AutoencoderKL's decoder reads 4 channels, this one 7"):
    kl(wide, {"mean": [0.0] * 4, "std": [1.0] * 4}, (16, 16, 3))


SIZES = (  # as counted in the released models (tests/parity/test_vq_model.py)
  ("taming", vqgan.experiment("paper", vocab=1024), 72_141_699),
  ("taming", vqgan.experiment("paper"), 76_073_859),
  ("ldm-vq", ldm_vq.experiment("paper"), 55_322_782),
)


@pytest.mark.parametrize(("layout", "made", "count"), SIZES)
def test_paper_scales_are_the_released_networks(layout, made, count):
  one = made.stage1.model
  interop.LAYOUTS[layout].check(one)
  shapes = interop.parameters(one, 3)
  assert sum(math.prod(shape) for shape in shapes.values()) == count
  theirs = interop.give(layout, {path: np.broadcast_to(np.float32(0), shape) for path, shape in shapes.items()})
  plain = {"dtype": "float32", "groups": 32, "least": 1}
  assert interop.read(layout, theirs, {}, "x")[0] == one.clone(
    encoder=one.encoder.clone(**plain), decoder=one.decoder.clone(**plain)
  )


# -- the commands


def begun(one: Stage1) -> str:
  """The layout of the weights that a stage begins with."""
  made = one.start[0].stage
  assert isinstance(made, Released)
  return made.layout


@pytest.fixture(scope="module")
def release(tmp_path_factory):
  """(the folder, the file of a VQModel with its config.json)."""
  folder = tmp_path_factory.mktemp("vq")
  theirs = interop.give("diffusers-vq", releases.weights(model(dim=4, out=16)))
  config = {"_class_name": "VQModel", "scaling_factor": 0.5, "sample_size": 16}
  return folder, releases.write(folder / "vqvae" / "diffusion_pytorch_model.safetensors", theirs, config)


def test_codes_come_in_and_go_out(release, tmp_path, capsys):
  _, file = release
  runs = tmp_path / "runs"
  assert call("import", file, "--name", "vq", "--runs", runs) == 0
  one = open_folder(runs / "vq").experiment.stage1
  assert one.losses.keys() == {"vq"} and one.model == model(dim=4, out=16) and begun(one) == "diffusers-vq"
  made = latents.load(runs / "vq")
  x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)
  latent = made.encode(x)
  assert latent.codes.shape == (2, 8, 12) and made.reconstruct(x).shape == x.shape
  np.testing.assert_array_equal(made.decode(latent), made.decode(latent.replace(z=None)))
  assert call("export", runs / "vq", "--layout", "diffusers-vq", "--out", tmp_path / "out") == 0
  back, first = read_weights(str(tmp_path / "out" / file.name)), read_weights(str(file))
  assert back.keys() == first.keys() and all(np.array_equal(back[n], first[n]) for n in first)
  said = json.loads((tmp_path / "out" / "config.json").read_text())
  assert (said["_class_name"], said["num_vq_embeddings"], said["vq_embed_dim"], said["latent_channels"]) == (
    "VQModel", 20, 4, 16
  )  # fmt: skip
  assert said["scaling_factor"] == 0.5 and "use_quant_conv" not in said
  capsys.readouterr()
  assert call("export", runs / "vq", "--layout", "diffusers-kl", "--out", tmp_path / "kl") == 2
  told = capsys.readouterr().err
  assert "holds a ConvEncoder, KL and a ConvDecoder, and the run has VQ\n" in told and told.count("\n") == 1
  assert not (tmp_path / "kl").exists()


def test_units_of_codes_and_of_vectors(tmp_path, capsys):
  """Codes have no units, and nothing has to be said of them; what is in front of a quantiser has, LDM's are 1."""
  file = releases.write(tmp_path / "vq.safetensors", interop.give("taming", releases.weights(model(reg=False))))
  words = ("import", file, "--size", 16, "--runs", tmp_path)
  assert call(*words, "--name", "codes") == 0
  assert begun(open_folder(tmp_path / "codes").experiment.stage1) == "taming"
  capsys.readouterr()
  assert call(*words, "--layout", "ldm-vq", "--name", "no") == 2
  assert "does not say the units of its latents: --layout sd, sdxl, " in capsys.readouterr().err
  assert call(*words, "--layout", "ldm-vq-f8", "--name", "no") == 2
  assert "has latents of 3 channels, that release has 4" in capsys.readouterr().err
  assert call(*words, "--layout", "ldm-vq-f4", "--name", "vectors") == 0
  made, other = latents.load(tmp_path / "vectors"), latents.load(tmp_path / "codes")
  assert made.experiment.stage1.model == model(reg=True)
  x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
  latent = made.encode(x)
  assert latent.codes is None and len(np.unique(latent.z.reshape(-1, 3), axis=0)) == 2 * 8 * 8
  np.testing.assert_array_equal(made.decode(latent), other.decode(other.encode(x)))  # the decoder quantises
  assert call(*words, "--layout", "ldm-vq", "--data", "photos", "--name", "measured") == 0
  artefact = open_folder(tmp_path / "measured").artefact(1)
  assert artefact is not None
  found = artefact.facts["statistics"]
  assert found["count"] > 0 and found["std"] != [1.0] * 3
  assert call("export", tmp_path / "measured", "--layout", "diffusers-vq-reg", "--out", tmp_path / "out") == 0
  said = json.loads((tmp_path / "out" / "config.json").read_text())
  np.testing.assert_allclose(said["latents_std"], found["std"])


PRIOR = """
import dataclasses
from experiments.codes import vq_transformer
from latents.data import Photos
from latents.declare import Evaluation

def experiment(scale="tiny"):
  base = vq_transformer.experiment(vocab=20)
  backbone = base.stage2.prior.backbone.clone(width=32, depth=1, heads=2, classes=0)
  prior = base.stage2.prior.clone(backbone=backbone, guidance=1.0)
  two = dataclasses.replace(base.stage2, data=Photos(size=16, count=8), prior=prior, steps=2, batch=4)
  two = dataclasses.replace(two, optimizer=dataclasses.replace(two.optimizer, warmup=0))
  few = Evaluation(images=4, samples=2, batch=4, features=False)
  return dataclasses.replace(base, name="prior", stage2=two, evaluation=few)
"""


def test_a_prior_on_imported_codes(release, tmp_path, capsys):
  _, file = release
  runs = tmp_path / "runs"
  assert call("import", file, "--name", "vq", "--runs", runs) == 0
  (tmp_path / "prior.py").write_text(PRIOR)
  assert call("run", tmp_path / "prior.py", "--on", runs / "vq", "--runs", runs) == 0
  assert re.search("stage 1 is the same as in", capsys.readouterr().err)
  made = latents.load(runs / "prior")
  assert made.sample(number=1).shape == (1, 16, 16, 3)
  scores = json.loads((runs / "prior" / "scores.json").read_text())
  assert "usage" in str(scores) and "psnr" in str(scores).lower()
  assert call("encode", runs / "prior", "--out", tmp_path / "cache") == 0


def test_statistics_of_a_posterior_stay(tmp_path):
  """The KL path of an import is what it was: a weight for its term, no codes."""
  file = releases.write(tmp_path / "kl.safetensors")
  assert call("import", file, "--layout", "sd", "--name", "kl", "--runs", tmp_path, "--size", 16) == 0
  one = open_folder(tmp_path / "kl").experiment.stage1
  assert one.losses.keys() == {"kl"} and type(one.model.bottleneck) is KL


# -- taming-transformers' Gumbel quantiser


def gumbel() -> Autoencoder:
  plain = model()
  return plain.clone(encoder=plain.encoder.clone(out=6, project=6), bottleneck=Gumbel(vocab=20, dim=3, hard=True))


def test_a_gumbel_quantiser_comes_in_and_goes_out(tmp_path):
  """quant_conv, logits and rows; its passes, which no file has, are those of a finished training."""
  made = gumbel()
  ours = releases.weights(made)
  theirs = interop.give("taming-gumbel", ours)
  assert theirs["quantize.proj.weight"].shape == (20, 6, 1, 1) and theirs["quant_conv.weight"].shape == (6, 6, 1, 1)
  assert interop.guess(theirs, "x") == "taming-gumbel"
  found, again = interop.read("taming-gumbel", theirs, {}, "x")
  assert found == made and again["codebook/bottleneck/passes"] == 150_000
  back = interop.give("taming-gumbel", again)
  assert back.keys() == theirs.keys() and all(np.array_equal(back[n], theirs[n]) for n in theirs)
  with pytest.raises(UserError, match=r"holds a ConvEncoder, Gumbel and a ConvDecoder, and the run has VQ$"):
    interop.LAYOUTS["taming-gumbel"].check(model())
  file = releases.write(tmp_path / "gumbel.safetensors", theirs)
  assert call("import", file, "--name", "x", "--runs", tmp_path, "--size", 16) == 0
  run = latents.load(tmp_path / "x")
  x = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
  latent = run.encode(x)
  h = made.encoder.apply({"params": nest(ours)["encoder"]}, x, train=False)
  logits = h @ theirs["quantize.proj.weight"][..., 0, 0].T + theirs["quantize.proj.bias"]
  np.testing.assert_array_equal(latent.codes, logits.argmax(-1))
  assert call("export", tmp_path / "x", "--layout", "taming-gumbel", "--out", tmp_path / "out") == 0
  out = read_weights(str(tmp_path / "out" / "ae.safetensors"))
  assert out.keys() == theirs.keys() and all(np.array_equal(out[n], theirs[n]) for n in theirs)

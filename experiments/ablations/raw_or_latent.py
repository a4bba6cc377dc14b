"""The same transformer on the values of pixels and on codes, at equal compute: what a tokenizer buys.

VQGAN (Esser et al. 2020, arXiv:2012.09841) puts a transformer on codes because that of pixels has a token a value:
a picture of 32 px is 1,024 tokens raw and 64 codes, and attention costs the square. Raw, every bit is modelled and the
likelihood is of the picture itself; of codes it is of what the tokenizer keeps, and samples are what it decodes.

    latents ablate experiments/ablations/raw_or_latent.py --scale tiny --seeds 3

tiny: digits, LlamaGen's blocks 4x128 on 64 codes of 64 entries (`codes/vq_transformer.py`), on the 1,024 values of 32
px, and on the 64 values that digits have at their own 8 px (17 levels, no tokenizer could be smaller); all for 3.14e12
FLOPs, the tokenizer's among them (`compute.flops`); 50 samples. paper: ImageNet at 256 px and, raw, at 32. The smallest
difference that counts: 0.02 of the agreement.
"""

import dataclasses
from typing import Any, Literal

from experiments.codes import vq_transformer
from latents.ablations import Ablation, Against, Claim
from latents.autoencoders import Autoencoder
from latents.bottlenecks import Symbols
from latents.data import Digits, Tfds
from latents.declare import Experiment
from latents.decoders import IdentityDecoder
from latents.encoders import IdentityEncoder

AGREEMENT, SECONDS = "samples.class_agreement", "time.sample_s"
# name -> (pixels a side, levels of a value, steps and batch at the tiny scale)
RAW: dict[str, tuple[int, int, int, int]] = {"raw": (32, 256, 60, 4), "raw-small": (8, 17, 458, 16)}


def sweep(scale: Literal["tiny", "paper"] = "tiny") -> Ablation:
  names = ("raw", "raw-small") if scale == "tiny" else ("raw",)
  trained = ("stage2.steps", "stage2.batch") if scale == "tiny" else ()
  return Ablation(
    variants={"codes": codes(scale)} | {name: one(scale, *RAW[name]) for name in names},
    varies=("stage1.data", "stage1.model", "stage1.losses", "stage1.steps", "stage1.normalise", "stage2.data",
            "stage2.prior", "stage2.cache", *trained),
    columns=(AGREEMENT, "samples.sample_to_train", "samples.heldout_to_train", "samples.sample_to_sample",
             "prior.bits_per_dim", "prior.marginal_bits_per_dim", "prior.first_order_bits_per_dim", SECONDS,
             "compute.flops", "reconstruction..psnr"),
    curves=(),
    claims=claims()[: 3 if scale == "tiny" else 2],
  )  # fmt: skip


def claims() -> tuple[Claim, ...]:
  """What VQGAN leads one to expect."""
  return (
    Against(sentence="At equal compute samples from codes are more often of the class that was asked for.",
            variant="codes", control="raw", column=AGREEMENT, direction="higher", least=0.02),
    Against(sentence="And a sample takes less time.", variant="codes", control="raw", column=SECONDS,
            direction="lower"),
    Against(sentence="With as many tokens raw, the tokenizer is no gain.", variant="raw-small", control="codes",
            column=AGREEMENT, direction="higher", least=-0.02),
  )  # fmt: skip


def codes(scale: Literal["tiny", "paper"]) -> Experiment:
  """The two stages."""
  made = vq_transformer.experiment(scale)
  if scale == "paper":
    return dataclasses.replace(made, name="raw_or_latent")
  assert made.stage2 is not None
  two, evaluation = dataclasses.replace(made.stage2, steps=308), dataclasses.replace(made.evaluation, samples=50)
  return dataclasses.replace(made, name="raw_or_latent", stage2=two, evaluation=evaluation)


def one(scale: Literal["tiny", "paper"], side: int, levels: int, steps: int, batch: int) -> Experiment:
  """The transformer on values."""
  made, tiny = codes(scale), scale == "tiny"
  assert made.stage2 is not None
  data = Digits(size=side) if tiny else Tfds("imagenet2012", None, 32, labels=1000)
  levels, channels = (levels, 1) if tiny else (256, 3)
  prior: Any = made.stage2.prior
  length = data.shape[0] * data.shape[1] * channels
  prior = prior.clone(backbone=prior.backbone.clone(vocab=levels, length=length, groups=channels))
  model = Autoencoder(
    encoder=IdentityEncoder(), bottleneck=Symbols(levels=levels, channels=channels), decoder=IdentityDecoder()
  )
  two = dataclasses.replace(made.stage2, data=data, prior=prior, cache=False)
  return dataclasses.replace(
    made,
    stage1=dataclasses.replace(made.stage1, data=data, model=model, losses={}, steps=0, normalise="none"),
    stage2=dataclasses.replace(two, steps=steps, batch=batch) if tiny else two,
  )

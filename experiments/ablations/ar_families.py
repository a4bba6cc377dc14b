"""One frozen tokenizer, every prior over its codes, at equal training compute.

The line of the article, on the same codes: PixelCNN (van den Oord et al. 2016, arXiv:1601.06759) with its blind spot
and Gated PixelCNN (arXiv:1606.05328) without it; PixelSNAIL (Chen et al. 2017, arXiv:1712.09763), which adds attention;
GPT-2's transformer (VQGAN: Esser et al. 2020, arXiv:2012.09841) and LlamaGen's (Sun et al. 2024, arXiv:2406.06525) with
learned and with rotary positions; the same in an order of its own for each example (RAR: Yu et al. 2024,
arXiv:2411.00776); and MaskGIT (Chang et al. 2022, arXiv:2202.04200), which fills many codes at a time and has no
likelihood.

    latents ablate experiments/ablations/ar_families.py --scale tiny --seeds 3

tiny: 8x8 codes of 64 entries of digits (`codes/vq_transformer.py`), priors of 0.2 to 1.1 million numbers, all trained
for 3.2e12 FLOPs (`compute.stage2_flops`), 100 samples with guidance 2. paper: the tokenizer and the steps of
`vq_transformer`, networks of 57 (PixelCNN) to 184 million numbers (MaskGIT), not of equal compute. The smallest
differences that count: 0.02 nats a code, 0.02 of the agreement.
"""

import dataclasses
from typing import Any, Literal

from experiments.codes import maskgit, vq_transformer
from latents.ablations import Ablation, Against, Claim
from latents.backbones import GatedPixelCNN, PixelCNN, PixelSNAILCodes
from latents.declare import Experiment
from latents.priors import AutoregressivePrior, Prior

NATS, AGREEMENT, SECONDS = "prior.nats_per_element", "samples.class_agreement", "time.sample_s"
BASELINES = ("prior.marginal_bits_per_element", "prior.first_order_bits_per_element", "prior.bits_per_element")
# steps at the tiny scale, of as many FLOPs each (`tests/test_equal_compute.py` counts them)
STEPS = {
  "pixelcnn": 1912,
  "gated-pixelcnn": 875,
  "pixelsnail": 3005,
  "gpt": 606,
  "llamagen": 464,
  "rotary": 464,
  "random-order": 464,
  "maskgit": 585,
}


def sweep(scale: Literal["tiny", "paper"] = "tiny") -> Ablation:
  return Ablation(
    variants={name: variant(scale, name) for name in STEPS},
    varies=("stage2.prior", "stage2.steps") if scale == "tiny" else ("stage2.prior",),
    columns=(NATS, *BASELINES, AGREEMENT, "samples.sample_to_train", "samples.sample_to_sample", SECONDS,
             "compute.stage2_flops"),
    curves=(),
    claims=claims(),
    seeds_of="stage2",
  )  # fmt: skip


def claims() -> tuple[Claim, ...]:
  """What the papers say of each other."""
  return (
    Against(sentence="Without its blind spot a PixelCNN foretells codes better.", variant="gated-pixelcnn",
            control="pixelcnn", column=NATS, direction="lower", least=0.02),
    Against(sentence="Attention foretells better than convolutions alone (PixelSNAIL).", variant="pixelsnail",
            control="gated-pixelcnn", column=NATS, direction="lower", least=0.02),
    Against(sentence="LlamaGen's blocks foretell better than GPT-2's.", variant="llamagen", control="gpt", column=NATS,
            direction="lower", least=0.02),
    Against(sentence="Rotary positions foretell better than learned ones.", variant="rotary", control="llamagen",
            column=NATS, direction="lower", least=0.02),
    Against(sentence="Orders that change cost likelihood in raster order.", variant="random-order", control="llamagen",
            column=NATS, direction="higher", least=0.02),
    Against(sentence="MaskGIT draws as often what was asked for, in eight passes.", variant="maskgit",
            control="llamagen", column=AGREEMENT, direction="higher", least=-0.02),
  )  # fmt: skip


def variant(scale: Literal["tiny", "paper"], name: str) -> Experiment:
  """The base with another prior."""
  made = vq_transformer.experiment(scale)
  assert made.stage2 is not None
  steps = STEPS[name] if scale == "tiny" else made.stage2.steps
  two = dataclasses.replace(made.stage2, prior=prior(scale, name), steps=steps)
  evaluation = dataclasses.replace(made.evaluation, samples=100 if scale == "tiny" else made.evaluation.samples)
  return dataclasses.replace(made, name="ar_families", stage2=two, evaluation=evaluation)


def prior(scale: Literal["tiny", "paper"], name: str) -> Prior:
  """Of the codes of `vq_transformer`."""
  tiny = scale == "tiny"
  base: Any = vq_transformer.experiment(scale).stage2.prior  # pyright: ignore
  net = base.backbone
  if name == "maskgit":
    found: Any = maskgit.experiment(scale).stage2.prior  # pyright: ignore
    return found.clone(backbone=found.backbone.clone(vocab=net.vocab), guidance=base.guidance)
  grid = (8, 8) if tiny else (16, 16)
  size: dict[str, Any] = {"classes": net.classes} | ({"embed": 16} if tiny else {"embed": 64, "dtype": "bfloat16"})
  plain: dict[str, Any] = {"width": 64, "depth": 6, "first": 5, "hidden": 128} if tiny else {"width": 384, "depth": 20}
  gated: dict[str, Any] = {"width": 64, "depth": 6, "size": 3, "first": 5, "hidden": 128} if tiny else {}
  snail: dict[str, Any] = {"width": 48, "blocks": 2, "resnets": 2} if tiny else {}
  networks = {
    "pixelcnn": lambda: PixelCNN(net.vocab, grid, **(size | plain)),
    "gated-pixelcnn": lambda: GatedPixelCNN(net.vocab, grid, **(size | gated)),
    "pixelsnail": lambda: PixelSNAILCodes(net.vocab, grid, **(size | snail)),
    "gpt": lambda: net.clone(kind="gpt"),
    "llamagen": lambda: net,
    "rotary": lambda: net.clone(position="rotary", grid=grid),
    "random-order": lambda: net.clone(places=net.length, told=True),
  }  # fmt: skip
  order: Any = "random" if name == "random-order" else "raster"
  return AutoregressivePrior(backbone=networks[name](), guidance=base.guidance, top_p=base.top_p, order=order)

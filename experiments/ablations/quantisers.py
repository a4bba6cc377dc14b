"""Every quantiser on one grid at one rate, and the continuous latent beside them.

Between one encoder and one decoder stands a code of 9 bits a place: a learned codebook (van den Oord et al. 2017,
arXiv:1711.00937), with codes of length 1 (Yu et al. 2021, arXiv:2110.04627) or the rotation trick (Fifty et al. 2024,
arXiv:2410.06424), a moving average, restarted or not (Razavi et al. 2019, arXiv:1906.00446; Dhariwal et al. 2020,
arXiv:2005.00341), a relaxed one (Ramesh et al. 2021, arXiv:2102.12092), rounded channels (Mentzer et al. 2023,
arXiv:2309.15505; symmetric: Parker et al. 2024, arXiv:2411.19842), signs (Yu et al. 2023, arXiv:2310.05737; on a
sphere: Zhao et al. 2024, arXiv:2406.07548), and three codes in a row of 3 bits each (Lee et al. 2022,
arXiv:2203.01941); KL is LDM's Gaussian (Rombach et al. 2022, arXiv:2112.10752), whose rate is its own.

    TFDS_DATA_DIR=../shared/data latents ablate experiments/ablations/quantisers.py --scale tiny --seeds 2 \\
        --lpips ../shared/data/weights/lpips_squeeze_torchvision_fp16.npz

tiny: photographs of 32 px, the networks and losses of `reconstruction_losses` (L2, perceptual) at f4, 64 places, 1,000
steps; 576 bits a picture of every quantiser; a transformer 4x96 of 300 steps on the codes (a DiT on KL's latent, whose
loss is no likelihood). Usage and perplexity are of 12,800 held-out places, enough for all 512 codes; of three codes in
a row they are means over codebooks of 8. paper: `vqgan`'s network at f16 and 2^14 codes or their like, ImageNet-256.
The smallest differences that count: 0.2 dB, 0.05 of the usage, 20 bits of the prior.

What does not hold here may be a matter of the length, 1,000 steps of 8 pictures; it was not tried longer. A codebook by
gradient settles on a sixth to a fourth of its rows within the first hundred steps, with the rotation trick on fewer.
Gumbel is cold from step 800 on; larger weights of its KL (5e-3, 2e-2) gave more codes and no better pictures. The
entropies of LFQ and BSQ weigh so much that codes are in use, and that costs decibels: at 0.01 LFQ had 53 % of them in
use and 20.2 dB, at 0.1 all and 18.8 dB.
"""

import dataclasses
from typing import Any, Literal

from experiments.ablations import reconstruction_losses as base
from experiments.codes import vq_transformer, with_quantiser
from latents.ablations import Ablation, Against, Claim, Equal, Ranks, Within
from latents.backbones import DiT, Transformer
from latents.bottlenecks import BSQ, EMAVQ, FSQ, KL, LFQ, VQ, Bottleneck, Gumbel, ResidualFSQ, ResidualVQ
from latents.declare import Experiment
from latents.losses import Weight
from latents.priors import AutoregressivePrior, FlowPrior

USAGE, PERPLEXITY, RATE, BITS = "latent.usage", "latent.perplexity", "latent.rate_bits", "prior.bits_per_example"
LPIPS = "reconstruction..lpips_squeeze"
ONE = (
  "vq",
  "vq-l2",
  "rotation",
  "ema",
  "ema-rotation",
  "ema-restart",
  "gumbel",
  "fsq",
  "fsq-symmetric",
  "lfq",
  "bsq",
)  # one code


def sweep(scale: Literal["tiny", "paper"] = "tiny") -> Ablation:
  return Ablation(
    variants={name: _variant(scale, *part) for name, part in parts(scale).items()},
    varies=("stage1.model.bottleneck", "stage1.losses", "stage2.prior"),
    columns=(RATE, base.PSNR, base.SSIM, LPIPS, base.KERNEL, USAGE, PERPLEXITY, BITS, "latent.capacity_bits",
             *base.SAMPLES),
    curves=("train/l2", "train/usage"),
    claims=claims(),
  )  # fmt: skip


def parts(scale: Literal["tiny", "paper"]) -> dict[str, tuple[Bottleneck, dict[str, float]]]:
  """name -> the bottleneck, and the weights of its terms."""
  tiny = scale == "tiny"
  vocab, dim, bits = (512, 8, 9) if tiny else (16_384, 256, 14)
  levels, row = ((8, 8, 8), (4, 2)) if tiny else ((8, 8, 8, 6, 5), (8, 4, 4))
  start: dict[str, Any] = {"kmeans": 10, "restart": 0.1}
  chain = EMAVQ(vocab=8 if tiny else 128, dim=dim, **start)
  count, commit, vq = 3 if tiny else 2, {"commit": 0.25}, {"vq": 1.0}
  sign = {"entropy": 0.03 if tiny else 0.1}
  return {
    "vq": (VQ(vocab=vocab, dim=dim), vq),
    "vq-l2": (VQ(vocab=vocab, dim=8, normalise="codes"), vq),
    "rotation": (VQ(vocab=vocab, dim=dim, gradient="rotation"), vq),
    "ema": (EMAVQ(vocab=vocab, dim=dim), commit),
    "ema-rotation": (EMAVQ(vocab=vocab, dim=dim, gradient="rotation"), commit),
    "ema-restart": (EMAVQ(vocab=vocab, dim=dim, **start), commit),
    "gumbel": (Gumbel(vocab=vocab, dim=dim, cooling=800 if tiny else 150_000), {"kl": 5e-4}),
    "fsq": (FSQ(levels=levels), {}),
    "fsq-symmetric": (FSQ(levels=levels, symmetric=True), {}),
    "lfq": (LFQ(bits=bits), sign | {"commit": 0.25}),
    "bsq": (BSQ(bits=bits), sign | {"commit": 0.0}),
    "rvq": (ResidualVQ(stage=chain, quantizers=count), commit),
    "rfsq": (ResidualFSQ(levels=row, quantizers=count), {}),
    "kl": (KL(dim=4 if tiny else 16, spread=0.1), {"kl": 1e-6}),
  }


def claims() -> tuple[Claim, ...]:
  """What the literature expects of each."""
  return (
    Against(sentence="The rotation trick uses more of a codebook than straight-through gradients (Fifty et al.).",
            variant="rotation", control="vq", column=USAGE, direction="higher", least=0.05),
    Against(sentence="And it rebuilds better.", variant="rotation", control="vq", column=base.PSNR, direction="higher",
            least=0.2),
    Against(sentence="It uses more of a moving average, too.", variant="ema-rotation", control="ema", column=USAGE,
            direction="higher", least=0.05),
    Against(sentence="Codes of length 1 in few channels are used more than plain ones (ViT-VQGAN).", variant="vq-l2",
            control="vq", column=USAGE, direction="higher", least=0.05),
    Against(sentence="A moving average whose codes are restarted uses more of them than one without (Jukebox).",
            variant="ema-restart", control="ema", column=USAGE, direction="higher", least=0.05),
    Against(sentence="And it rebuilds better than a codebook by gradient.", variant="ema-restart", control="vq",
            column=base.PSNR, direction="higher", least=0.2),
    Within(sentence="FSQ uses nearly all codes without any loss (Mentzer et al.).", variant="fsq", column=USAGE,
           low=0.95, high=1.0),
    Equal(sentence="And it rebuilds as well as the best codebook, to 0.5 dB.", variant="fsq", control="ema-restart",
          column=base.PSNR, margin=0.5),
    Equal(sentence="Levels that are symmetric about 0 change nothing much.", variant="fsq-symmetric", control="fsq",
          column=base.PSNR, margin=0.5),
    Within(sentence="The entropy term keeps LFQ's codes in use (MAGVIT-v2).", variant="lfq", column=USAGE, low=0.9,
           high=1.0),
    Against(sentence="Signs on the sphere, whose error is bounded, rebuild better than plain ones (BSQ).",
            variant="bsq", control="lfq", column=base.PSNR, direction="higher", least=0.2),
    Equal(sentence="Three codes in a row of 3 bits rebuild as well as one of 9, to 0.5 dB (RQ-VAE: a residual "
          "quantiser stands for a codebook of their product).", variant="rvq", control="ema-restart", column=base.PSNR,
          margin=0.5),
    Against(sentence="What is relaxed in training and picked afterwards pays for the gap (DALL-E's dVAE).",
            variant="gumbel", control="ema-restart", column=base.PSNR, direction="lower", least=0.2),
    Against(sentence="The continuous latent of the same grid rebuilds better than any code of 9 bits.", variant="kl",
            control="ema-restart", column=base.PSNR, direction="higher", least=1.0),
    Ranks(sentence="What is in the codes the prior must pay for: its bits follow the perplexity.", order=ONE,
          column=BITS, by=PERPLEXITY),
  )  # fmt: skip


def _variant(scale: Literal["tiny", "paper"], bottleneck: Bottleneck, weights: dict[str, float]) -> Experiment:
  start = _base(scale)
  if not isinstance(bottleneck, KL):
    return with_quantiser(start, "quantisers", bottleneck, weights, groups=getattr(bottleneck, "quantizers", 1))
  made = with_quantiser(start, "quantisers", FSQ(), {})
  assert made.stage2 is not None
  losses = {**made.stage1.losses, **{k: Weight(weight) for k, weight in weights.items()}}
  one = dataclasses.replace(made.stage1, model=made.stage1.model.clone(bottleneck=bottleneck), losses=losses)
  size: dict[str, Any] = {"width": 96, "depth": 4, "heads": 4, "classes": 20}
  if scale == "paper":
    size = {"width": 768, "depth": 12, "heads": 12, "classes": 1000, "dtype": "bfloat16"}
  two = dataclasses.replace(made.stage2, prior=FlowPrior(backbone=DiT(patch=1, **size), guidance=2.0))
  return dataclasses.replace(made, stage1=one, stage2=two)


def _base(scale: Literal["tiny", "paper"]) -> Experiment:
  if scale == "paper":
    return vq_transformer.experiment(scale)
  made = base.with_prior(base.variant("tiny", ("perceptual",)))
  one, two = made.stage1, made.stage2
  assert two is not None
  model: Any = one.model
  model = model.clone(encoder=model.encoder.clone(out=32))  # of which every bottleneck makes its own
  prior = AutoregressivePrior(
    backbone=Transformer(vocab=1, length=64, width=96, depth=4, heads=4, classes=20), guidance=2.0
  )
  return dataclasses.replace(
    made, stage1=dataclasses.replace(one, model=model), stage2=dataclasses.replace(two, prior=prior)
  )

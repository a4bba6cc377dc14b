"""The weight of the KL term: does it make latents Gaussian, or does it bound their scale and outliers?

Dieleman, "Generative modelling in latent space" (2025), on KL-regularised autoencoders: unscaled, the term would take
most of the latents' capacity and spoil the reconstruction, so it is scaled down by orders of magnitude (Rombach et al.
2022, arXiv:2112.10752, take 1e-6). So weak it does hardly anything to make them Gaussian; it keeps their scale in
bounds and suppresses outliers.

    TFDS_DATA_DIR=../shared/data latents ablate experiments/ablations/kl_weight.py --scale tiny --seeds 3

tiny: `reconstruction_losses`' autoencoder of photographs of 32 px (f4 c4), L2 and perceptual, a DiT 4x96 of 300 steps,
at most four minutes of one core a run. Weights are those of the mean KL of a latent number beside an L2 in [-1,1]; that
of an unscaled ELBO with a Gaussian decoder of the reconstructions' own error is 4e-3 at 22.5 dB (2 MSE / TSR). scale:
deviation of the latent's numbers before they are normalised; outliers: share beyond 4 deviations (Gaussian: 6.3e-5);
excess kurtosis: 0 for a Gaussian; kernel and Frechet distances of 200 samples. paper: the same weights at the paper
scale of `ldm_kl`.
The smallest differences that count: 0.2 dB, 50 bits, a tenth of excess kurtosis and of the scale.
"""

import dataclasses
from typing import Literal

from experiments.ablations import reconstruction_losses as base
from experiments.images import ldm_kl
from latents.ablations import Ablation, Against, Equal, Ranks, Stepwise
from latents.declare import Experiment
from latents.evaluate import Kurtosis, LatentMetric, Metric, Outliers, Scale
from latents.losses import Weight

WEIGHTS = {"none": 0.0, "1e-6": 1e-6, "1e-4": 1e-4, "3e-3": 3e-3, "1e-1": 1e-1}
SCALE, OUTLIERS, KURTOSIS, BITS = (
  f"latent.{name}" for name in ("scale", "outliers", "excess_kurtosis", "capacity_bits")
)
MEASURES: tuple[Metric | LatentMetric, ...] = (Kurtosis(), Outliers(), Scale())


def sweep(scale: Literal["tiny", "paper"] = "tiny") -> Ablation:
  order = tuple(WEIGHTS)
  return Ablation(
    variants={name: _variant(scale, weight) for name, weight in WEIGHTS.items()},
    varies=("stage1.losses.kl.weight",),
    columns=(base.PSNR, BITS, SCALE, OUTLIERS, KURTOSIS, base.TOP, *base.SAMPLES),
    claims=(
      Equal(sentence="As small as it is used (1e-6 against none) it costs no reconstruction.", variant="1e-6",
            control="none", column=base.PSNR, margin=0.2),
      Equal(sentence="Nor does it make the latents Gaussian.", variant="1e-6", control="none", column=KURTOSIS,
            margin=0.1),
      Against(sentence="But it keeps their scale down.", variant="1e-6", control="none", column=SCALE,
              direction="lower", least=0.1),
      Against(sentence="And suppresses outliers.", variant="1e-6", control="none", column=OUTLIERS, direction="lower"),
      Ranks(sentence="The scale follows the weight, from none to the strongest.", order=order, column=SCALE,
            direction="lower", least=0.8),
      Stepwise(sentence="Every step up in weight lowers the rate.", order=order, column=BITS, direction="lower",
               least=50.0),
      Against(sentence="About unscaled (3e-3) the term costs reconstruction.", variant="3e-3", control="none",
              column=base.PSNR, direction="lower", least=0.2),
      Against(sentence="A KL of that strength makes latents that are easier to model.", variant="3e-3",
              control="1e-6", column=base.SAMPLES[0], direction="lower"),
    ),
  )  # fmt: skip


def _variant(scale: Literal["tiny", "paper"], weight: float) -> Experiment:
  if scale == "paper":
    made = ldm_kl.experiment(scale, kl=weight)
  else:
    made = base.with_prior(base.variant(scale, ("perceptual",)))
    losses = {**made.stage1.losses, "kl": Weight(weight)}
    made = dataclasses.replace(made, stage1=dataclasses.replace(made.stage1, losses=losses))
  metrics = (*base.variant(scale, ()).evaluation.metrics, *MEASURES)
  return dataclasses.replace(made, name="kl_weight", evaluation=dataclasses.replace(made.evaluation, metrics=metrics))

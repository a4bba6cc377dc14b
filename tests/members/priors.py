"""Members of `latents/priors`."""

from latents.backbones import DiT, MaskedAutoencoder, MaskedTransformer, MPUNet, ScaleTransformer, Transformer
from latents.bottlenecks import VQ, MultiScaleVQ
from latents.diffusion import (
  DDPM,
  Betas,
  Cosine,
  Euler,
  Exploding,
  Heun,
  Karras,
  LogNormal,
  Process,
  Steps,
  StochasticHeun,
  Strided,
  Uniform,
)
from latents.priors import (
  MAR,
  AutoregressivePrior,
  ConsistencyDistillation,
  ConsistencyTraining,
  Doubling,
  FlowPrior,
  MaskedPrior,
  MeanFlow,
  MultiScaleFlow,
  NextScale,
  PixelFlow,
  ProgressiveDistillation,
  Rising,
  Shortcut,
  UncertainFlow,
)
from latents.priors.heads import DiffusionHead

SCALES = ((1, 1), (2, 2), (3, 3))

# -- priors: (name, make, per-sample latent shape, vocab, or one a token, or None)
PRIORS = [
  ("flow", lambda: FlowPrior(DiT(1, 16, 2, classes=3), sampler=Euler(4)), (4, 4, 3), None),
  ("flow-heun", lambda: FlowPrior(DiT(1, 16, 2, patch=1), Uniform(), shift=2.0, sampler=Heun(3)), (6, 3), None),
  (
    "flow-ddpm",
    lambda: FlowPrior(
      DiT(1, 16, 2, classes=3, out=6),
      Steps(),
      sampler=DDPM(4, "learned"),
      process=Process(Betas(), "noise", variance="learned"),
      grid=Strided(),
    ),
    (4, 4, 3),
    None,
  ),
  (
    "flow-edm",
    lambda: FlowPrior(
      DiT(1, 16, 2, classes=3),
      LogNormal(),
      shift=1.0,
      sampler=StochasticHeun(4),
      process=Process(Exploding(), "edm"),
      grid=Karras(),
    ),
    (4, 4, 3),
    None,
  ),
  (
    "consistency",
    lambda: ConsistencyDistillation(
      backbone=DiT(1, 16, 2, classes=3), teacher=FlowPrior(DiT(1, 16, 2, classes=3)), teacher_guidance=2.0, decay=0.0
    ),
    (4, 4, 3),
    None,
  ),
  (
    "pixel-flow",
    lambda: PixelFlow(backbone=DiT(1, 16, 2, classes=3), stages=2, sampler=Euler(2)),
    (4, 4, 3),
    None,
  ),
  ("flow-scales", lambda: MultiScaleFlow(backbone=DiT(1, 16, 2, classes=3), least=2), (4, 4, 3), None),
  (
    "flow-uncertain",
    lambda: UncertainFlow(
      backbone=MPUNet(8, (1,), 1, attention=(), head=8, classes=3),
      process=Process(Exploding(), "edm", data_std=1.0),
      sampler=Euler(3),
    ),
    (4, 4, 3),
    None,
  ),
  (
    "consistency-training",
    lambda: ConsistencyTraining(backbone=DiT(1, 16, 2, classes=3), intervals=Doubling(4, 4)),
    (4, 4, 3),
    None,
  ),
  (
    "consistency-training-edm",
    lambda: ConsistencyTraining(
      backbone=DiT(1, 16, 2, classes=3),
      process=Process(Exploding(), "edm", least=0.002),
      intervals=Rising(4, 3),
      level=None,
      weighting="one",
    ),
    (4, 4, 3),
    None,
  ),
  (
    "progressive-distillation",
    lambda: ProgressiveDistillation(
      backbone=DiT(1, 16, 2, classes=3), teacher=FlowPrior(DiT(1, 16, 2, classes=3)), teacher_guidance=2.0
    ),
    (4, 4, 3),
    None,
  ),
  (
    "mean-flow",
    lambda: MeanFlow(backbone=DiT(1, 16, 2, classes=3), omega=2.0, kappa=0.2, label_drop=0.5, sampler=Euler(2)),
    (4, 4, 3),
    None,
  ),
  (
    "shortcut",
    lambda: Shortcut(backbone=DiT(1, 16, 2, classes=3), target_guidance=2.0, share=0.5, decay=0.0, sampler=Euler(2)),
    (4, 4, 3),
    None,
  ),
  (
    "autoregressive",
    lambda: AutoregressivePrior(Transformer(11, 16, 1, 2, length=16, classes=3, multiple=8), top_k=5, top_p=0.9),
    (4, 4),
    11,
  ),
  (
    "autoregressive-levels",
    lambda: AutoregressivePrior(Transformer(7, 16, 1, 2, length=12, groups=3, position="sincos", multiple=8)),
    (2, 2, 3),
    7,
  ),
  (
    "autoregressive-grids",
    lambda: AutoregressivePrior(
      Transformer((5, 9), 16, 1, 2, length=20, classes=3, multiple=8, layout=((2, 2), (4, 4))), top_p=0.9
    ),
    (20,),
    (5,) * 4 + (9,) * 16,
  ),
  (
    "masked",
    lambda: MaskedPrior(MaskedTransformer(11, 256, 1, 2, length=16, classes=3, dropout=0.1), steps=4, top_k=8),
    (4, 4),
    11,
  ),
  (
    "masked-groups",
    lambda: MaskedPrior(MaskedTransformer(7, 16, 1, 2, length=12, groups=3), steps=4),
    (2, 2, 3),
    7,
  ),
  (
    "mar",
    lambda: MAR(
      MaskedAutoencoder(16, 1, 2, length=6, classes=3, buffer=2),
      DiffusionHead(
        3,
        features=16,
        depth=1,
        width=16,
        # of noise, an error of the first of three steps would be 600 times as large in the data
        process=Process(Cosine(), "rotation", variance="learned"),
        sampler=DDPM(3, "learned"),
      ),
      steps=3,
    ),
    (6, 3),
    None,
  ),
  (
    "next-scale",
    lambda: NextScale(
      ScaleTransformer(11, 16, 2, 2, SCALES, classes=3), MultiScaleVQ(VQ(11, 4, project=False), SCALES), top_p=0.9
    ),
    (14,),
    11,
  ),
]

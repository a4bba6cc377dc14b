"""Members of `latents/priors`."""

from latents.backbones import (
  DiT,
  GatedPixelCNN,
  MaskedAutoencoder,
  MaskedTransformer,
  MPUNet,
  PixelCNNPlus,
  PixelSNAILCodes,
  RQTransformer,
  SampleRNN,
  ScaleTransformer,
  Transformer,
  VectorTransformer,
  WaveNet,
)
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
  AutoregressiveVectors,
  ChainPrior,
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
from latents.priors.heads import DiffusionHead, GaussianMixture, LogisticMixture

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
    "autoregressive-pixels",
    lambda: AutoregressiveVectors(
      backbone=PixelCNNPlus((2, 2, 1), 6, width=4, blocks=1, scales=1, dropout=0.1),
      head=LogisticMixture(dim=1, components=2, levels=9),
    ),
    (2, 2),
    9,
  ),
  (
    "chain",
    lambda: ChainPrior(
      priors=(
        AutoregressivePrior(PixelSNAILCodes(5, (1, 2), classes=3, embed=4, width=8, blocks=1, resnets=1), top_k=4),
        AutoregressivePrior(
          GatedPixelCNN(9, (2, 4), classes=3, width=4, depth=1, size=3, first=3, hidden=8, above=((1, 2, 5),))
        ),
      ),
      grids=((1, 2), (2, 4)),
    ),
    (10,),
    (5,) * 2 + (9,) * 8,
  ),
  (
    "autoregressive-wavenet",
    lambda: AutoregressivePrior(WaveNet(7, 12, width=16, gate=16, skip=16, cycle=2, stacks=2, classes=3)),
    (12,),
    7,
  ),
  (
    "autoregressive-samplernn",
    lambda: AutoregressivePrior(SampleRNN(7, 12, width=32, frames=(4, 2), embedding=3, classes=3)),
    (12,),
    7,
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
  (
    "autoregressive-random",
    lambda: AutoregressivePrior(
      Transformer(7, 16, 1, 2, 12, classes=3, multiple=8, places=12, told=True), order="random", corrupt=0.2
    ),
    (3, 4),
    7,
  ),
  ("autoregressive-rq", lambda: AutoregressivePrior(RQTransformer(7, 32, 1, 1, 2, 24, 3, classes=3)), (2, 4, 3), 7),
  (
    "autoregressive-gpt",
    lambda: AutoregressivePrior(
      Transformer(7, 16, 1, 2, 12, classes=3, kind="gpt", position="rotary", grid=(3, 4), dropout=0.1), top_k=3
    ),
    (3, 4),
    7,
  ),
  (
    "givt",
    lambda: AutoregressiveVectors(
      VectorTransformer(16, 1, 2, 12, 3, 14, classes=3), GaussianMixture(3, 2), temperature=0.9
    ),
    (3, 4, 3),
    None,
  ),
]

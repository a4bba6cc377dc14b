"""Token maps from 1 x 1 to the whole grid, a scale at a time. VAR: Tian et al. 2024, arXiv:2404.02905.

The tokenizer says a picture as codes of K grids, each of what those before left; the prior gives all codes of a grid at
once. README: FID 3.55 (d16, 310M), 2.95 (d20, 600M), 2.33 (d24, 1.0B), 1.97 (d30, 2.0B) at 256 px.

    latents run experiments/codes/var.py --scale tiny
    latents run experiments/codes/var.py --scale paper --depth 30 --data-dir DIR --stage1.losses.lpips.path vgg.pth

tiny: 32 px digits, grids of 1, 2, 4 and 8 (85 codes of 64). paper: ImageNet at 256 px, f16, ten grids up to 16 (680
codes of 4,096, 32 channels). How the tokenizer is trained has not been released: losses and optimiser are those of
`vq_transformer` here, and the decoder's first convolution has one tap where the code has three. The prior's rate falls
by a cosine, in the code by a line; its decay stays at 0.05 (d30's rises to 0.08), and labels have none. Its guidance of
1.5 is 2.5 here.

Paper: FID 3.55 (d16), 2.95 (d20), 2.33 (d24), 1.97 (d30; ImageNet-256)
Shown: smooth digits of their class in 4 passes; less varied than the data (guidance 3)
"""

import dataclasses
from typing import Any, Literal

from experiments.codes import vq_transformer
from latents.backbones import ScaleTransformer, var
from latents.bottlenecks import VQ, MultiScaleVQ
from latents.declare import Experiment, Start
from latents.losses import Weight
from latents.optim import Adam
from latents.priors import NextScale

TINY = (1, 2, 4, 8)
PAPER = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
# depth -> epochs, batch, rate at a batch of 256 and its share at the end (README)
TRAINING = {
  16: (200, 768, 1e-4, 0.1),
  20: (250, 768, 1e-4, 0.1),
  24: (350, 768, 8e-5, 0.01),
  30: (350, 1024, 8e-5, 0.01),
}


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", depth: Literal[16, 20, 24, 30] = 16, data_dir: str | None = None
) -> Experiment:
  """depth: of the prior (paper). data_dir: where TFDS sets lie (paper)."""
  tiny = scale == "tiny"
  made = vq_transformer.experiment(scale, data_dir=data_dir)
  two, vocab, dim = made.stage2, 64 if tiny else 4096, 8 if tiny else 32
  assert two is not None
  scales = tuple((n, n) for n in (TINY if tiny else PAPER))
  code = MultiScaleVQ(VQ(vocab=vocab, dim=dim, project=False), scales)
  one = tokenizer(made.stage1, code, {} if tiny else {"ch": 160})
  classes = one.data.classes
  if tiny:
    backbone = ScaleTransformer(vocab, width=128, depth=4, heads=4, scales=scales, classes=classes)
    prior = NextScale(backbone, code.clone(), guidance=3.0, top_p=0.95)
  else:
    backbone = var(depth, vocab, scales, classes=classes, dtype="bfloat16", remat="block")
    prior = NextScale(backbone, code.clone(), guidance=2.5, top_k=900, top_p=0.96)
    epochs, batch, rate, final = TRAINING[depth]
    steps = epochs * 1_281_167 // batch
    optimizer = Adam(
      lr=rate * batch / 256, betas=(0.9, 0.95), decay=0.05, decays="kernels", clip=2.0, warmup=steps // 50,
      schedule="cosine", final=final,
    )  # fmt: skip
    data: Any = one.data
    plain = dataclasses.replace(data, flip=False)
    one = dataclasses.replace(one, data=plain)
    two = dataclasses.replace(two, data=plain, optimizer=optimizer, steps=steps, batch=batch, ema=0.0)
  two = dataclasses.replace(
    two, prior=prior, start=(Start(stage=one, source="bottleneck", into="quantiser"),), trained=("backbone",)
  )
  return dataclasses.replace(made, name="var", stage1=one, stage2=two)


def tokenizer(one: Any, code: MultiScaleVQ, width: dict[str, int]) -> Any:
  """`vq_transformer`'s autoencoder around another quantiser, which is given as many channels as its codes have."""
  model = one.model
  model = model.clone(
    encoder=model.encoder.clone(out=code.stage.dim, **width), bottleneck=code, decoder=model.decoder.clone(**width)
  )
  losses = {name: loss for name, loss in one.losses.items() if name != "commit"}
  return dataclasses.replace(one, model=model, losses=losses | {"vq": Weight(1.0)})

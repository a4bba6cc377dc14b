"""Several codes a place, each of what those before left: RQ-VAE. Lee et al. 2022, arXiv:2203.01941.

A coarser grid with D codes a place from one codebook shared by all depths: the place is the sum of D rows, K^D
combinations of K rows. The codebook is a moving average whose dead rows are restarted. The prior foretells the codes
of a place one after another, in one sequence; RQ-Transformer's split over places and depths is not here.

    latents run experiments/codes/rvq.py --scale tiny

tiny: 32 px digits, 4 x 4 places with 4 codes of 64. paper: ImageNet at 256 px, 8 x 8 x 4 codes of 16,384.

Paper: rFID 4.73 (8x8x4), 10.77 (8x8x2), 17.95 (one code a place)
Shown: four codes a place on a quarter of the places; blurred; samples are digits, sevens and nines often broken
"""

import dataclasses
from typing import Any, Literal

from experiments.codes import vq_transformer, with_quantiser
from latents.bottlenecks import EMAVQ, ResidualVQ
from latents.declare import Experiment


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", depth: int = 4, shared: bool = True, data_dir: str | None = None
) -> Experiment:
  """depth: codes a place. shared: one codebook for all depths. data_dir: where TFDS sets lie (paper)."""
  tiny = scale == "tiny"
  start: dict[str, Any] = {"decay": 0.95, "restart": 0.1, "kmeans": 10} if tiny else {"restart": 0.03}
  stage = EMAVQ(vocab=64 if tiny else 16_384, dim=16 if tiny else 256, **start)
  made, places = vq_transformer.experiment(scale, data_dir=data_dir), 16 if tiny else 64
  assert made.stage2 is not None
  one, prior = made.stage1, made.stage2.prior
  model: Any = one.model
  size: dict[str, Any] = {"mult": (1, 2, 2, 2)} if tiny else {"mult": (1, 1, 2, 2, 4, 4), "attention": (5,)}
  model = model.clone(encoder=model.encoder.clone(**size), decoder=model.decoder.clone(**size))
  backbone = prior.backbone.clone(length=places)  # pyright: ignore[reportAttributeAccessIssue]
  made = dataclasses.replace(
    made, stage1=dataclasses.replace(one, model=model),
    stage2=dataclasses.replace(made.stage2, prior=prior.clone(backbone=backbone)),
  )  # fmt: skip
  code = ResidualVQ(stage=stage, quantizers=depth, shared=shared)
  return with_quantiser(made, "rvq", code, {"commit": 0.25}, groups=depth)

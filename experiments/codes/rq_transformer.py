"""Two transformers for stacked codes: RQ-Transformer. Lee, Kim, Kim, Cho, Han 2022, arXiv:2203.01941.

Stage 1 is `rvq`'s (RQ-VAE): 4 codes a place from one codebook. A deep transformer runs over places, each read as the
sum of its codes, and a shallow one over the 4 codes of a place, so that attention is over 64 places in place of 256
codes. One table of vectors and one head serve all depths, as one codebook does.

    latents run experiments/codes/rq_transformer.py --scale tiny

tiny: 4 x 4 places with 4 codes of 64 (one stage 1 with `rvq`). paper: 8 x 8 x 4 codes of 16,384, 42 and 6 layers of
1,536 (its 1.4 billion), batch 2,048, 100 epochs. Not as there: the authors read the codebook's vectors, here they are
learned; and what is foretold is the nearest code, not one drawn by its distance, with soft targets (section 3.2.3).

Paper: FID 11.56 (1.4B), 7.55 (3.8B), 3.80 with rejection (ImageNet-256)
Shown: digits of their class; after 1,600 steps (650: two in three)
"""

import dataclasses
from typing import Any, Literal

from experiments.codes import rvq
from latents.backbones import RQTransformer
from latents.declare import Experiment
from latents.optim import Adam


def experiment(scale: Literal["tiny", "paper"] = "tiny", data_dir: str | None = None) -> Experiment:
  """data_dir: where TFDS sets lie (paper)."""
  tiny = scale == "tiny"
  base = rvq.experiment(scale, data_dir=data_dir)
  assert base.stage2 is not None
  prior: Any = base.stage2.prior
  size: dict[str, Any] = {"vocab": prior.backbone.vocab, "length": prior.backbone.length, "classes": prior.classes}
  optimizer = base.stage2.optimizer
  if tiny:
    backbone = RQTransformer(width=128, depth=3, levels_depth=2, heads=4, groups=4, shared=True, **size)
  else:
    size |= {"dropout": 0.1, "remat": "block", "dtype": "bfloat16"}
    backbone = RQTransformer(width=1536, depth=42, levels_depth=6, heads=24, groups=4, shared=True, **size)
    optimizer = Adam(lr=5e-4, betas=(0.9, 0.95), decay=1e-4)
    prior = prior.clone(guidance=1.0, label_drop=0.0, top_p=0.92)
  steps, batch = (1_600, base.stage2.batch) if tiny else (62_500, 2048)
  prior = prior.clone(backbone=backbone)
  two = dataclasses.replace(base.stage2, prior=prior, optimizer=optimizer, steps=steps, batch=batch)
  return dataclasses.replace(base, name="rq_transformer", stage2=two)

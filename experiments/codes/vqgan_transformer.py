"""A GPT over VQGAN's codes. Taming transformers: Esser, Rombach, Ommer 2020, arXiv:2012.09841.

Stage 1 is `vqgan`'s. The prior is GPT-2's decoder as in the authors' code (LayerNorm, GELU, biases, learned positions),
with a label in front; their class-conditional model of ImageNet has 48 layers of 1,536, 1.4 billion parameters, and
draws from the 600 likeliest codes that make up 0.92 (their README; what is best depends on both). `corrupt` is 1 -
pkeep: the share of codes that are read wrong in training, which their unconditional models need against overfitting.

    latents run experiments/codes/vqgan_transformer.py --scale tiny

tiny: the codes of `vq_transformer` (one stage 1 for both), 64 of 64 entries, in place of `vqgan`'s, of which a short
run uses few. paper: `vqgan`'s tokenizer with K = 16,384. `latents import --layout taming-gpt` reads the authors'
checkpoints, over a run of `--layout taming`.

Paper: FID 15.78, 5.20 with rejection (ImageNet, README of taming-transformers)
Shown: 2.98 bits a code where a histogram a position needs 4.25; digits of their class, some strokes part
"""

import dataclasses
from typing import Any, Literal

from experiments.codes import vq_transformer, vqgan
from latents.declare import Experiment


def experiment(scale: Literal["tiny", "paper"] = "tiny", data_dir: str | None = None) -> Experiment:
  """data_dir: where TFDS sets lie (paper)."""
  tiny = scale == "tiny"
  base = vq_transformer.experiment() if tiny else vqgan.experiment("paper", data_dir=data_dir)
  assert base.stage2 is not None
  prior: Any = base.stage2.prior
  backbone = prior.backbone.clone(kind="gpt")
  if tiny:
    prior = prior.clone(backbone=backbone, corrupt=0.1)
  else:
    prior = prior.clone(backbone=backbone, top_k=600, top_p=0.92, guidance=1.0, label_drop=0.0)
  optimizer: Any = base.stage2.optimizer
  if not tiny:
    optimizer = dataclasses.replace(optimizer, decay=0.01, decays="kernels")
  two = dataclasses.replace(base.stage2, prior=prior, optimizer=optimizer)
  return dataclasses.replace(base, name="vqgan_transformer", stage2=two)

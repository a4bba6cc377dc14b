"""A picture from a word: the prior of `digits` told by texts in place of labels.

Text-to-image priors read embeddings of a text, token by token, with a mask: latent diffusion by cross-attention
(Rombach et al. 2022, arXiv:2112.10752, section 4.3.1), MM-DiT by joint attention of the tokens of both (Esser et al.
2024, arXiv:2403.03206), which is done here: the words' tokens stand before those of the latent.

    latents run experiments/priors/text_to_digit.py
    latents sample runs/text_to_digit --text three,seven --number 10 --out x.png

tiny: "zero" to "nine", a token a character, embedded by fixed random vectors and sines; the prior must learn to read.
Guidance is 1.5 where `digits` has 3.5: at 3.5 all samples are right and alike (distance between them 0.17, real 0.26).
Its latents are those of `digits`. paper: `ldm_kl`'s prior on texts of 77 tokens of 768, from a file of embeddings.

Paper: no paper has it
Shown: samples are the digits that the words say, as unlike each other as real ones
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.conditioners import Text
from latents.declare import Experiment

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def experiment(scale: Literal["tiny", "paper"] = "tiny", texts: str = "", data_dir: str | None = None) -> Experiment:
  """texts: a file of embeddings (paper), one text a label; its hash is --stage2.conditioner.sha256."""
  tiny = scale == "tiny"
  base = digits.experiment() if tiny else ldm_kl.experiment("paper", data_dir=data_dir)
  assert base.stage2 is not None
  if tiny:
    told = Text(texts=WORDS, length=5, size=32)
  else:
    told = Text(texts=tuple(map(str, range(1000))), length=77, size=768, path=texts)
  prior = base.stage2.prior
  backbone = prior.backbone.clone(classes=0, text=(told.length, told.size))
  prior = prior.clone(backbone=backbone, guidance=1.5 if tiny else prior.guidance)
  two = dataclasses.replace(base.stage2, prior=prior, conditioner=told)
  return dataclasses.replace(base, name="text_to_digit", stage2=two)

"""Image codes merged by byte-pair encoding before the prior (Zhang et al. 2024, arXiv:2410.02155; Being-VL-0).

The codes of a VQGAN are merged across and down, the commonest pair of neighbours first, and a language model reads the
merged tokens. The authors' theory: on data with two-dimensional structure a transformer on raw codes stays near the
unigram entropy, and merging closes the gap. Here the language model is LlamaGen's transformer (Sun et al. 2024,
arXiv:2406.06525), stage 1 is that of `vq_transformer`, to the bit, and the merges are invertible (their published code
merges neither (a,a) nor (b,a), and cannot say a token's shape: see `latents.recodes.ImageBPE`).

    latents run experiments/codes/bpe_image_tokens.py --scale tiny

The transformer is told the place of each token on the grid (`places`): without, it does not find a row again, and the
digits are noise after as many steps. tiny: 128 merges over the 64 codes of 32 px digits; bits of a code are compared
with `vq_transformer`'s, whose prior reads all 64 codes of an example. paper: 8,192 merges over 8,192 codes on 32 x 32,
of 512 px ImageNet in place of captioned pictures, with a class in place of a text; fitted on 100,000 examples where
they took 2.78M.

Paper: 8K merges the best of 1K to 16K; VQAv2 60.6 and MMBench 44.0 with an 8B language model (not comparable).
Shown: 1.34 times shorter, but 3.16 bits a code in place of 2.77: no gain here; ones and eights often broken
"""

import dataclasses
from typing import Literal

from experiments.codes import vq_transformer
from latents.backbones import Transformer
from latents.data import Tfds
from latents.declare import Experiment
from latents.priors import AutoregressivePrior
from latents.recodes import ImageBPE


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", merges: int | None = None, data_dir: str | None = None
) -> Experiment:
  """merges: pairs that become tokens; 0 = the codes as they are. data_dir: where TFDS sets lie (paper)."""
  tiny = scale == "tiny"
  merges = (128 if tiny else 8192) if merges is None else merges
  vocab = 64 if tiny else 8192
  base = vq_transformer.experiment(scale, vocab, data_dir)
  assert base.stage2 is not None
  # with 128 merges no digit takes more than 56 tokens; at paper scale the length that always suffices
  length = (60 if merges >= 128 else 64) if tiny else 1024
  recode = ImageBPE(length=length, merges=merges, sample=0 if tiny else 100_000)
  prior = base.stage2.prior
  assert isinstance(prior, AutoregressivePrior) and isinstance(prior.backbone, Transformer)
  places = 64 if tiny else 1024
  backbone = prior.backbone.clone(vocab=recode.tokens(vocab) + 1, length=recode.length, places=places)
  prior = prior.clone(backbone=backbone)
  one, two = base.stage1, dataclasses.replace(base.stage2, prior=prior, recode=recode)
  if not tiny:  # 32 x 32 codes at f16
    data = Tfds("imagenet2012", data_dir, 512, labels=1000)
    one, two = dataclasses.replace(one, data=data), dataclasses.replace(two, data=data)
  return dataclasses.replace(base, name="bpe_image_tokens", stage1=one, stage2=two)

"""Pictures from texts, code after code. Parti: Yu et al. 2022, arXiv:2206.10789.

ViT-VQGAN's codes (`vit_vqgan`) and a transformer that is told the embeddings of a text: Parti encodes the text by a
transformer of its own and attends to it from every layer; here texts come as embeddings that others made, and stand in
front of the codes (as in LlamaGen: Sun et al. 2024, arXiv:2406.06525), so decoder and text share one attention.
Guidance on logits, the text dropped for a tenth of the examples.

    latents run experiments/codes/parti_like.py --scale tiny
    latents sample runs/parti_like --text three,seven --number 10 --out x.png

tiny: the codes of `vq_transformer`, the words "zero" to "nine" as a token a character (`text_to_digit`'s), which the
transformer must learn to read. paper: ImageNet, a text a label: 1,024 codes of 8,192, texts of 77 tokens of 768 from a
file, the decoder of Parti-350M (12 layers of 1,024), trained as `vit_vqgan`'s prior; not to be compared with what Parti
shows.

Paper: FID 14.10 (350M), 7.23 (20B), zero-shot on COCO
Shown: digits of the word that it reads, as clear as those of a label; 2.78 bits a code
"""

import dataclasses
from typing import Any, Literal

from experiments.codes import vit_vqgan, vq_transformer
from experiments.priors import text_to_digit
from latents.declare import Experiment


def experiment(scale: Literal["tiny", "paper"] = "tiny", texts: str = "", data_dir: str | None = None) -> Experiment:
  """texts: a file of embeddings (paper), one text a label; its hash is --stage2.conditioner.sha256."""
  tiny = scale == "tiny"
  base = vq_transformer.experiment() if tiny else vit_vqgan.experiment("paper", data_dir=data_dir)
  words = text_to_digit.experiment(scale, texts=texts).stage2
  assert base.stage2 is not None and words is not None
  told: Any = words.conditioner
  prior: Any = base.stage2.prior
  size = {} if tiny else {"width": 1024, "depth": 12, "heads": 16}
  backbone = prior.backbone.clone(classes=0, text=(told.length, told.size), **size)
  two = dataclasses.replace(base.stage2, prior=prior.clone(backbone=backbone), conditioner=told)
  return dataclasses.replace(base, name="parti_like", stage2=two)

"""Binary spherical quantisation: signs on the unit sphere. BSQ-ViT: Zhao, Xiong, Kraehenbuehl 2024, arXiv:2406.07548.

The features are led down to L channels and to length 1, and the code is the nearest corner of a cube within the sphere:
its distance is bounded, and the entropies of the L bits are closed forms, so no commitment is needed. Encoder, decoder
and losses are `vit_vqgan`'s (patches of 8).

    latents run experiments/codes/bsq.py --scale tiny
    latents run experiments/codes/bsq.py --scale paper --bits 36 --groups 4

tiny: 32 px digits, 8 bits a place in two codes. paper: ImageNet at 256 px, ViT-B/8, 18 bits in two codes of 9, weights
of the released code (entropies 0.1 times the temperature, 0.01, and three times that at first; LPIPS and judge 0.1), 1M
steps; a transformer of 1,024 places in place of the paper's masked one.

Paper: rFID 1.14, PSNR 25.36 dB (18 bits); 0.41, 27.88 dB (36 bits)
Shown: all codes of both groups in use; pictures grainy as vit_vqgan's; samples are digits, nines and eights ragged
"""

import dataclasses
from typing import Literal

from experiments.codes import vit_vqgan, with_quantiser
from latents.bottlenecks import BSQ
from latents.declare import Experiment
from latents.losses import Weight


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  bits: int | None = None,
  groups: int = 2,
  entropy: float | None = None,
  data_dir: str | None = None,
) -> Experiment:
  """bits, groups: L, and codes a place. entropy: weight of the term. data_dir: where TFDS sets lie (paper)."""
  tiny = scale == "tiny"
  weights = {"entropy": (0.01 if tiny else 1e-3) if entropy is None else entropy, "commit": 0.0}
  made = vit_vqgan.experiment(scale, data_dir=data_dir)
  made = with_quantiser(made, "bsq", BSQ(bits=bits or (8 if tiny else 18), groups=groups), weights, groups=groups)
  if tiny:
    return made
  ramped = Weight(weights["entropy"], first=3.0, over=2000)
  one = dataclasses.replace(made.stage1, losses={**made.stage1.losses, "entropy": ramped}, steps=1_000_000)
  return dataclasses.replace(made, stage1=one)

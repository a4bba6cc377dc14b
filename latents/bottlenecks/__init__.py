"""Bottlenecks: h [B,*s,E] -> Latent. What is kept of a signal, and how much of it.

The contract (class `Bottleneck`):
  __call__(h [B,*s,E], *, train) -> Latent; deterministic (the mode) where train is False.
  vocab -> the number of codes V, one a grid of the layout if it has several; None for a continuous latent.
  layout(*s of z) -> the grids of the codes, coarse to fine; codes of several are one sequence [B,N] in that order.
  embed(codes [B,*s], [B,*s,G] or [B,N]) -> z: what the decoder reads for these codes (discrete ones only). A
    code outside [0, V) is a UserError where its value is known; -1 is a stage that a residual quantiser left out.
  settle(latent) -> what the decoder reads of a latent that need not come from an encoder; where train is False a
    decoder reads nothing else.
  store(h) -> what a latent cache keeps; recall(stored, *, train) -> Latent.
  variants(latent) -> named ways to decode one latent in an evaluation.
Arithmetic is float32 whatever h's dtype. State without gradient lives in the collection "codebook" and changes
only if train and the collection is mutable; random numbers come from the stream "bottleneck".
"""

from latents.bottlenecks.base import Bottleneck, code_logs, straight_through
from latents.bottlenecks.bsq import BSQ
from latents.bottlenecks.fsq import FSQ
from latents.bottlenecks.gumbel import Gumbel
from latents.bottlenecks.hierarchy import Hierarchy
from latents.bottlenecks.kl import KL
from latents.bottlenecks.lfq import LFQ
from latents.bottlenecks.multi_scale import MultiScaleVQ
from latents.bottlenecks.nested import NestedDropout
from latents.bottlenecks.none import NoBottleneck
from latents.bottlenecks.norm import LayerNormLatent
from latents.bottlenecks.rfsq import ResidualFSQ
from latents.bottlenecks.rvq import ResidualVQ
from latents.bottlenecks.symbols import Symbols
from latents.bottlenecks.vq import VQ
from latents.bottlenecks.vq_ema import EMAVQ
from latents.bottlenecks.vq_reg import VQReg

__all__ = [
  "BSQ", "EMAVQ", "FSQ", "KL", "LFQ", "VQ", "Bottleneck", "Gumbel", "Hierarchy", "LayerNormLatent", "MultiScaleVQ",
  "NestedDropout", "NoBottleneck", "ResidualFSQ", "ResidualVQ", "Symbols", "VQReg", "code_logs", "straight_through",
]  # fmt: skip

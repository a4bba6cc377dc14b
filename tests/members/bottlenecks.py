"""Members of `latents/bottlenecks`."""

from latents.bottlenecks import (
  BSQ,
  EMAVQ,
  FSQ,
  KL,
  LFQ,
  VQ,
  Gumbel,
  Hierarchy,
  LayerNormLatent,
  MultiScaleVQ,
  NestedDropout,
  NoBottleneck,
  ResidualFSQ,
  ResidualVQ,
  Symbols,
  VQReg,
)
from latents.decoders import ConvDecoder
from latents.encoders import ConvEncoder


def hierarchy() -> Hierarchy:
  """Two grids with vocabularies of their own, the top half as wide."""
  down = ConvEncoder(ch=8, mult=(1, 1), blocks=1, out=5, mid_attention=False)
  back = ConvDecoder(ch=8, mult=(1, 1), blocks=1, channels=4, mid_attention=False)
  return Hierarchy(down, EMAVQ(vocab=16, dim=3), back, FSQ(levels=(5, 3)), grid=(4, 4))


def dac() -> ResidualVQ:
  """DAC's: factorised codes that are looked up by their direction, some stages left out of half of the examples."""
  return ResidualVQ(VQ(vocab=16, dim=3, normalise="search"), quantizers=3, width=6, dropout=0.5)


# -- bottlenecks: (name, make, encoder output shape [*s,E])
BOTTLENECKS = [
  ("none", lambda: NoBottleneck(), (4, 4, 6)),
  ("none projected", lambda: NoBottleneck(dim=3), (4, 4, 6)),
  ("layer norm", lambda: LayerNormLatent(), (4, 4, 6)),
  ("kl", lambda: KL(dim=3), (4, 4, 6)),
  ("kl 1d", lambda: KL(dim=3), (8, 6)),
  ("kl unprojected", lambda: KL(dim=3, projected=False), (4, 4, 6)),
  ("kl uniform", lambda: KL(dim=3, variance="uniform"), (4, 4, 6)),
  ("kl uniform unprojected", lambda: KL(dim=5, variance="uniform", projected=False), (4, 4, 6)),
  ("kl constant", lambda: KL(dim=3, spread=0.5, variance="constant"), (4, 4, 6)),
  ("ema vq", lambda: EMAVQ(vocab=16, dim=3), (4, 4, 6)),
  ("ema vq restart", lambda: EMAVQ(vocab=16, dim=6, restart=0.1, kmeans=2, project=False), (4, 4, 6)),
  ("ema vq rotation", lambda: EMAVQ(vocab=16, dim=3, gradient="rotation"), (4, 4, 6)),
  ("vq", lambda: VQ(vocab=16, dim=3), (4, 4, 6)),
  ("vq legacy", lambda: VQ(vocab=16, dim=6, beta=0.5, legacy=True, project=False), (8, 6)),
  ("vq unit codes", lambda: VQ(vocab=16, dim=3, normalise="codes", gradient="rotation"), (4, 4, 6)),
  ("vq unit search", lambda: VQ(vocab=16, dim=3, normalise="search"), (4, 4, 6)),
  ("vq reg learned", lambda: VQReg(VQ(vocab=16, dim=3, normalise="codes")), (4, 4, 6)),
  ("symbols", lambda: Symbols(levels=9, channels=6), (4, 4, 6)),
  ("symbols-mu", lambda: Symbols(law="mu"), (16, 1)),
  ("fsq", lambda: FSQ(levels=(5, 4, 3)), (4, 4, 6)),
  ("fsq unprojected", lambda: FSQ(levels=(8, 6, 5), project=False), (8, 3)),
  ("fsq symmetric", lambda: FSQ(levels=(2, 5, 4), symmetric=True), (4, 4, 6)),
  ("lfq", lambda: LFQ(bits=5, temperature=0.5), (4, 4, 6)),
  ("lfq groups", lambda: LFQ(bits=6, groups=2, joint=2, project=False), (8, 6)),
  ("bsq", lambda: BSQ(bits=5), (4, 4, 6)),
  ("bsq 36 bits", lambda: BSQ(bits=36, groups=2, joint=6), (8, 6)),
  ("gumbel", lambda: Gumbel(vocab=16, dim=3, cooling=3), (4, 4, 6)),
  ("gumbel hard", lambda: Gumbel(vocab=6, dim=3, hard=True, project=False), (8, 6)),
  ("residual vq", lambda: ResidualVQ(EMAVQ(vocab=16, dim=3), quantizers=3, dropout=0.5), (4, 4, 6)),
  ("residual vq shared", lambda: ResidualVQ(EMAVQ(vocab=16, dim=6, project=False, kmeans=1), 3, shared=True), (8, 6)),
  ("residual vq rotation", lambda: ResidualVQ(VQ(vocab=16, dim=3, gradient="rotation"), quantizers=2), (8, 6)),
  ("residual vq factorised", dac, (4, 4, 6)),
  ("residual fsq dropout", lambda: ResidualFSQ(levels=(5, 4, 3), quantizers=4, dropout=1.0), (8, 6)),
  ("residual fsq", lambda: ResidualFSQ(levels=(5, 4, 3), quantizers=3), (4, 4, 6)),
  ("residual fsq binary", lambda: ResidualFSQ(levels=(2, 2), quantizers=5, project=False), (4, 2)),
  ("vq reg", lambda: VQReg(EMAVQ(vocab=16, dim=3)), (4, 4, 6)),
  ("hierarchy", hierarchy, (4, 4, 6)),
  ("hierarchy upsampled", lambda: hierarchy().clone(up=5), (4, 4, 6)),
  (
    "multi-scale vq",
    lambda: MultiScaleVQ(VQ(vocab=16, dim=6, project=False), ((1, 1), (2, 2), (3, 3), (4, 4)), share=2),
    (4, 4, 6),
  ),
  ("nested kl", lambda: NestedDropout(KL(dim=3)), (8, 6)),
  ("nested fsq", lambda: NestedDropout(FSQ(levels=(5, 4, 3)), minimum=2), (4, 4, 6)),
  ("nested residual fsq", lambda: NestedDropout(ResidualFSQ(levels=(5, 4, 3), quantizers=2)), (8, 6)),
]

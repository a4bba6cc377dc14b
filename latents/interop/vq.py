"""Convolutional autoencoders with a codebook in the layouts of their releases: the halves are those of `conv`.

diffusers' VQModel, and the checkpoints of taming-transformers' VQGAN (Esser et al. 2020, arXiv:2012.09841) and of
latent-diffusion's VQ-reg models (Rombach et al. 2022, arXiv:2112.10752), whose arrays are called alike. No file says
which of its two uses a codebook was meant for, so the layout's name does: what a prior is to see are the codes (`VQ`:
diffusers-vq, taming), or the vectors in front of the quantiser (`VQReg`: diffusers-vq-reg, ldm-vq).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from latents.autoencoders import Autoencoder
from latents.bottlenecks import VQ, Gumbel, VQReg
from latents.decoders import ConvDecoder
from latents.encoders import ConvEncoder
from latents.errors import UserError
from latents.interop import conv
from latents.interop.mapping import CONV, CONV1, SAME, Table, Tree

Shapes = Mapping[str, tuple[int, ...]]

CODEBOOK = "bottleneck/codebook"
_QUANTISER: Tree = {"projection": ("quant_conv", CONV1), "codebook": ("quantize.embedding.weight", SAME)}
_CODES: Tree = {"bottleneck": ("", _QUANTISER)}
_VECTORS: Tree = {"bottleneck": ("", {"inner": ("", _QUANTISER)})}
_MOVQ = ((".norm_layer.", "its norms read the code (MoVQ, norm_type 'spatial'), those of ConvDecoder do not"),)
_REMAPPED = (("quantize.used", "its codes are numbered anew (remap: quantize.used), ours are rows of the codebook"),)

DIFFUSERS = Table.of({**conv.DIFFUSERS_HALVES, **_CODES}, refused=_MOVQ)
DIFFUSERS_REG = Table.of({**conv.DIFFUSERS_HALVES, **_VECTORS}, refused=_MOVQ)
TAMING = Table.of({**conv.LDM_HALVES, **_CODES}, conv.LDM_IGNORED, refused=_REMAPPED)
LDM = Table.of({**conv.LDM_HALVES, **_VECTORS}, conv.LDM_IGNORED, refused=_REMAPPED)
GUMBEL = Table.of({  # both a quant_conv and the projection to logits
  "encoder": ("", {
    "project": ("quant_conv", CONV),
    **{ours: (f"encoder.{theirs}", below) for ours, (theirs, below) in conv.LDM_HALVES["encoder"][1].items()},
  }),
  "bottleneck": ("quantize", {"projection": ("proj", CONV1), "codebook": ("embed.weight", SAME)}),
  "decoder": conv.LDM_HALVES["decoder"],
}, conv.LDM_IGNORED, refused=_REMAPPED)  # fmt: skip
# the passes of training that a temperature counts: no file says them, and a released model has done its own
PASSES = {"codebook/bottleneck/passes": np.int32(Gumbel.cooling)}


def model_of(
  shapes: Shapes, config: Mapping[str, Any], need: Callable[[str], tuple[int, ...]], reg: bool = False
) -> Autoencoder:
  """The autoencoder whose arrays have these shapes, by our paths. config, need: see `conv.halves_of`. reg: VQReg.

  The loss is the one that the releases were trained with (`VQ.legacy`); none of them says another.
  """
  vocab, dim = need("bottleneck/inner/codebook" if reg else CODEBOOK)
  need("decoder/project/kernel")
  encoder, decoder = conv.halves_of(shapes, config, need)
  inner = VQ(vocab=vocab, dim=dim, legacy=True)
  return Autoencoder(encoder=encoder, bottleneck=VQReg(inner) if reg else inner, decoder=decoder)


def gumbel_of(shapes: Shapes, config: Mapping[str, Any], need: Callable[[str], tuple[int, ...]]) -> Autoencoder:
  """As `model_of`: taming-transformers' GumbelVQ, whose logits' largest is the code (the authors' code draws it)."""
  vocab, dim = need(CODEBOOK)
  need("decoder/project/kernel")
  encoder, decoder = conv.halves_of(shapes, config, need)
  encoder = encoder.clone(project=need("encoder/project/kernel")[-1])
  return Autoencoder(encoder=encoder, bottleneck=Gumbel(vocab=vocab, dim=dim, hard=True), decoder=decoder)


def config_of(
  model: Autoencoder, statistics: Mapping[str, Any], signal: tuple[int, ...], reg: bool = False
) -> dict[str, Any]:
  """What diffusers' `config.json` says of a model of ours, whose latents have these statistics. UserError for one that
  VQModel cannot be."""
  one, two, three = check_model(model, reg)
  return {
    **conv.sizes_of("VQModel", one, three, signal),
    "latent_channels": one.out,
    "num_vq_embeddings": two.vocab,
    "vq_embed_dim": two.dim,
    "norm_type": "group",
    **conv.units(statistics),
  }


def check_model(model: Any, reg: bool = False) -> tuple[ConvEncoder, VQ, ConvDecoder]:
  """The encoder, the quantiser and the decoder of a model that this file's layouts hold; UserError for another."""
  one, two, three = conv.parts_of(model, VQReg if reg else VQ)
  inner = two.inner if reg else two
  if type(inner) is not VQ:
    raise UserError(f"this layout holds a VQReg of VQ, and the run has one of {type(inner).__name__}")
  if inner.normalise != "none":
    raise UserError(f"this layout looks codes up as they are, this run's are normalised ('{inner.normalise}')")
  if not (inner.project and three.project and (three.entry or inner.dim) == one.out):
    raise UserError("this layout has quant_conv and post_quant_conv, to the codebook's width and back to the encoder's")
  return one, inner, three


def check_ldm(model: Any, reg: bool = False) -> None:
  """As `check_model`, and `conv.check_groups`."""
  one, _, three = check_model(model, reg)
  conv.check_groups(one, three)


def check_gumbel(model: Any) -> None:
  """As `check_ldm`, of Gumbel."""
  one, two, three = conv.parts_of(model, Gumbel)
  conv.check_groups(one, three)
  if not (two.project and three.project and one.project):
    raise UserError("this layout has quant_conv, a projection to logits and post_quant_conv")

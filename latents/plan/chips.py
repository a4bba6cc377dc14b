"""Published figures of accelerators, per chip. Nothing here is measured by us.

Sources (stored copies, read 2026-11-23):
  Cloud TPU documentation, docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}: peak bf16, HBM capacity and
    bandwidth, bidirectional ICI bandwidth (v5e 400, v5p 1200, v6e 800, tpu7x 1200 GB/s) and DCN bandwidth
    (v5p 50, v6e 100, tpu7x 100 Gb/s a chip; v5e 2 x 100 Gb/s a host of 8 chips).
  v4's links: 'How to Scale Your Model', jax-ml/scaling-book, tpus.md (commit 04d8de58): 4.5e10 bytes/s one way
    on each of 6 links, and 2.5e10 bytes/s of DCN for a host (of 4 chips).
  NVIDIA's H100, H200 and HGX B200 data sheets as quoted, dense and per SXM GPU, by itkb.uw.cz ('H200 vs B300',
    2026-06-22: H200 989 TFLOP/s, 141 GB, 4.8 TB/s, NVLink 900 GB/s), acecloud.ai ('B200 vs H200, H100, A100':
    H100 80 GB at 3.35 TB/s, B200 180 GB at 8 TB/s, 1.8 TB/s) and glennklockwood.com/garden/processors/B200
    (HGX B200 at 1000 W: 2250 TFLOP/s). Network: one 400 Gb/s adapter a GPU, as in DGX machines.
  float32 matrix products: on TPU one bf16 pass (XLA's default precision); on NVIDIA TF32, half of bf16.

TPU capacities are taken as GiB (XLA reports 15.75 GiB to use on v5e), NVIDIA's as 10^9 bytes.
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """peak: dense bf16 FLOP/s. single: float32 products' speed in units of peak. hbm: bytes. bandwidth: of HBM, bytes/s.

  link: bytes/s that a chip can send to the others of its slice (ICI, all links, one way) or of its host (NVLink).
  network: bytes/s that a chip can send beyond (data-centre network).
  """

  kind: str
  peak: float
  single: float
  hbm: float
  bandwidth: float
  link: float
  network: float


CHIPS: dict[str, Chip] = {
  "v4": Chip("tpu", 275e12, 1.0, 32 * GIB, 1200e9, 270e9, 6.25e9),
  "v5e": Chip("tpu", 197e12, 1.0, 16 * GIB, 819e9, 200e9, 3.125e9),
  "v5p": Chip("tpu", 459e12, 1.0, 95 * GIB, 2765e9, 600e9, 6.25e9),
  "v6e": Chip("tpu", 918e12, 1.0, 32 * GIB, 1638e9, 400e9, 12.5e9),
  "tpu7x": Chip("tpu", 2307e12, 1.0, 192 * GIB, 7380e9, 600e9, 12.5e9),
  "h100": Chip("gpu", 989e12, 0.5, 80e9, 3350e9, 450e9, 50e9),
  "h200": Chip("gpu", 989e12, 0.5, 141e9, 4800e9, 450e9, 50e9),
  "b200": Chip("gpu", 2250e12, 0.5, 180e9, 8000e9, 900e9, 50e9),
}

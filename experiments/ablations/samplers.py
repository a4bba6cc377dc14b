"""How good samples are after so many evaluations of the network, by solver.

One flow-matching prior, drawn from by each: Euler's and Heun's methods, DPM-Solver++ (Lu et al. 2022,
arXiv:2211.01095), which takes the estimate of the data along the log-SNR, and with noise of their own the ancestral
sampler (Ho et al. 2020, arXiv:2006.11239) and SiT's reverse SDE (Ma et al. 2024, arXiv:2401.08740). Noise mends errors
of the network where there are many steps, and makes new ones where there are few (Karras et al. 2022,
arXiv:2206.00364).

    TFDS_DATA_DIR=../shared/data latents ablate experiments/ablations/samplers.py --scale tiny --seeds 3

tiny: the prior of `trick_ladder`'s "direction" with guidance 2, trained once a seed; the number in a name is that of
evaluations (Heun's method takes two a step but in the last). paper: `ldm_kl`'s. The smallest difference that counts:
nothing but its sign.
"""

import dataclasses
from typing import Any, Literal

from experiments.ablations import trick_ladder
from latents.ablations import Ablation, Against, Claim, Equal
from latents.declare import Experiment
from latents.diffusion import DDPM, DPMSolver2M, Euler, Heun
from latents.diffusion.samplers import EulerMaruyama

SAMPLERS: dict[str, Any] = {
  "euler-5": Euler(5),
  "heun-5": Heun(3),
  "dpm-5": DPMSolver2M(5),
  "ddpm-5": DDPM(5),
  "euler-11": Euler(11),
  "heun-11": Heun(6),
  "dpm-11": DPMSolver2M(11),
  "ddpm-11": DDPM(11),
  "euler-31": Euler(31),
  "heun-31": Heun(16),
  "dpm-31": DPMSolver2M(31),
  "ddpm-31": DDPM(31),
  "sde-31": EulerMaruyama(31),
  "euler-101": Euler(101),
  "ddpm-101": DDPM(101),
  "sde-101": EulerMaruyama(101),
}


def sweep(scale: Literal["tiny", "paper"] = "tiny") -> Ablation:
  return Ablation(
    variants={name: variant(scale, sampler) for name, sampler in SAMPLERS.items()},
    varies=("stage2.prior.sampler",),
    columns=(trick_ladder.KERNEL, trick_ladder.FRECHET, trick_ladder.PRECISION, trick_ladder.RECALL,
             trick_ladder.SECONDS),
    claims=claims(),
    seeds_of="stage2",
  )  # fmt: skip


def claims() -> tuple[Claim, ...]:
  """What the papers say of few and many evaluations."""
  kernel = trick_ladder.KERNEL
  return (
    Against(sentence="At 11 evaluations DPM-Solver++ draws better than Euler's method.", variant="dpm-11",
            control="euler-11", column=kernel, direction="lower"),
    Against(sentence="And better than Heun's.", variant="dpm-11", control="heun-11", column=kernel, direction="lower"),
    Against(sentence="With few evaluations the noise of the ancestral sampler costs more than it mends.",
            variant="ddpm-5", control="dpm-5", column=kernel, direction="higher"),
    Against(sentence="Of many it gains more than a deterministic solver does.", variant="ddpm-101", control="ddpm-11",
            column=kernel, direction="lower"),
    Against(sentence="With 101 evaluations the SDE draws better than the flow.", variant="sde-101",
            control="euler-101", column=kernel, direction="lower"),
    Equal(sentence="11 evaluations of DPM-Solver++ are as good as 101 of Euler's.", variant="dpm-11",
          control="euler-101", column=kernel, margin=0.1),
  )  # fmt: skip


def variant(scale: Literal["tiny", "paper"], sampler: Any) -> Experiment:
  """The prior, drawn from with another sampler."""
  made = trick_ladder.rung(scale, trick_ladder.ORDER.index("direction"))
  assert made.stage2 is not None
  prior = made.stage2.prior.clone(sampler=sampler, guidance=2.0)
  return dataclasses.replace(made, name="samplers", stage2=dataclasses.replace(made.stage2, prior=prior))

"""Ablations: variants of an experiment, what may differ between them, and claims about what is measured of them.

    base       Table, Claim, Judgement: the contract
    ablation   Ablation, its members, and the refusal of what differs without being declared
    against    a variant against a control
    stepwise   each variant against the one before
    equal      two variants do the same, within a margin
    ranks      one order follows another
    within     a variant's own number lies in a range

A claim is one sentence and `judge(table) -> Judgement`, a pure function of the stored table. Its verdict is "shown",
"not shown" or "contradicted": of a bootstrap interval over seeds, paired by seed where two variants are compared, and
of the smallest difference that counts. One seed has no interval, and what has no interval is not shown.
"""

from latents.ablations.ablation import Ablation, Member
from latents.ablations.against import Against
from latents.ablations.base import Claim, Judgement, Table, Verdict, judge
from latents.ablations.equal import Equal
from latents.ablations.ranks import Ranks
from latents.ablations.stepwise import Stepwise
from latents.ablations.within import Within

__all__ = [
  "Ablation", "Against", "Claim", "Equal", "Judgement", "Member", "Ranks", "Stepwise", "Table", "Verdict", "Within",
  "judge",
]  # fmt: skip

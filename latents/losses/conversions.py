"""How others reduce their losses -> the weights that give the same objective here, where every term is a mean.

An objective and c times it have the same minima and the same ratios of gradients; beside what is converted below, an
optimiser's `clip` and epsilon and the clamp of an adaptive weight shrink with c (tests/test_conversions.py).
"""

from latents.losses.regression import L2, Huber


def of_sums(weight: float, numbers: int, *, among: int) -> float:
  """The weight of a mean over `numbers` numbers, beside means over `among` of them that have the weight 1.

  The paper sums both terms and divides by the batch: sum(a) + weight sum(b) = among (mean a + weight numbers / among
  mean b). LDM's KL weight, its numbers those of the latent among those of a picture: 1e-6 / TSR.
  """
  return weight * numbers / among


def smooth_l1(weight: float, beta: float) -> Huber:
  """weight * SmoothL1(beta), d^2 / (2 beta) within beta and |d| - beta / 2 beyond (torch; ViTok: 0.1, beta 0.05)."""
  return Huber(weight=weight / beta, delta=beta)


def gaussian(variance: float) -> L2:
  """-log N(x; x_hat, variance) a number, without its constant: d^2 / (2 variance)."""
  return L2(weight=0.5 / variance)


def penalty(weight: float) -> float:
  """The weight `r1` or `lecam` beside E a(D(x)) + E b(D(x_hat)), as StyleGAN2 has it: here their mean is taken, half of
  the sum, so the penalty is halved too."""
  return 0.5 * weight

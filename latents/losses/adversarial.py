"""The adversarial term: its objectives, their schedule, and the adaptive weight of VQGAN."""

import dataclasses
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.discriminators import PatchGAN, Taught, Verdict
from latents.errors import UserError
from latents.losses.base import Rival, Term, Tree
from latents.optim import Adam, Optimizer
from latents.types import Array, Seen, Terms, later

LECAM = "lecam"  # the collection of LeCAM's averages, beside the discriminator's own


@dataclasses.dataclass(frozen=True)
class Adversarial(Rival):
  """A GAN term (hinge: Lim and Ye 2017; Esser et al. 2020, arXiv:2012.09841) with its discriminator and optimiser.

  weight, start: as of every loss; the generator feels the term from `start`. ramp: steps over which it
  grows linearly to full strength. lead: the discriminator trains from `start - lead`. adaptive: multiply
  by `adaptive_weight`, which is at most `clamp`. optimizer: the discriminator's.
  objective: see `discriminate` and `generator`; means over the logits of a sub-network, then over sub-networks.
  features: weight, within the term, of feature matching: mean |f(x) - f(x_hat)| of a hidden layer, not divided by the
  layer's size (as DAC; EnCodec divides), mean over layers and sub-networks (DAC sums both: times their number).
  r1: gamma of gamma/2 E |d D(x) / dx|^2 at the target (Mescheder et al. 2018, arXiv:1801.04406), D(x) the mean of all
  logits of x; every `r1_every`-th update of the discriminator, times `r1_every`. lecam: weight of `lecam_term`.
  every: the discriminator learns at every such step.
  """

  discriminator: nn.Module = dataclasses.field(default_factory=PatchGAN)
  ramp: int = 0
  lead: int = 0
  adaptive: bool = True
  clamp: float = 1e4
  optimizer: Optimizer = dataclasses.field(default_factory=lambda: Adam(betas=(0.5, 0.9)))
  objective: Literal["hinge", "vanilla", "nonsaturating", "lsgan"] = later("hinge")
  features: float = later(0.0)
  r1: float = later(0.0)
  r1_every: int = later(16)
  lecam: float = later(0.0)
  every: int = later(1)

  group: ClassVar[str] = "disc"

  def init(self, key: Array, seen: Seen, *, aux: Tree) -> Tree:
    """The discriminator's variables, and LeCAM's averages."""
    own = dict(self.discriminator.init(key, *self.shown(seen, real=False), train=True, **self._told(aux)))
    zeros = {name: jnp.zeros(()) for name in ("real", "fake", "share")}
    return own | ({LECAM: zeros} if self.lecam else {})

  def load(self) -> Tree:
    """What the discriminator's frozen network knows, where it has one."""
    return self.discriminator.load() if isinstance(self.discriminator, Taught) else None

  def abstract(self) -> Tree:
    """Its shapes."""
    return self.discriminator.abstract() if isinstance(self.discriminator, Taught) else None

  def _told(self, aux: Tree) -> dict[str, Tree]:
    return {"frozen": aux} if isinstance(self.discriminator, Taught) else {}

  @property
  def at(self) -> str:
    """The decoder's last kernel."""
    return "decoder" if self.adaptive else ""

  @property
  def optimizer_of(self) -> Optimizer:
    """The discriminator's."""
    return self.optimizer

  def shown(self, seen: Seen, *, real: bool) -> tuple[Any, ...]:
    """What the discriminator is called with: the target, or x_hat."""
    return (seen.target if real else seen.x_hat,)

  def judge(self, seen: Seen, own: Tree, real: bool, aux: Tree = None) -> tuple[Verdict, Tree]:
    """(The verdict on the pass's target or x_hat, the collections of the discriminator as it leaves them)."""
    held = [name for name in own if name not in ("params", LECAM)]
    variables, shown = {k: v for k, v in own.items() if k != LECAM}, self.shown(seen, real=real)
    found: Any = self.discriminator.apply(variables, *shown, train=True, mutable=held or False, **self._told(aux))
    return (found[0], dict(found[1])) if held else (found, {})

  def felt(self, seen: Seen, own: Tree, fake: Verdict, aux: Tree) -> Array:
    """What the generator feels of the verdict on x_hat."""
    return self.generator(*fake.logits)

  def measure(self, seen: Seen, own: Tree, *, aux: Tree, key: Array) -> Term:
    """What the generator feels; what the discriminator's own collections become of it is dropped."""
    fake = self.judge(seen, own, real=False, aux=aux)[0]
    value = self.felt(seen, own, fake, aux)
    if not self.features:
      return Term(value)
    real = jax.lax.stop_gradient(self.judge(seen, own, real=True, aux=aux)[0])
    matched = matching(real, fake)
    return Term(value + self.features * matched, {"features": matched})

  def learn(self, seen: Seen, own: Tree, *, aux: Tree, key: Array) -> Term:
    """What the discriminator learns."""
    real, state = self.judge(seen, own, real=True, aux=aux)
    fake, last = self.judge(seen, {**own, **state}, real=False, aux=aux)
    state = {**state, **last}
    value, logs = self.discriminate(real.logits, fake.logits)
    logs = {"disc": value, **logs}
    if self.r1:
      due = self._number(seen.step) % self.r1_every == 0
      slope = jax.lax.cond(
        due, lambda p: self.slope(seen, {**own, "params": p}, aux), lambda _: jnp.zeros(()), own["params"]
      )
      value, logs = value + 0.5 * self.r1 * self.r1_every * slope, logs | {"r1": slope}
    if self.lecam:
      averages, term = lecam_term(own[LECAM], real.logits, fake.logits)
      value, logs, state = value + self.lecam * term, logs | {"lecam": term}, {**state, LECAM: averages}
    return Term(value, logs, state)

  def slope(self, seen: Seen, own: Tree, aux: Tree = None) -> Array:
    """[]: mean over examples of the squared length of the gradient of an example's mean logit at the target."""

    def score(x: Array) -> Array:
      verdict = self.judge(seen.replace(target=x), own, real=True, aux=aux)[0]
      return _mean([_flat(logits).mean(1) for logits in verdict.logits]).sum()

    return jnp.square(_flat(jax.grad(score)(seen.target))).sum(1).mean()

  def generator(self, *fake: Array) -> Array:
    """Logits of reconstructions [B,...] -> []: -mean D (hinge, vanilla), mean softplus(-D) (nonsaturating), or
    mean (1 - D)^2 (lsgan)."""
    match self.objective:
      case "nonsaturating":
        terms = [jax.nn.softplus(-f.astype(jnp.float32)).mean() for f in fake]
      case "lsgan":
        terms = [jnp.square(1.0 - f.astype(jnp.float32)).mean() for f in fake]
      case _:
        terms = [-f.astype(jnp.float32).mean() for f in fake]
    return _mean(terms)

  def discriminate(self, real: Any, fake: Any) -> tuple[Array, Terms]:
    """Logits [B,...], or tuples of them -> (loss [], logs): mean over sub-networks of (E a(D(x)) + E b(D(x_hat)))/2.

    hinge: a = relu(1 - D), b = relu(1 + D). vanilla, nonsaturating: softplus(-D), softplus(D) (Goodfellow et al. 2014).
    lsgan: (1 - D)^2, D^2 (Mao et al. 2017, arXiv:1611.04076).
    logs: real_accuracy, fake_accuracy (share of logits on the right side of 0; lsgan: of 1/2), real_logit, fake_logit.
    """
    reals, fakes = (tuple(x) if isinstance(x, tuple) else (x,) for x in (real, fake))
    pairs = [(r.astype(jnp.float32), f.astype(jnp.float32)) for r, f in zip(reals, fakes, strict=True)]
    middle = 0.5 if self.objective == "lsgan" else 0.0
    loss = _mean([0.5 * self._sides(r, f) for r, f in pairs])
    logs = {
      "real_accuracy": _mean([(r > middle).mean(dtype=jnp.float32) for r, _ in pairs]),
      "fake_accuracy": _mean([(f < middle).mean(dtype=jnp.float32) for _, f in pairs]),
      "real_logit": _mean([r.mean() for r, _ in pairs]),
      "fake_logit": _mean([f.mean() for _, f in pairs]),
    }
    return loss, logs

  def _sides(self, real: Array, fake: Array) -> Array:
    match self.objective:
      case "hinge":
        return jax.nn.relu(1.0 - real).mean() + jax.nn.relu(1.0 + fake).mean()
      case "lsgan":
        return jnp.square(1.0 - real).mean() + jnp.square(fake).mean()
      case _:
        return jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean()

  def gate(self, step: Array) -> Array:
    """step [] int -> [] in [0,1]: 0 before `start`, then (step - start + 1) / ramp up to 1."""
    grown = jnp.asarray(step - self.start + 1, jnp.float32) / max(self.ramp, 1)
    return jnp.clip(grown, 0.0, 1.0)

  def learn_gate(self, step: Array) -> Array:
    """step [] int -> [] float32: 0 before `start - lead`, from then on 1 at every `every`-th step (factor of the D
    loss)."""
    begun = step >= self.start - self.lead
    return jnp.asarray(begun & ((step - self._first) % self.every == 0) if self.every > 1 else begun, jnp.float32)

  def updates(self, steps: int) -> int:
    """The steps from `start - lead` on, every `every`-th."""
    return max(-(-(steps - self._first) // self.every), 0)

  @property
  def _first(self) -> int:
    return max(self.start - self.lead, 0)

  def _number(self, step: Array) -> Array:
    return (step - self._first) // self.every


def matching(real: Verdict, fake: Verdict) -> Array:
  """Verdicts on x and x_hat -> []: mean |f(x) - f(x_hat)| over elements, then layers, then sub-networks.

  UserError where the discriminator gives no hidden layers.
  """
  if not any(fake.features):
    raise UserError("feature matching needs a discriminator that gives its hidden layers")
  layers = [
    _mean([jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)).mean() for a, b in zip(r, f, strict=True)])
    for r, f in zip(real.features, fake.features, strict=True)
  ]
  return _mean(layers)


def lecam_term(averages: Tree, real: tuple[Array, ...], fake: tuple[Array, ...]) -> tuple[Tree, Array]:
  """(new averages, E relu(D(x) - a_F)^2 + E relu(a_R - D(x_hat))^2): LeCAM (Tseng et al. 2021, arXiv:2104.03310).

  a_R, a_F: moving averages (rate 0.999, without the bias of their first steps) of the mean logits of targets and
  reconstructions, this pass's among them; constants. The relu is that of its released code, not of its equation.
  """
  now = {"real": _mean([r.mean() for r in real]), "fake": _mean([f.mean() for f in fake]), "share": jnp.ones(())}
  kept = jax.lax.stop_gradient({name: 0.999 * averages[name] + 0.001 * now[name] for name in now})
  at_real, at_fake = kept["real"] / kept["share"], kept["fake"] / kept["share"]
  above = _mean([jnp.square(jax.nn.relu(r - at_fake)).mean() for r in real])
  return kept, above + _mean([jnp.square(jax.nn.relu(at_real - f)).mean() for f in fake])


def _mean(terms: list[Array]) -> Array:
  return terms[0] if len(terms) == 1 else sum(terms[1:], terms[0]) / len(terms)  # one: the same number to the bit


def _flat(x: Array) -> Array:
  return x.reshape(x.shape[0], -1).astype(jnp.float32)

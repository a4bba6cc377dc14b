"""Identities of judges of every kind: the adaptive weight in a step, R1."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.discriminators import Verdict
from latents.losses import L2, Adversarial
from latents.train import objective, step
from latents.train.state import State
from latents.types import Latent, Seen
from tests import micro
from tests.members.decoders import DECODERS
from tests.members.discriminators import DISCRIMINATORS
from tests.test_bottlenecks import rng_normal
from tests.test_discriminators import randomly
from tests.test_encoders_decoders import started


def every(names, members, fast):
  """All members; those that do not compile fast are for the slow tests."""
  marks = {m[0]: () if m[0] in fast else pytest.mark.slow for m in members}
  return pytest.mark.parametrize(names, [pytest.param(*m[1:], id=m[0], marks=marks[m[0]]) for m in members])


def seen_of(x, x_hat=None, number=None):
  return Seen(x, x, x_hat, None, None, None, {}, number)


class Judge(nn.Module):
  """D(x) = w mean(tanh(2 x)), of any signal."""

  @nn.compact
  def __call__(self, x, *, train):
    mean = jnp.tanh(2 * x).mean(tuple(range(1, x.ndim)))
    return Verdict((self.param("w", nn.initializers.ones, ()) * mean,))


def pulls(run, params, last, x, judge, **scales):
  """(length of L2's gradient at the path `last`, {name of a scale: what the judge adds to the gradients}) of a step
  whose model is run(params) -> x_hat, and whose judge has parameters times that scale.

  What it adds is 0.5 |L2's| / (|the judge's| + 1e-4) times the judge's own gradient: seen here for every parameter.
  """
  losses = {"l2": L2(), "gan": Adversarial(weight=0.5, discriminator=judge)}
  stage = dataclasses.replace(micro.experiment(gan=False).stage1, losses=losses)
  told = objective.load_frozen(losses)

  def passing(variables, frozen, batch, key, **options):
    return {}, {"x_hat": run(variables["params"]), "z": jnp.zeros(())}, seen_of(x), {}, {}

  made = step.Passing("ae", 0, passing, lambda *_: {}, lambda _: last)
  begin = lambda told: losses["gan"].init(jax.random.key(0), seen_of(x, x), aux=told.get("gan"))
  own = randomly(jax.eval_shape(begin, told), 0.5)
  judged = own.pop("params")
  losses_of = {"gan": own} if own else {}

  @jax.jit
  def find(params, judged, told):
    state = State(jnp.int32(0), {"ae": params, "disc": judged}, {}, {}, {"variables": {}, "losses": losses_of})
    carried = {"model": {}, "losses": losses_of}
    frozen = {"losses": told, "fixed": {}}
    (grads, logs), _ = step.gradients(made, stage, state, frozen, carried, {"x": x}, jax.random.key(0))
    plain = jax.grad(lambda p: jnp.square(run(p) - x).mean())(params)
    measure = lambda p: losses["gan"].measure(
      seen_of(x, run(p), jnp.int32(0)), {"params": judged, **own}, aux=told.get("gan"), key=None
    )
    alone = jax.grad(lambda p: measure(p).value)(params)
    return plain, jax.tree.map(jnp.subtract, grads["ae"], plain), alone, logs["gan_adaptive"]

  found = {}
  for name, scale in scales.items():
    plain, added, alone, ratio = find(params, jax.tree.map(lambda a, s=scale: s * a, judged), told)
    wanted = length(plain, last) / (length(alone, last) + 1e-4)
    assert 0 < wanted < 1e4 and float(ratio) == pytest.approx(wanted, rel=1e-3)  # at the clamp it is no identity
    least = 1e-5 * max(float(jnp.abs(a).max()) for a in jax.tree.leaves(plain))  # of what was subtracted
    for a, b in zip(jax.tree.leaves(added), jax.tree.leaves(alone), strict=True):
      np.testing.assert_allclose(a, 0.5 * wanted * b, atol=2e-3 * 0.5 * wanted * float(jnp.abs(b).max()) + least)
    found[name] = added
  return length(plain, last), found


def length(tree, path):
  for part in path:
    tree = tree[part]
  return float(jnp.linalg.norm(tree))


# of each kind, what compiles fast: a judge in a step, with two derivatives, a decoder
CHEAP = ("patchgan-audio", "patchgan-video", "features")
TWICE = ("patchgan-audio", "multi-period")
DECODER = ("conv 1d",)


@every(("make", "shape"), DISCRIMINATORS, CHEAP)
def test_what_every_judge_pulls_is_weighed_at_the_last_kernel(make, shape):
  """Esser et al. 2020, eq. 7; where the judge pulls at all, weight times as much as L2."""
  x = jnp.tanh(rng_normal(2, *shape))
  run = lambda p: jnp.tanh(x @ p["kernel"])
  params = {"kernel": jnp.eye(shape[-1]) + 0.5 * rng_normal(shape[-1], shape[-1], seed=2)}
  own, found = pulls(run, params, ("kernel",), x, make(), whole=1.0)
  assert own > 0.01 and 0 < length(found["whole"], ("kernel",)) <= 0.5 * own * 1.002


@every(("make", "latent", "shape"), [m for m in DECODERS if m[1]().last], DECODER)
def test_the_scale_of_a_judge_goes_out_at_the_last_kernel(make, latent, shape):
  decoder, z, x = make(), rng_normal(2, *latent), jnp.tanh(rng_normal(2, *shape))
  given = Latent(z=z, side={"gain": jnp.array([[2.0], [0.5]])})  # read by those that say so
  variables = started(decoder, given, x, train=False)
  params, rngs = variables.pop("params"), {"decoder": jax.random.key(1)}
  run = lambda p: decoder.apply({"params": p, **variables}, given, method="sample", rngs=rngs)
  own, found = pulls(run, params, decoder.last, x, Judge(), one=100.0, other=10_000.0)
  for name in ("one", "other"):
    assert length(found[name], decoder.last) == pytest.approx(0.5 * own, rel=0.02), name
  most = max(float(jnp.abs(b).max()) for b in jax.tree.leaves(found["other"]))  # a norm's bias before it has none
  for a, b in zip(jax.tree.leaves(found["one"]), jax.tree.leaves(found["other"]), strict=True):
    np.testing.assert_allclose(a, b, atol=0.02 * max(float(jnp.abs(b).max()), 1e-5 * most))


@every(("make", "shape"), DISCRIMINATORS, TWICE)
def test_r1_of_every_judge_is_the_slope_of_its_mean_logit(make, shape):
  """mean |d D / dx|^2: how fast the mean logit rises along its own slope."""
  x, loss = jnp.tanh(rng_normal(2, *shape)), Adversarial(discriminator=make(), r1=3.0, r1_every=2)
  aux = objective.load_frozen({"gan": loss}).get("gan")
  own = randomly(jax.eval_shape(lambda aux: loss.init(jax.random.key(0), seen_of(x, x), aux=aux), aux))

  def score(x, aux):
    verdict = loss.judge(seen_of(x, x), own, real=True, aux=aux)[0]
    means = [logits.reshape(len(x), -1).mean(1) for logits in verdict.logits]
    return jnp.stack(means).mean(0).sum()

  @jax.jit
  def find(aux):
    slope = jax.grad(score)(x, aux)
    along = jax.jvp(lambda x: score(x, aux), (x,), (slope,))[1]
    found = loss.learn(seen_of(x, -x, jnp.int32(0)), own, aux=aux, key=None).logs["r1"]
    penalty = lambda p: loss.learn(seen_of(x, -x, jnp.int32(0)), {**own, "params": p}, aux=aux, key=None).value
    return along, found, jax.grad(penalty)(own["params"])

  along, found, slopes = find(aux)
  assert float(along) > 0
  assert float(found) == pytest.approx(float(along) / len(x), rel=1e-3)
  assert all(np.isfinite(a).all() for a in jax.tree.leaves(slopes))

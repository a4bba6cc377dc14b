"""Priors: exact losses and samples where the answer is known, guidance, randomness per sample."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latents.backbones import DiT, Transformer
from latents.diffusion import DDPM, Betas, DPMSolver2M, Euler, Heun, Process, Steps
from latents.errors import UserError
from latents.nn.condition import labels
from latents.priors import AutoregressivePrior, FlowPrior
from latents.priors.autoregressive import keep_top_k, keep_top_p
from latents.priors.base import drop
from latents.types import Latent
from tests.members.priors import PRIORS
from tests.test_nn import normal, randomise

KEY = jax.random.key(0)
LABEL = {"label": jnp.array([0, 1, 2, 0])}
BY_NAME = pytest.mark.parametrize(("make", "shape", "vocab"), [m[1:] for m in PRIORS], ids=[m[0] for m in PRIORS])


def latent_of(shape, vocab, batch: int = 4) -> Latent:
  if vocab is None:
    return Latent(z=normal(batch, *shape))
  return Latent(codes=jnp.asarray(np.random.default_rng(0).integers(0, vocab, (batch, *shape)), jnp.int32))


def start(prior, latent: Latent, scale: float = 0.3):
  """Random parameters; those named scale around 1, without which a kernel of a given length hardly tells its input."""
  rngs = {"params": KEY, "prior": KEY, "dropout": KEY}
  params = randomise(jax.eval_shape(lambda: prior.init(rngs, latent, LABEL, train=True, method="loss")), scale)
  return jax.tree_util.tree_map_with_path(lambda path, a: a + ("scale" in path[-1].key), params)


def draw_with(prior, shape, **options):
  """A compiled function (params, cond, key) -> Latent."""
  return jax.jit(lambda p, c, key=KEY: prior.apply(p, c, shape=shape, method="sample", rngs={"prior": key}, **options))


def draw(prior, params, cond, shape, **options) -> Latent:
  return draw_with(prior, shape, **options)(params, cond)


@BY_NAME
def test_every_prior_keeps_the_contract(make, shape, vocab):
  prior, latent = make(), latent_of(shape, vocab)
  assert prior.discrete == (vocab is not None)
  params = start(prior, latent)
  loss = jax.jit(lambda p, k: prior.apply(p, latent, LABEL, train=True, method="loss", rngs={"prior": k, "dropout": k}))
  assert all(jnp.shape(term) == () and np.isfinite(term) for term in loss(params, KEY).values())
  sample = draw(prior, params, LABEL, shape)
  if vocab is None:
    assert sample.z.shape == (4, *shape) and np.isfinite(sample.z).all()
  else:
    assert sample.codes.shape == (4, *shape) and sample.codes.dtype == jnp.int32
    assert sample.codes.min() >= 0 and (np.asarray(sample.codes) < np.asarray(vocab)).all()


@BY_NAME
def test_its_variables_do_not_depend_on_the_batch(make, shape, vocab):
  """A finished stage is read with the shapes of a batch of one."""
  rngs = {"params": KEY, "prior": KEY, "dropout": KEY}
  made = lambda batch: jax.eval_shape(
    lambda: make().init(
      rngs, latent_of(shape, vocab, batch), {"label": LABEL["label"][:batch]}, train=True, method="loss"
    )
  )
  assert jax.tree.structure(made(1)) == jax.tree.structure(made(4))
  assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, made(1), made(4)))


@BY_NAME
def test_a_sample_depends_on_its_own_index_and_label_alone(make, shape, vocab):
  prior = make()
  params = start(prior, latent_of(shape, vocab), 0.1)
  run = draw_with(prior, shape)
  four, two, again = run(params, LABEL), run(params, {"label": LABEL["label"][:2]}), run(params, LABEL)
  other = run(params, LABEL, jax.random.key(1))
  values = lambda latent: np.asarray(latent.z if vocab is None else latent.codes)
  assert np.abs(values(four)[:2] - values(two)).max() < 1e-4
  assert np.array_equal(values(four), values(again))
  assert not np.array_equal(values(four), values(other))
  assert not np.array_equal(values(four)[0], values(four)[3])  # one label, two samples
  assert values(draw(prior, params, None, shape, count=3)).shape == (3, *shape)


@BY_NAME
def test_guidance_one_is_conditional_and_zero_is_unconditional(make, shape, vocab):
  prior = make()
  params = start(prior, latent_of(shape, vocab), 0.2)
  if not prior.classes:
    with pytest.raises(UserError, match="unconditional"):
      draw(prior, params, LABEL, shape, guidance=2.0)
    return
  runs = {g: draw_with(prior, shape, guidance=g) for g in (0.0, 1.0, 1.0 + 1e-6, 4.0)}
  values = lambda g, cond=LABEL: np.asarray(jax.tree.leaves(runs[g](params, cond))[0])
  null = {**LABEL, "drop": jnp.ones(4, bool)}
  assert np.abs(values(0.0) - values(1.0, null)).max() < 1e-4
  assert np.abs(values(1.0 + 1e-6) - values(1.0)).max() < 1e-2  # the doubled batch at scale 1
  assert not np.array_equal(values(4.0), values(1.0))
  assert np.abs(values(4.0, null) - values(1.0, null)).max() < 1e-3  # u + s (u - u) = u


class Exact(nn.Module):
  """The exact velocity for data N(mean, std^2), per label: mean = label, or 0.5 for the null label."""

  classes: int = 0
  std: float = 0.4

  @property
  def conditions(self):
    return ("label",) if self.classes else ()

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    t = t.reshape(-1, *[1] * (x.ndim - 1))
    label = labels(cond, self.classes, len(x)) if self.classes else jnp.zeros(len(x))
    mean = jnp.where(label == self.classes, 0.5, label).reshape(t.shape)
    var = (1 - t) ** 2 * self.std**2 + t**2
    return (t - (1 - t) * self.std**2) / var * (x - (1 - t) * mean) - mean


def test_flow_prior_with_the_exact_velocity_samples_the_data():
  label = jnp.arange(3)
  for sampler in (Euler(200), Heun(40)):
    z = draw(FlowPrior(Exact(classes=3), sampler=sampler), {}, {"label": label}, (64, 64)).z
    assert np.abs(z.mean((1, 2)) - label).max() < 0.03
    assert np.abs(z.std((1, 2)) - 0.4).max() < 0.02


def test_flow_loss_of_the_exact_velocity_is_the_irreducible_variance():
  """E Var[eps - x0 | x_tau] = s^2 / ((1-tau)^2 s^2 + tau^2), averaged over the times of training."""
  prior = FlowPrior(Exact(), shift=1.0)
  z = 0.5 + 0.4 * normal(2000, 64)
  loss = float(prior.apply({}, Latent(z=z), None, train=False, method="loss", rngs={"prior": KEY})["flow"])
  tau = 1 / (1 + np.exp(-np.random.default_rng(0).normal(size=200_000)))
  assert loss == pytest.approx(np.mean(0.16 / ((1 - tau) ** 2 * 0.16 + tau**2)), rel=0.03)


def test_flow_mask_weights_the_loss():
  prior, z = FlowPrior(DiT(1, 16, 2, patch=1)), normal(4, 6, 3)
  params = start(prior, Latent(z=z))

  @jax.jit
  def value(mask):
    latent = Latent(z=z, mask=mask)
    return prior.apply(params, latent, None, train=False, method="loss", rngs={"prior": KEY})["flow"]

  keep = jnp.arange(6) < 2
  first, rest = value(jnp.tile(keep, (4, 1))), value(jnp.tile(~keep, (4, 1)))
  assert np.isclose(value(None), (2 * first + 4 * rest) / 6, rtol=1e-5)


def test_flow_shift_comes_from_the_size_of_the_latent():
  """A backbone that gives its own time shows the first grid step: x = noise - (1 - tau_1) * 1 at two steps."""

  class Clock(nn.Module):
    classes: int = 0
    conditions = ()

    @nn.compact
    def __call__(self, x, t, cond, *, train: bool = False):
      return jnp.zeros_like(x) + t.reshape(-1, 1, 1)

  shape = (128, 128)  # shift 2: times 1, 2/3, 0
  moved = draw(FlowPrior(Clock(), sampler=Euler(2)), {}, None, shape).z
  fixed = draw(FlowPrior(Clock(), shift=1.0, sampler=Euler(2)), {}, None, shape).z
  # -(1 - tau_1) * 1 - tau_1 * tau_1, with tau_1 = 2/3 and 1/2
  assert np.allclose(moved - fixed, -(1 / 3 + 4 / 9) + (1 / 2 + 1 / 4), atol=1e-5)


def test_label_dropout_has_its_rate_and_only_in_training():
  cond = {"label": jnp.arange(20_000) % 3}
  dropped = labels(drop(KEY, cond, 0.1), 3, 20_000)
  assert np.isin(dropped, [0, 1, 2, 3]).all()
  assert abs(np.mean(dropped == 3) - 0.1) < 0.01
  assert np.array_equal(np.where(dropped == 3, cond["label"], dropped), cond["label"])
  prior, latent = FlowPrior(Exact(classes=3), label_drop=1.0), Latent(z=normal(4, 5))
  value = lambda cond, train: prior.apply({}, latent, cond, train=train, method="loss", rngs={"prior": KEY})["flow"]
  assert np.isclose(value(LABEL, True), value(None, True))
  assert not np.isclose(value(LABEL, False), value(None, False))


def test_the_first_nll_is_the_log_of_the_vocabulary():
  prior = AutoregressivePrior(Transformer(11, 16, 2, 2, length=9, classes=3, multiple=8))
  latent = latent_of((3, 3), 11)
  rngs = {"params": KEY, "prior": KEY, "dropout": KEY}
  params = jax.jit(lambda: prior.init(rngs, latent, LABEL, train=True, method="loss"))()
  loss = prior.apply(params, latent, LABEL, train=True, method="loss", rngs=rngs)
  assert float(loss["nll"]) == pytest.approx(np.log(11), abs=1e-6)


def test_nll_mask_keeps_positions_with_all_their_levels():
  prior = AutoregressivePrior(Transformer(5, 16, 1, 2, length=8, groups=2, multiple=8))
  latent = latent_of((4, 2), 5)
  params = start(prior, latent)
  value = lambda mask: prior.apply(params, latent.replace(mask=mask), None, train=False, method="loss")["nll"]
  keep = jnp.tile(jnp.arange(4) < 1, (4, 1))
  assert np.isclose(value(None), (value(keep) + 3 * value(~keep)) / 4, rtol=1e-5)


def test_greedy_samples_follow_the_full_pass():
  """Temperature 0: each sampled token is the argmax of the teacher-forced logits, with guidance mixed in."""
  model = Transformer(7, 16, 2, 2, length=6, classes=3, multiple=8)
  prior = AutoregressivePrior(model, temperature=0.0)
  params = start(prior, latent_of((6,), 7))
  own = {"params": params["params"]["backbone"]}
  for scale in (1.0, 3.0):
    codes = draw(prior, params, LABEL, (6,), guidance=scale).codes
    c, u = model.apply(own, codes, LABEL), model.apply(own, codes, None)
    assert np.array_equal(codes, np.argmax(u + scale * (c - u), -1))


def test_top_k_and_top_p_keep_the_smallest_sets():
  logits = jnp.log(jnp.array([[0.1, 0.4, 0.2, 0.3], [0.97, 0.01, 0.01, 0.01]]))
  kept = lambda x: np.isfinite(np.asarray(x)).tolist()
  assert kept(keep_top_k(logits, 2))[0] == [False, True, False, True]
  assert kept(keep_top_k(logits, 0)) == kept(logits)
  assert kept(keep_top_p(logits, 0.65)) == [[False, True, False, True], [True, False, False, False]]
  assert kept(keep_top_p(logits, 0.75))[0] == [False, True, True, True]
  assert kept(keep_top_p(logits, 1e-9)) == [[False, True, False, False], [True, False, False, False]]
  assert kept(keep_top_p(logits, 1.0)) == kept(logits)


@pytest.mark.parametrize("p", [0.0, -1.0])
def test_top_p_keeps_at_least_the_likeliest(p):
  kept = np.isfinite(keep_top_p(jnp.array([[0.0, 3.0, 3.0], [1.0, 0.0, -jnp.inf]]), p))
  np.testing.assert_array_equal(kept, [[False, True, False], [True, False, False]])


def test_of_equal_logits_the_first_are_kept():
  equal = jnp.zeros((2, 8))
  for kept in (keep_top_p(equal, 0.5), keep_top_k(equal, 4)):
    np.testing.assert_array_equal(np.isfinite(kept), [[True] * 4 + [False] * 4] * 2)
  logits = jnp.array([1.0, 2.0, 1.0, 0.0, 1.0])
  np.testing.assert_array_equal(np.isfinite(keep_top_k(logits, 3)), [True, True, True, False, False])


def test_coarse_logits_are_filtered_in_float32():
  """In bfloat16 many of 1,000 logits are equal, and a sum of their chances stands still."""
  logits = jnp.asarray(np.random.default_rng(0).standard_normal((3, 1000)), jnp.bfloat16)
  for kept in (keep_top_k(logits, 100), keep_top_p(logits, 0.5)):
    assert kept.dtype == jnp.float32
  assert np.isfinite(keep_top_k(logits, 100)).sum(-1).tolist() == [100, 100, 100]
  chances = jax.nn.softmax(logits.astype(jnp.float32), -1)
  kept = np.isfinite(keep_top_p(logits, 0.5))
  mass = np.where(kept, chances, 0).sum(-1)
  assert (mass >= 0.5 - 1e-5).all() and (mass - np.where(kept, chances, 1).min(-1) < 0.5).all()


def test_sampling_has_the_models_frequencies_and_temperature():
  """Length 1: the samples of one position follow softmax(logits / temperature)."""
  prior = AutoregressivePrior(Transformer(4, 8, 1, 2, length=1, multiple=8), temperature=2.0)
  params = start(prior, latent_of((1,), 4))
  own = {"params": params["params"]["backbone"]}
  logits = prior.backbone.apply(own, jnp.zeros((1, 1), jnp.int32), None)[0, 0]
  codes = draw(prior, params, None, (1,), count=20_000).codes
  assert np.abs(np.bincount(codes[:, 0], minlength=4) / 20_000 - jax.nn.softmax(logits / 2)).max() < 0.015


def test_a_markov_chain_is_learned_to_its_entropy():
  turn = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.3, 0.6, 0.1]])
  length = 6
  share, bound = np.ones(3) / 3, np.log(3)
  for _ in range(length - 1):
    bound += share @ -(turn * np.log(turn)).sum(1)
    share = share @ turn
  bound /= length

  def chain(key, batch):
    first, *rest = jax.random.split(key, length)
    codes = [jax.random.randint(first, (batch,), 0, 3)]
    for k in rest:
      codes.append(jax.random.categorical(k, jnp.log(turn)[codes[-1]]))
    return jnp.stack(codes, 1)

  prior = AutoregressivePrior(Transformer(3, 32, 1, 2, length=length, multiple=8))
  optimizer = optax.adam(1e-2)
  nll = lambda p, codes: prior.apply(p, Latent(codes=codes), None, train=False, method="loss")["nll"]

  @jax.jit
  def train(params):
    def step(carry, key):
      params, state = carry
      updates, state = optimizer.update(jax.grad(nll)(params, chain(key, 128)), state)
      return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(KEY, 150))[0][0]

  codes = jax.jit(chain, static_argnums=1)(jax.random.key(9), 4096)
  init = jax.jit(lambda: prior.init(KEY, Latent(codes=codes[:2]), None, train=False, method="loss"))
  params = train(init())
  assert bound - 0.02 < float(jax.jit(nll)(params, codes)) < bound + 0.02
  made = np.asarray(draw(prior, params, None, (length,), count=2000).codes)
  counts = np.zeros((3, 3))
  np.add.at(counts, (made[:, :-1].ravel(), made[:, 1:].ravel()), 1)
  assert np.abs(counts / counts.sum(1, keepdims=True) - turn).max() < 0.06


def test_mistakes_are_one_clear_line():
  flow = FlowPrior(DiT(1, 16, 2, out=6))
  tokens = AutoregressivePrior(Transformer(5, 8, 1, 2, length=8, groups=2))
  rngs = {"params": KEY, "prior": KEY}
  init = lambda prior, latent: jax.eval_shape(lambda: prior.init(rngs, latent, None, train=True, method="loss"))
  with pytest.raises(UserError, match="codes only"):
    init(flow, latent_of((4, 4), 5))
  with pytest.raises(UserError, match="set its `out` to None"):
    init(flow, latent_of((4, 4, 3), None))
  with pytest.raises(UserError, match="is continuous"):
    init(tokens, latent_of((4, 2), None))
  with pytest.raises(UserError, match="2 levels of codes"):
    init(tokens, latent_of((2, 4), 5))
  with pytest.raises(UserError, match="models 8 tokens"):
    init(tokens, latent_of((3, 2), 5))


class ExactNoise(nn.Module):
  """E[eps | x_tau] for data N(0.5, 0.4^2) on DDPM's path, and the middle of the variances."""

  classes: int = 0

  conditions = ()

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    t = t.reshape(-1, *[1] * (x.ndim - 1))
    a, s = Betas().alpha(t), Betas().sigma(t)
    noise = s * (x - 0.5 * a) / (0.16 * a**2 + s**2)
    return jnp.concatenate([noise, 0 * x], -1)


def test_a_ddpm_prior_with_the_exact_noise_samples_the_data():
  process = Process(Betas(), "noise", variance="learned")
  for sampler in (DDPM(100, "learned"), DPMSolver2M(30), Heun(100)):
    prior = FlowPrior(ExactNoise(), Steps(), 1.0, sampler=sampler, process=process)
    z = draw(prior, {}, None, (64, 64), count=4).z
    assert abs(z.mean() - 0.5) < 0.02 and abs(z.std() - 0.4) < 0.025
  loss = prior.apply({}, Latent(z=0.5 + 0.4 * normal(2000, 64)), None, train=False, method="loss", rngs={"prior": KEY})
  tau = np.arange(1, 1001) / 1000
  a, s = Betas().alpha(tau), Betas().sigma(tau)
  assert float(loss["flow"]) == pytest.approx(np.mean(0.16 * a**2 / (0.16 * a**2 + s**2)), rel=0.03)
  assert set(loss) == {"flow", "vlb"} and abs(float(loss["vlb"])) < 0.02
  single = prior.clone(backbone=Exact())
  with pytest.raises(UserError, match="set its `out` to 128"):
    single.apply({}, Latent(z=normal(2, 64)), None, train=False, method="loss", rngs={"prior": KEY})

"""What one step may change, and what it must not."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latents.data import batches
from latents.errors import UserError
from latents.frozen import Frozen
from latents.losses import L1, L2, Adversarial, Weight
from latents.nn.streams import streams
from latents.train import objective, stage2
from latents.train.build_step import abstract_autoencoder, build_step
from latents.train.sharding import place, place_batch
from tests import micro


def leaves_differ(a, b):
  return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def data(experiment, stage, count, start=0):
  found = []
  with batches(stage.data, split="train", batch=stage.batch, seed=experiment.seed, start=start) as stream:
    for _ in range(count):
      found.append(next(stream))
  return found


@pytest.fixture(scope="module", params=["kl", pytest.param("codes", marks=pytest.mark.slow)])
def trained(request):
  """An experiment, its stage-1 program, and the states before and after each of six steps."""
  made = micro.experiment(codes=request.param == "codes")
  program = build_step(made, 1, micro.one_device())
  state = program.init()
  states, logs = [jax.device_get(state)], []
  for batch in data(made, made.stage1, 6):
    state, scalars = program.step(state, {}, place_batch(batch, micro.BATCH, program.mesh))
    states.append(jax.device_get(state))
    logs.append(jax.device_get(scalars))
  return made, program, states, logs


def test_discriminator_waits_leads_and_then_both_train(trained):
  _, _, states, logs = trained
  for before, after, step in zip(states, states[1:], range(6), strict=False):
    assert leaves_differ(before.params["ae"], after.params["ae"])
    assert leaves_differ(before.params["disc"], after.params["disc"]) == (step >= 2)  # start 3, lead 1
  gates = [float(log["gan_gate"]) for log in logs]
  assert gates == [0.0, 0.0, 0.0, 0.5, 1.0, 1.0]  # start 3, ramp 2
  assert all(float(log["gan_adaptive"]) <= 10.0 for log in logs)
  assert float(logs[0]["disc"]) == 0.0 and float(logs[4]["disc"]) > 0.0


def test_before_its_start_the_gan_changes_nothing(trained):
  made, _, states, _ = trained
  bare = {k: v for k, v in made.stage1.losses.items() if k != "gan"}
  alone = dataclasses.replace(made, stage1=dataclasses.replace(made.stage1, losses=bare))
  program = build_step(alone, 1, micro.one_device())
  state = program.init()
  for batch in data(made, made.stage1, 3):
    state, _ = program.step(state, {}, place_batch(batch, micro.BATCH, program.mesh))
  for a, b in zip(jax.tree.leaves(state.params["ae"]), jax.tree.leaves(states[3].params["ae"]), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_generator_gradient_does_not_reach_the_discriminator_nor_the_reverse(trained):
  """With the other player's optimiser stopped, each player's parameters stay bitwise."""
  made, _, states, _ = trained
  for frozen, moving in (("ae", "disc"), ("disc", "ae")):
    stage = made.stage1
    gan = stage.losses["gan"]
    still = dataclasses.replace(stage.optimizer, lr=0.0)
    if frozen == "ae":
      stage = dataclasses.replace(stage, optimizer=still)
    else:
      stage = dataclasses.replace(stage, losses={**stage.losses, "gan": dataclasses.replace(gan, optimizer=still)})
    batch = {k: jnp.asarray(v) for k, v in data(made, stage, 1, start=5)[0].items()}
    after, _ = jax.jit(lambda s, b, stage=stage: micro.update(stage, s, {}, b))(states[5], batch)
    assert not leaves_differ(states[5].params[frozen], after.params[frozen])
    assert leaves_differ(states[5].params[moving], after.params[moving])


def test_adaptive_weight_is_the_ratio_of_gradients_at_the_last_kernel(trained):
  made, _, states, logs = trained
  state, batch = states[5], data(made, made.stage1, 1, start=5)[0]
  x = jnp.asarray(batch["x"], jnp.float32) / 127.5 - 1
  gan, model = made.stage1.losses["gan"], made.stage1.model
  key = jax.random.fold_in(jax.random.key(made.seed), state.step)

  def x_hat(params):
    variables = {"params": params, **state.extra["variables"]}
    out = model.apply(variables, x, train=True, rngs=streams(key), mutable=list(state.extra["variables"]))
    return out[0][1].x

  def rec(params):
    return jnp.mean((x - x_hat(params)) ** 2)

  def adv(params):
    logits = gan.discriminator.apply({"params": state.params["disc"]}, x_hat(params), train=True)
    return gan.generator(*logits.logits)

  norms = []
  for term in (rec, adv):
    grads = jax.jit(jax.grad(term))(state.params["ae"])
    norms.append(float(jnp.linalg.norm(grads["decoder"]["conv_out"]["kernel"])))
  wanted = min(norms[0] / (norms[1] + 1e-4), 10.0)
  assert float(logs[5]["gan_adaptive"]) == pytest.approx(wanted, rel=1e-3)

  # and the step's gradient is that of the whole sum with this ratio as a constant
  def total(params):
    variables = {"params": params, **state.extra["variables"]}
    latent, _ = model.apply(variables, x, train=True, rngs=streams(key), mutable=list(state.extra["variables"]))[0]
    strength = gan.weight * gan.gate(state.step) * wanted
    own = sum(made.stage1.losses[name].weight * term for name, term in latent.terms.items())
    return rec(params) + own + strength * adv(params)

  assert gan.gate(state.step) > 0
  value, grads = jax.jit(jax.value_and_grad(total))(state.params["ae"])
  assert float(logs[5]["total"]) == pytest.approx(float(value), rel=1e-3)
  assert float(logs[5]["grad_ae"]) == pytest.approx(float(optax.tree.norm(grads)), rel=1e-3)


@dataclasses.dataclass(frozen=True)
class Counted(L2):
  """L2 that notes each trace of itself."""

  calls: ClassVar[list[int]] = []

  def __call__(self, x, x_hat, *, aux=None):
    self.calls.append(1)
    return super().__call__(x, x_hat, aux=aux)


def test_a_loss_is_computed_once_a_step():
  """A perceptual network's pass is dear: the adaptive weight reads the same gradient as the update."""
  made = micro.experiment()
  stage = dataclasses.replace(made.stage1, losses={**made.stage1.losses, "l2": Counted()})
  program = build_step(dataclasses.replace(made, stage1=stage), 1, micro.one_device())
  Counted.calls.clear()
  jax.clear_caches()
  program.step.lower(program.state, program.frozen, program.batch)
  assert len(Counted.calls) == 1


@pytest.mark.slow
def test_adaptive_weight_costs_no_second_forward_pass():
  """The compiler drops all of the two extra pulls but the last layer's: no more than a few convolutions come."""
  count = {}
  for adaptive in (False, True):
    made = micro.experiment()
    gan = dataclasses.replace(made.stage1.losses["gan"], adaptive=adaptive)
    stage = dataclasses.replace(made.stage1, losses={**made.stage1.losses, "gan": gan})
    program = build_step(dataclasses.replace(made, stage1=stage), 1, micro.one_device())
    text = program.step.lower(program.state, program.frozen, program.batch).compile().as_text()
    count[adaptive] = text.count(" convolution(")
  assert 0 < count[False] <= count[True] <= count[False] + 8  # one forward pass has 34


def test_codebook_is_carried_in_extra_and_updated():
  made = micro.experiment(codes=True)
  program = build_step(made, 1, micro.one_device())
  state = program.init()
  before = jax.device_get(state.extra["variables"]["codebook"])
  state, logs = program.step(state, {}, place_batch(data(made, made.stage1, 1)[0], micro.BATCH, program.mesh))
  assert leaves_differ(before, jax.device_get(state.extra["variables"]["codebook"]))
  assert {"usage", "perplexity"} <= set(logs)


def test_nonfinite_update_is_skipped_and_counted(trained):
  made, program, states, _ = trained
  state = jax.device_put(states[4])
  poisoned = jax.tree.map(lambda a: a, state.params)
  kernel = poisoned["ae"]["decoder"]["conv_out"]["kernel"]
  poisoned["ae"]["decoder"]["conv_out"]["kernel"] = kernel.at[0].set(jnp.nan)
  bad = jax.device_get(state.replace(params=poisoned))
  batch = data(made, made.stage1, 1)[0]
  for count in (1, 2):
    after, logs = jax.jit(lambda s, b: micro.update(made.stage1, s, {}, b))(
      bad, {k: jnp.asarray(v) for k, v in batch.items()}
    )
    assert not np.isfinite(logs["total"])
    assert int(after.extra["skipped"]) == count and int(after.extra["skipped_total"]) == count
    assert int(after.step) == int(bad.step) + 1
    assert not leaves_differ(after.opt, bad.opt)
    bad = jax.device_get(after)
  mended = jax.device_put(bad.replace(params=states[4].params))
  good, _ = program.step(mended, {}, place_batch(batch, micro.BATCH, program.mesh))
  assert int(good.extra["skipped"]) == 0 and int(good.extra["skipped_total"]) == 2


def frozen_arrays(made):
  shapes = abstract_autoencoder(made)
  state = build_step(made, 1, micro.one_device()).init()
  variables = {"params": state.params["ae"], **state.extra["variables"]}
  return {"variables": variables, "mean": jnp.zeros(shapes["mean"].shape), "std": jnp.ones(shapes["std"].shape)}


@pytest.mark.parametrize("codes", [False, True])
def test_stage1_gradients_in_stage2_are_exactly_zero(codes):
  made = micro.experiment(codes=codes)
  arrays = frozen_arrays(made)
  batch = {k: jnp.asarray(v) for k, v in data(made, made.stage2, 1)[0].items()}
  state = jax.jit(lambda a, b: micro.first_state(made.stage2, a, b, made.stage1.model))(arrays, batch)

  def loss(arrays):
    latent = stage2.latents_of(made.stage2, Frozen(made.stage1.model), arrays, batch, jax.random.key(0))
    terms = made.stage2.prior.apply(
      {"params": state.params["prior"]},
      latent,
      {"label": batch["label"]},
      train=True,
      method="loss",
      rngs=streams(jax.random.key(1)),
    )
    return sum(terms.values())

  grads = jax.jit(jax.grad(loss, allow_int=True))(arrays)
  grads = [g for g in jax.tree.leaves(grads) if g.dtype != jax.dtypes.float0]
  assert grads and all(not np.any(np.asarray(g)) for g in grads)


def test_stage2_step_changes_the_prior_and_returns_no_stage1():
  made = micro.experiment()
  program = build_step(made, 2, micro.one_device())
  arrays = place(jax.device_get(frozen_arrays(made)), program.mesh)
  state = program.init()
  before = jax.device_get(state.params)
  state, logs = program.step(state, arrays, place_batch(data(made, made.stage2, 1)[0], micro.BATCH, program.mesh))
  assert set(state.params) == {"prior"} and leaves_differ(before, jax.device_get(state.params))
  assert set(logs) == {"total", "flow", "grad_prior"}


def test_terms_and_weights_must_match():
  losses = {"l1": L1(), "kl": Weight(1.0)}
  with pytest.raises(UserError, match="'commit' that no loss weighs"):
    objective.check_names({"l1": 0, "kl": 0, "commit": 0}, losses)
  with pytest.raises(UserError, match="'kl' weighs a term"):
    objective.check_names({"l1": 0}, losses)
  with pytest.raises(UserError, match="set adaptive=False"):
    objective.check_balance({"a": Adversarial(), "b": Adversarial()})
  with pytest.raises(UserError, match="cannot be named 'disc'"):
    objective.check_balance({"l1": L1(), "gan": Adversarial(), "disc": Adversarial()})
  assert [objective.group(name, Adversarial()) for name in ("gan", "a")] == ["disc", "a"]


def test_total_is_weighted_and_starts_on_time():
  losses = {"l1": L1(weight=2.0), "late": Weight(3.0, start=5)}
  terms = {"l1": jnp.float32(1.5), "late": jnp.float32(10.0)}
  assert float(objective.total(terms, losses, jnp.int32(4))) == 3.0
  assert float(objective.total(terms, losses, jnp.int32(5))) == 33.0

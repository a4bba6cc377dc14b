"""The weights' average and the guard, in numbers; names of leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latents.train.state import average, flatten, fresh, guard, nest, unflatten

KEPT = [(0, 0.999, 0.1), (8, 0.999, 0.5), (8, 0.4, 0.4), (10**6, 0.99, 0.99)]


@pytest.mark.parametrize(("step", "rate", "kept"), KEPT)
def test_the_average_keeps_its_rate_but_less_at_first(step, rate, kept):
  before = {"params": {"w": jnp.float32(10)}, "codebook": {"size": jnp.float32(20), "used": jnp.int32(3)}}
  now = {"codebook": {"size": jnp.float32(0), "used": jnp.int32(7)}}
  after = average(before, {"w": jnp.float32(0)}, now, rate, jnp.int32(step))
  np.testing.assert_allclose(after["params"]["w"], 10 * kept, rtol=1e-6)
  np.testing.assert_allclose(after["codebook"]["size"], 20 * kept, rtol=1e-6)
  assert after["codebook"]["used"] == 7  # no float: taken as it is


def test_no_rate_is_no_average():
  assert average({"params": jnp.float32(10)}, jnp.float32(3), {}, 0, jnp.int32(0))["params"] == 3


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_the_guard_keeps_the_old_state_one_step_on_and_counts(platform, monkeypatch):
  """In place on a CPU, by a choice elsewhere: the same state."""
  pick = {"cpu": "cpu", "tpu": "default"}[platform]
  monkeypatch.setattr(jax.lax, "platform_dependent", lambda *given, **ways: ways[pick](*given))
  old = fresh({"ae": jnp.float32(1)}, {"ae": jnp.float32(2)}, "ae", {"codebook": jnp.float32(3)})
  codebook = {"variables": {"codebook": jnp.float32(4)}}

  def move(state, grads):
    return state.replace(params={"ae": state.params["ae"] - grads}, extra={**state.extra, **codebook})

  once = jax.jit(guard, static_argnums=1)(jnp.array(False), move, old, jnp.float32(np.nan))
  assert (once.step, once.params["ae"], once.extra["variables"]["codebook"]) == (1, 1, 3)
  assert (once.extra["skipped"], once.extra["skipped_total"]) == (1, 1)
  twice = guard(jnp.array(False), move, once, jnp.float32(np.nan))
  assert (twice.step, twice.extra["skipped"], twice.extra["skipped_total"]) == (2, 2, 2)
  after = guard(jnp.array(True), move, twice, jnp.float32(-4))
  assert (after.step, after.params["ae"], after.extra["skipped"], after.extra["skipped_total"]) == (3, 5, 0, 2)
  assert after.extra["variables"]["codebook"] == 4


def test_leaves_have_names_and_come_back():
  params = {"a": {"b": np.arange(3)}, "c": np.ones(2)}
  tree = {"params": params, "opt": optax.adam(1e-3).init(params)}
  flat = flatten(tree)
  assert {"params/a/b", "params/c", "opt/0/mu/a/b", "opt/0/count"} <= set(flat)
  again = unflatten(tree, flat)
  assert flatten(again).keys() == flat.keys() and all(flatten(again)[k] is flat[k] for k in flat)
  with pytest.raises(KeyError, match="params/c"):
    unflatten(tree, {k: v for k, v in flat.items() if k != "params/c"})
  assert nest({"a/b": 1, "a/c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}

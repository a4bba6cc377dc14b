"""The step of both stages: one pass of a model, cut where the losses begin; the gradients meet there and go back."""

import dataclasses
import functools
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from latents.declare import Stage1, Stage2
from latents.errors import UserError, nearest
from latents.losses import Loss, Rival
from latents.losses.balancer import Rule
from latents.train import objective, partition
from latents.train.accumulate import accumulate
from latents.train.state import State, average, average_by, descend, fresh, guard
from latents.types import Array, Batch, Seen, Terms

Tree = Any
HELD_OUT = 2**31 - 4  # the key of what is drawn for held-out losses, beside every step's
SETTINGS = ("_gate", "_adaptive", "_balance")  # ends of the names of scalars that say how terms were weighed
Frozen = dict[str, Any]  # {"losses": by the loss's name, "fixed": untrained variables, what the pass itself needs}


@dataclasses.dataclass(frozen=True)
class Passing:
  """How a stage's model makes a pass.

  group: its name among the trained networks. run(variables, frozen, batch, key, **options of linen's apply) -> (terms
  of its own, {"x_hat", "z"} as far as gradients come back to them, the rest of `Seen`, logs, variables that changed).
  first(key, frozen, batch) -> its first variables. last(where) -> path of a kernel for adaptive weights. apart: what is
  drawn once is drawn from fold_in(key(seed), apart), apart from every step and from the other stage.
  """

  group: str
  apart: int
  run: Callable[..., tuple[dict, dict, Seen, dict, dict]]
  first: Callable[[Array, Frozen, Batch], dict[str, Tree]]
  last: Callable[[str], tuple[str, ...]]

  def key(self, seed: int) -> Array:
    """Of what is drawn once, before the first step."""
    return jax.random.fold_in(jax.random.key(seed), self.apart)


def init(
  passing: Passing, stage: Stage1 | Stage2, seed: int, frozen: Frozen, batch: Batch, start: Tree = None
) -> State:
  """State at step 0. The batch gives shapes alone; under jit its forward pass is never run.

  start: {"model": variables that the model begins with in place of random ones, "losses": the same by loss}.
  """
  start, key = start or {}, passing.key(seed)
  made = partition.merge(passing.first(key, frozen, batch), start.get("model", {}))
  moving, fixed = partition.split(made, stage.trained)
  params = {passing.group: moving.pop("params", {})}
  opt = {passing.group: stage.optimizer.make(stage.steps).init(params[passing.group])}
  states: dict[str, Tree] = {}
  found = objective.measured(stage.losses)
  if found:
    whole = {**frozen, "fixed": fixed}
    _, out, rest, _, _ = forward(
      passing, stage, params[passing.group], moving, whole, batch, key, jnp.zeros((), jnp.int32)
    )
  for name, loss in found.items():
    own = loss.init(jax.random.fold_in(key, 2), rest.replace(**out), aux=frozen.get("losses", {}).get(name))
    own = partition.merge(own, start.get("losses", {}).get(name, {}))
    if own:
      group = objective.group(name, loss)
      params[group] = own.pop("params", {})
      opt[group] = (loss.optimizer_of or stage.optimizer).make(loss.updates(stage.steps)).init(params[group])
      states |= {name: own} if own else {}
  if (balancer := _balancer(stage)) and found:
    states["balancer"] = balancer.init(list(found))
  state = fresh(params, opt, passing.group, moving, stage.averages)
  return state.replace(extra={**state.extra, "losses": states})


def step(
  passing: Passing, stage: Stage1 | Stage2, seed: int, state: State, frozen: Frozen, batch: Batch
) -> tuple[State, dict]:
  """One update of the model and of the networks that its losses own; returns the new state and scalars by name.

  A rival sees a stop_gradient of the pass; each side changes its own params only.
  """
  key = jax.random.fold_in(jax.random.key(seed), state.step)
  find = functools.partial(gradients, passing, stage, state, frozen)
  carried = {"model": state.extra["variables"], "losses": state.extra["losses"]}
  (grads, logs), carried = accumulate(find, carried, batch, stage.microbatches, key)
  norms = {name: optax.tree.norm(of) for name, of in grads.items()}
  finite = jnp.isfinite(logs["total"]) & jnp.isfinite(sum(norms.values()))
  new = guard(finite, functools.partial(_move, passing, stage), state, grads, carried)
  return new, logs | {f"grad_{name}": norm for name, norm in norms.items()}


def _move(passing: Passing, stage: Stage1 | Stage2, state: State, grads: dict[str, Tree], carried: dict) -> State:
  """The state after an update, but for its step."""
  params, opt = _descend(passing, stage, state, grads)
  ema = average(state.ema, params[passing.group], carried["model"], stage.ema, state.step)
  averages = {
    name: average_by(state.averages[name], params[passing.group], carried["model"], of.keep(state.step))
    for name, of in stage.averages.items()
  }
  extra = {**state.extra, "variables": carried["model"], "losses": carried["losses"]}
  return state.replace(params=params, opt=opt, ema=ema, extra=extra, averages=averages)


def held_out(
  passing: Passing, stage: Stage1 | Stage2, seed: int, state: State, frozen: Frozen, batch: Batch
) -> dict[str, Array]:
  """The objective and its terms as `step` would log them of a batch, with what is random drawn alike each time.

  Of the parameters as they are, not their average, so that it stands beside the training's own. Nothing is changed.
  """
  carried = {"model": state.extra["variables"], "losses": state.extra["losses"]}

  def find(variables: dict, part: Batch, key: Array) -> tuple[dict, dict]:
    (_, logs), _ = gradients(passing, stage, state, frozen, variables, part, key)  # the compiler drops the gradients
    return {name: value for name, value in logs.items() if not name.endswith(SETTINGS)}, variables

  key = jax.random.fold_in(jax.random.key(seed), HELD_OUT)
  return accumulate(find, carried, batch, stage.microbatches, key)[0]


def _descend(passing: Passing, stage: Stage1 | Stage2, state: State, grads: dict[str, Tree]) -> tuple[dict, dict]:
  params, opt, me = dict(state.params), dict(state.opt), passing.group
  params[me], opt[me] = descend(stage.optimizer, stage.steps, grads[me], opt[me], params[me])
  for name, loss in objective.measured(stage.losses).items():
    group = objective.group(name, loss)
    if group in grads:
      move = functools.partial(descend, loss.optimizer_of or stage.optimizer, loss.updates(stage.steps))
      gate = loss.learn_gate(state.step) if isinstance(loss, Rival) else loss.gate(state.step)
      wait = lambda _, opt, params: (params, opt)  # noqa: E731
      params[group], opt[group] = jax.lax.cond(gate > 0, move, wait, grads[group], opt[group], params[group])
  return params, opt


def forward(
  passing: Passing, stage: Stage1 | Stage2, params: Tree, variables: dict, frozen: Frozen, batch: Batch, key: Array,
  number: Array,
) -> tuple[dict, dict, Seen, dict, dict]:  # fmt: skip
  """One training pass: (own terms, what gradients come back to, the rest of `Seen`, logs, variables after it)."""
  reads = objective.reads(stage.losses)
  options: dict[str, Any] = {"mutable": [*variables, *(["intermediates"] if reads else [])]}
  if reads:
    options["capture_intermediates"] = lambda module, _: "/".join(module.path) in reads
  everything = partition.merge({"params": params, **variables}, frozen.get("fixed", {}))
  own, out, rest, logs, changed = passing.run(everything, frozen, batch, key, **options)
  taps = _taps(changed.pop("intermediates", {}), reads)
  kept = partition.select(changed, stage.trained)
  return own, {**out, "taps": taps}, rest.replace(step=number), logs, {**variables, **kept}


def _taps(tree: Tree, reads: frozenset[str]) -> dict[str, Array]:
  """What was captured or sown, by the path of the part; of several calls the last."""
  flat: dict[str, Any] = {"/".join(path): v for path, v in traverse_util.flatten_dict(tree).items()}
  flat = {path: value[-1] for path, value in flat.items()}
  found = {}
  for path in sorted(reads):
    there = [v for name, v in flat.items() if name == path or name.rpartition("/")[0] == path]
    if not there:
      raise UserError(f"a loss reads '{path}', which the model has not{nearest(path, flat)}")
    found[path] = there[-1]
  return found


class _Cut:
  """A pass, cut where the losses begin. own: the model's terms; out: what gradients come back to; `back`: the way."""

  def __init__(self, run: Callable[[Tree], tuple], params: Tree, last: Callable[[str], tuple[str, ...]]):
    (self.own, self.out), self._linear, self.rest = jax.linearize(run, params, has_aux=True)
    self._params, self._last = params, last
    self._pull = jax.linear_transpose(self._linear, params)

  def back(self, own: Tree, out: Tree) -> Tree:
    """Cotangents of the model's terms and of the outputs -> the gradient of its parameters."""
    # Pushes are summed in float32; a tap may be less.
    out = jax.tree.map(lambda push, seen: push.astype(seen.dtype), out, self.out)
    return self._pull((own, out))[0]

  def kernel(self, where: str, push: Tree, through_z: bool = False) -> Array:
    """The gradient of a push at the last kernel of the encoder or decoder (Esser et al. 2020, eq. 7).

    All else that is pulled back is dead code to the compiler: no second forward pass; for the decoder, a backward pass
    through one layer. through_z: the push has z alone; no zeros are sent back through the decoder.
    """
    if through_z:
      (found,) = jax.linear_transpose(lambda p: self._linear(p)[1]["z"], self._params)(push["z"])
    else:
      found = self.back(jax.tree.map(jnp.zeros_like, self.own), push)
    flat: dict[tuple[str, ...], Array] = traverse_util.flatten_dict(found)
    if (path := self._last(where)) not in flat:
      raise UserError(f"an adaptive weight is measured at {'/'.join(path)}, which is not trained here")
    return flat[path]


def gradients(
  passing: Passing, stage: Stage1 | Stage2, state: State, frozen: Frozen, carried: dict, batch: Batch, key: Array
) -> tuple[tuple[dict, dict], dict]:
  """((gradients by trained network, scalars to log), the variables that are carried on).

  Every network behind a loss is differentiated once, at the cut; the gradients meet there and go back together.
  """
  balancer = _balancer(stage)
  objective.check_balance(stage.losses, balancer)

  def run(params: Tree) -> tuple[tuple, tuple]:
    own, out, *rest = forward(passing, stage, params, carried["model"], frozen, batch, key, state.step)
    return (own, out), tuple(rest)

  cut = _Cut(run, state.params[passing.group], passing.last)
  seen, logs, changed = cut.rest
  losses = stage.weighed(cut.own)
  objective.check_names({**cut.own, **objective.measured(losses)}, losses)
  value, push_own = jax.value_and_grad(lambda own: objective.total(own, losses, state.step))(cut.own)
  terms, grads, states = dict(cut.own), {}, dict(carried["losses"])
  pushes, strengths = {}, {}
  push = reference = jax.tree.map(jnp.zeros_like, cut.out)
  for name, loss in objective.measured(losses).items():
    group, gate = objective.group(name, loss), loss.gate(state.step)
    params, held = state.params.get(group, {}), states.get(name, {})
    told = {"aux": frozen.get("losses", {}).get(name), "key": jax.random.fold_in(key, zlib.crc32(name.encode()))}
    find = functools.partial(_push, cut, seen, loss, reference, held, told)
    terms[name], found, ratio, term = _when(gate, find, cut.out, params) if loss.waits else find(cut.out, params)
    strength = loss.weight * gate
    value = value + strength * terms[name]
    if balancer:
      pushes[name], strengths[name] = found[0]["x_hat"], strength
      found = ({**found[0], "x_hat": jnp.zeros_like(found[0]["x_hat"])}, *found[1:])
    push = jax.tree.map(lambda a, g, s=strength: a + s * g, push, found[0])
    reference = push if loss.reference else reference
    logs = _with(logs, name, term.logs) | ({f"{name}_adaptive": ratio} if loss.at else {})
    gates = gate
    if isinstance(loss, Rival):
      grads[group], term = _learn(loss, state.step, seen.replace(**jax.lax.stop_gradient(cut.out)), params, held, told)
      logs, gates = _with(logs | {f"{name}_gate": gate}, name, term.logs), loss.learn_gate(state.step)
    elif params:
      grads[group] = jax.tree.map(lambda g, s=strength: s * g, found[1])
    if term.state:  # of a loss that waits: zeros
      states[name] = jax.tree.map(lambda new, old, g=gates: jnp.where(g > 0, new, old), dict(term.state), held)
  if balancer and pushes:
    balanced, states["balancer"], factors = balancer(pushes, strengths, states["balancer"])
    push = {**push, "x_hat": balanced}
    logs = logs | {f"{name}_balance": factor for name, factor in factors.items()}
  grads[passing.group] = cut.back(push_own, push)
  return (grads, {**logs, "total": value, **terms}), {"model": changed, "losses": states}


def _balancer(stage: Stage1 | Stage2) -> Rule | None:
  return stage.balancer if isinstance(stage, Stage1) else None


def _with(logs: dict, name: str, more: Terms) -> dict:
  """Logs and those of a loss; what another loss has said under the same name is said under this loss's."""
  return logs | {(f"{name}_{key}" if key in logs else key): value for key, value in more.items()}


def _push(
  cut: _Cut, seen: Seen, loss: Loss, reference: Tree, held: Tree, told: dict, out: Tree, params: Tree
) -> tuple[Array, tuple, Array, Any]:
  """What a loss makes of a pass, times its adaptive weight: (its value, its gradients at the cut and, unless it is a
  rival, at its own network, that weight, its term). reference: the push of the losses that weight compares with."""

  def measure(out: Tree, params: Tree) -> tuple[Array, Any]:
    term = loss.measure(seen.replace(**out), {"params": params, **held}, **told)
    return term.value, term

  rival = isinstance(loss, Rival)
  (value, term), found = jax.value_and_grad(measure, (0,) if rival else (0, 1), has_aux=True)(out, params)
  if not loss.at:
    return value, found, jnp.ones(()), term
  ratio = loss.adaptive_weight(
    cut.kernel(loss.at, reference), cut.kernel(loss.at, found[0], through_z=loss.at == "encoder")
  )
  return value * ratio, jax.tree.map(lambda g: g * ratio, found), ratio, term


def _learn(loss: Rival, number: Array, seen: Seen, params: Tree, held: Tree, told: dict) -> tuple[Tree, Any]:
  """The gradient of a rival's own objective (zero before its start), and its term."""

  def one(params: Tree) -> tuple[Array, Any]:
    term = loss.learn(seen, {"params": params, **held}, **told)
    return term.value, term

  return _when(loss.learn_gate(number), jax.grad(one, has_aux=True), params)


def _when(gate: Array, function: Callable, *args: Any) -> Any:
  """function(*args) where gate > 0, else zeros of its shapes."""
  shapes = jax.eval_shape(function, *args)
  rest = lambda *_: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)  # noqa: E731
  return jax.lax.cond(gate > 0, function, rest, *args)

"""FLOPs of a program from its jaxpr: matrix products and convolutions, each multiply-add as two.

The compiler's own count is no use here: it counts the body of a loop once. Elementwise work is left out, as
is usual. What the result does not depend on is left out too: the step asks for some gradients of which it
uses one layer.
"""

import math
from collections import Counter
from typing import Any

import jax
import numpy as np

Flops = Counter  # dtype of the factors -> FLOPs; "while" -> number of loops whose length is not known

CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def count(closed: Any) -> Flops:
  """FLOPs of a jax.extend.core.ClosedJaxpr by the dtype of the factors.

  scan: body times length; cond: its dearest branch; while: body once, and "while" says how many there were.
  """
  jaxpr = closed.jaxpr
  return _jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]


def of_step(program: Any) -> int:
  """FLOPs of one step of a `train.build_step.Program`, forward and backward, over the global batch; the trace is kept
  for the step itself."""
  with jax.set_mesh(program.mesh):
    counted = count(program.step.function.trace(program.state, program.frozen, program.batch).jaxpr)
  return sum(number for dtype, number in counted.items() if dtype != "while")


def _jaxpr(jaxpr: Any, wanted: list[bool]) -> tuple[Flops, list[bool]]:
  """FLOPs that the wanted results need, and which arguments they need."""
  needed = {v for v, w in zip(jaxpr.outvars, wanted, strict=True) if w and not hasattr(v, "val")}
  total: Flops = Counter()
  for eqn in reversed(jaxpr.eqns):
    alive = [v in needed for v in eqn.outvars]
    if not any(alive) and not eqn.effects:
      continue
    flops, used = _equation(eqn, alive)
    total += flops
    needed |= {v for v, u in zip(eqn.invars, used, strict=True) if u and not hasattr(v, "val")}
  return total, [v in needed for v in jaxpr.invars]


def _equation(eqn: Any, alive: list[bool]) -> tuple[Flops, list[bool]]:
  name, everything = eqn.primitive.name, [True] * len(eqn.invars)
  if name == "dot_general":
    return Counter({_dtype(eqn): _dot(eqn)}), everything
  if name == "conv_general_dilated":
    return Counter({_dtype(eqn): _convolution(eqn)}), everything
  if name == "cond":
    branches = [_jaxpr(b.jaxpr, alive) for b in eqn.params["branches"]]
    used = [any(u) for u in zip(*(used for _, used in branches), strict=True)]
    return max((f for f, _ in branches), key=lambda f: sum(f.values())), [True, *used]
  if name == "scan":
    return _scan(eqn, alive)
  if name == "while":
    body = _whole(eqn.params["body_jaxpr"]) + _whole(eqn.params["cond_jaxpr"])
    return body + Counter({"while": 1}) if body else body, everything
  inner = next((eqn.params[k] for k in CALLS if k in eqn.params), None)
  if inner is None:
    return Counter(), everything
  inner = getattr(inner, "jaxpr", inner)
  copies = _copies(eqn)
  if len(inner.invars) != len(eqn.invars) or len(inner.outvars) != len(alive):
    return _times(_jaxpr(inner, [True] * len(inner.outvars))[0], copies), everything
  flops, used = _jaxpr(inner, alive)
  return _times(flops, copies), used


def _scan(eqn: Any, alive: list[bool]) -> tuple[Flops, list[bool]]:
  """What is carried has one shape inside and outside; what is stacked has the length more: no name of jax is read."""
  inner = eqn.params["jaxpr"].jaxpr
  pairs = zip(eqn.outvars, inner.outvars, alive, strict=True)
  flops, _ = _jaxpr(inner, [a or len(v.aval.shape) == len(one.aval.shape) for v, one, a in pairs])
  return _times(flops, eqn.params["length"]), [True] * len(eqn.invars)


def _whole(closed: Any) -> Flops:
  return _jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))[0]


def _copies(eqn: Any) -> int:
  """shard_map's body is one device's share: times the devices."""
  if eqn.primitive.name != "shard_map":
    return 1
  return math.prod(eqn.params["mesh"].shape[a] for a in eqn.params["manual_axes"])


def _times(flops: Flops, n: int) -> Flops:
  return Counter({k: v if k == "while" else v * n for k, v in flops.items()})


def _dtype(eqn: Any) -> str:
  return str(max((v.aval.dtype for v in eqn.invars[:2]), key=lambda d: d.itemsize))


def _dot(eqn: Any) -> int:
  contracted = eqn.params["dimension_numbers"][0][0]
  shape = eqn.invars[0].aval.shape
  return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)


def _convolution(eqn: Any) -> int:
  """Products of two real elements: zeros that padding and dilation put in are not work.

  So forward, input gradient and weight gradient of one layer count the same.
  """
  p, (lhs, rhs) = eqn.params, (v.aval.shape for v in eqn.invars)
  out, numbers = eqn.outvars[0].aval.shape, eqn.params["dimension_numbers"]
  taps = 1
  for axis, (pad, stride, lhs_dilation, rhs_dilation) in enumerate(
    zip(p["padding"], p["window_strides"], p["lhs_dilation"], p["rhs_dilation"], strict=True)
  ):
    size, kernel = lhs[numbers.lhs_spec[2 + axis]], rhs[numbers.rhs_spec[2 + axis]]
    place = np.add.outer(np.arange(out[numbers.out_spec[2 + axis]]) * stride - pad[0], np.arange(kernel) * rhs_dilation)
    real = (place >= 0) & (place <= (size - 1) * lhs_dilation) & (place % lhs_dilation == 0)
    taps *= int(real.sum())
  batch, features = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
  return 2 * batch * features * rhs[numbers.rhs_spec[1]] * taps

"""The prior's loss on held-out latents: the number by which priors on the same latents compare."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from latents.evaluate.sums import add, sum_kept, total, zeros
from latents.machine import hosts, progress
from latents.nn.streams import streams
from latents.priors.base import LEVELS
from latents.recodes import latent as merged
from latents.train.stage2 import condition
from latents.types import Array, Latent, to_signal
from latents.use import baselines, held_out, measures, recoded
from latents.use.model import Model

LEVEL = "data_error_at_"  # and a log-SNR: what `Prior.levels` gives
KEY = 2**31 - 3  # of times and noise: the same for every run


def measure(model: Model) -> dict[str, float]:
  """{term: mean over the held-out examples, "images": their number}; of a likelihood also its nats and bits, of a
  denoiser its error at fixed noise levels (`Prior.levels`), and beside bits of codes what counting gives
  (`baselines.measure`).

  Latents are modes and nothing is dropped out (`train=False`); times and noise are drawn as in training, by a fixed key
  and the number of the example: the same for every run, whatever the batch or the mesh. Each example is a batch of its
  own. nats_per_element, bits_per_element: of one code, or of one number of the normalised latent (a density);
  bits_per_example: of all of them; bits_per_dim: of one number of its signal. Of merged tokens: the likelihood is that
  of the one way in which a recode merges an example, END included, so at most that of its codes, and is counted per
  code as that of any prior on the same codes; how much shorter they are stands beside it (`Fitted.shortening`).
  """
  experiment, mesh = model.experiment, model.mesh
  stage, source = experiment.stage2, held_out.rows(experiment)
  assert stage is not None
  prior: Any = stage.prior

  def each(variables: Any, latent: Latent, cond: Any, key: Array) -> dict[str, Array]:
    latent, cond = jax.tree.map(lambda a: a[None], (latent, cond))
    found = dict(prior.apply(variables, latent, cond, train=False, method="loss", rngs=streams(key)))
    found |= prior.apply(variables, latent, cond, method="levels", rngs=streams(key))
    if prior.likelihood:
      found["nats"] = prior.apply(variables, latent, cond, method="nll", rngs=streams(key))[0]
    return found

  def terms(arrays: Any, variables: Any, x: Any, cond: Any, index: Array) -> dict[str, Array]:
    if fitted is not None:
      latent = merged(*x)
    else:
      latent = model.frozen.encode(arrays, to_signal(x), key=jax.random.key(0), train=False)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(KEY), i))(index)
    return jax.vmap(each, (None, 0, 0, 0))(variables, latent.replace(terms={}, logs={}), cond, keys)

  def update(arrays: Any, variables: Any, acc: dict, x: Any, cond: Any, index: Array, mask: Array) -> dict:
    values = terms(arrays, variables, x, cond, index) | {"images": jnp.ones(mask.shape)}
    return {name: add(acc[name], sum_kept(value, mask)) for name, value in values.items()}

  fitted, codes, tokens = model.fitted, [], []
  encode = recoded.encoder(experiment, mesh)
  run, acc, number = held_out.accumulator(mesh, update), None, 0
  there = min(len(measures.held_out(experiment).records("test")), experiment.evaluation.images)
  for batch in progress.over(source, "held-out loss", there, lambda batch: int(batch["mask"].sum())):
    x, cond, mask = batch["x"], condition(stage, batch), batch["mask"]
    if fitted is not None:
      codes.append(encode(model.arrays, x)[mask])
      rows = np.zeros((len(mask), fitted.recode.length), np.int32)
      rows[mask] = fitted.merge(codes[-1])
      tokens.append(rows[mask])
      x = rows, fitted.places(rows)
    given = held_out.placed(mesh, x, cond, np.arange(number, number + len(mask)), mask)
    if acc is None:
      names = jax.eval_shape(terms, model.arrays, model.prior, *given[:-1])
      acc = held_out.copied({name: zeros() for name in (*names, "images")}, mesh)
    acc, number = run(model.arrays, model.prior, acc, *given), number + len(mask)
  sums = {name: float(total(a)) for name, a in hosts.gather(acc).items()}
  count = sums.pop("images")
  order = [*(n for n in sums if not n.startswith(LEVEL)), *(n for at in LEVELS if (n := f"{LEVEL}{at}") in sums)]
  means = {name: sums[name] / count for name in order}
  found = _bits(means, model) | baselines.measure(model) | {"images": int(count)}
  return found if fitted is None else found | fitted.shortening(np.concatenate(codes), np.concatenate(tokens))


def _bits(means: dict[str, float], model: Model) -> dict[str, float]:
  """The nats of an example, where they are known, as people compare them."""
  nats = means.pop("nats", None)
  if nats is None:
    return means
  signal, bits = measures.held_out(model.experiment).shape, nats / math.log(2)
  elements = math.prod(model.sampler.shape if model.fitted is None else model.fitted.grid)
  return means | {
    "nats_per_element": nats / elements,
    "bits_per_element": bits / elements,
    "bits_per_example": bits,
    "bits_per_dim": bits / math.prod(signal),
  }

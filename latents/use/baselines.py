"""What counting tells of held-out codes: a prior that has learned anything needs fewer bits."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from latents.evaluate import Layout
from latents.use import held_out, measures
from latents.use.model import Model

EXAMPLES, TOKENS = 4096, 2**23  # of the training set, a fixed choice, are counted at most
DENSE = 2**24  # kinds of pairs that are counted in a table
Codes = tuple[np.ndarray, np.ndarray]  # tokens [N,L], and which of them are kept [N,L]


def measure(model: Model) -> dict[str, float]:
  """{"marginal_bits_per_element", "first_order_bits_per_element", the same "per_dim", "counted_examples"} of the
  held-out codes of a run whose prior gives a likelihood of codes; {} for another.

  Two models that are counts over `counted_examples` of the training set, encoded as the prior's held-out ones are (no
  mirror images, no random crops). The units are those of `prior_loss.measure`; codes that a recode merges are counted
  as the codes that they are.
  """
  stage, experiment = model.experiment.stage2, model.experiment
  assert stage is not None
  if not (stage.prior.discrete and stage.prior.likelihood):
    return {}
  layout = measures.layout(experiment, model.arrays)
  elements, signal = math.prod(layout.shape), math.prod(layout.signal)
  train = list(_codes(model, "train", max(min(EXAMPLES, TOKENS // elements), 1)))
  made = Baselines([np.concatenate(parts) for parts in zip(*train, strict=True)], *kinds(layout))
  sums, examples = np.zeros(2), 0
  for codes in _codes(model, "test", experiment.evaluation.images):
    sums += made.bits(codes)
    examples += len(codes[0])
  found: dict[str, float] = {}
  for name, bits in zip(("marginal", "first_order"), (sums / examples).tolist(), strict=True):
    found |= {f"{name}_bits_per_element": bits / elements, f"{name}_bits_per_dim": bits / signal}
  return found | {"counted_examples": sum(len(tokens) for tokens, _ in train)}


def _codes(model: Model, split: Any, limit: int) -> Iterator[Codes]:
  """The codes of a split as a prior sees them, in batches without padding; the same on every process."""
  for batch in held_out.rows(model.experiment, split, limit):
    latent = model.encode(batch["x"])
    tokens = np.asarray(latent.codes)[batch["mask"]]
    tokens, kept = tokens.reshape(len(tokens), -1), np.ones((len(tokens), 1), bool)
    if latent.mask is not None:
      kept = np.asarray(latent.mask)[batch["mask"]].reshape(len(tokens), -1)
    yield tokens, np.repeat(kept, tokens.shape[1] // kept.shape[1], 1)


def kinds(layout: Layout) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
  """([L] the group or grid of each token, [L] the number of the token of the same one before it (-1: none), codes of
  each)."""
  count, several = math.prod(layout.shape), len(layout.vocab)
  number = np.arange(count)
  if layout.sizes:
    kind = np.repeat(np.arange(several), layout.sizes)
    return kind, np.where(np.diff(kind, prepend=-1), -1, number - 1), layout.vocab
  return number % several, np.maximum(number - several, -1), layout.vocab


class Baselines:
  """codes, kind [L], before [L], vocab (of each kind) -> a marginal and a first-order model of such codes.

  Marginal: one histogram a position. First order: one a kind and value of the token of the same kind before it; the
  first token of a kind, and one behind a token that is not kept, has its marginal. All are drawn towards the histogram
  of the whole kind, which is itself drawn towards equal chances, by as many further observations as a histogram has
  seen different tokens (Witten and Bell 1991: no number to choose): p(v) = (n(v) + T q(v)) / (n + T).
  """

  def __init__(self, codes: Any, kind: np.ndarray, before: np.ndarray, vocab: tuple[int, ...]):
    self.kind, self.before, self.width = kind, before, max(vocab)
    tokens, kept = codes
    kinds = np.broadcast_to(kind, tokens.shape)
    even = 1 / np.asarray(vocab, np.float64)
    whole = Counts(kinds[kept], tokens[kept], self.width)
    every = np.repeat(np.arange(len(vocab)), self.width), np.tile(np.arange(self.width), len(vocab))
    self.whole = whole.chances(*every, even[every[0]]).reshape(len(vocab), self.width)
    places = np.broadcast_to(np.arange(len(kind)), tokens.shape)
    self.places = Counts(places[kept], tokens[kept], self.width)
    context, led = self._contexts(codes)
    self.pairs = Counts(context[led], tokens[led], self.width)

  def _contexts(self, codes: Codes) -> Codes:
    """([N,L] the kind and value of the token before each, as one number; where there is one)."""
    tokens, kept = codes
    context = self.kind.astype(np.int64) * self.width + tokens[:, self.before]
    return context, kept & kept[:, self.before] & (self.before >= 0)

  def bits(self, codes: Codes) -> np.ndarray:
    """[2]: bits of all kept tokens by the marginal, and by the first-order model."""
    tokens, kept = codes
    below = self.whole[self.kind, tokens]
    place = np.broadcast_to(np.arange(len(self.kind)), tokens.shape)
    marginal = self.places.chances(place, tokens, below)
    context, led = self._contexts(codes)
    first_order = np.where(led, self.pairs.chances(context, tokens, below), marginal)
    return -np.asarray([np.log2(chances[kept]).sum() for chances in (marginal, first_order)])


class Counts:
  """How often each token [M] in 0..width-1 was seen in its context [M]; only what was seen takes memory."""

  def __init__(self, context: np.ndarray, token: np.ndarray, width: int):
    self.width = width
    self.pairs, self.seen = tally(context.astype(np.int64) * width + token)
    self.contexts, first = np.unique(self.pairs // width, return_index=True)
    edges = np.append(first, len(self.pairs))
    self.different = np.diff(edges)
    self.total = np.add.reduceat(np.append(self.seen, 0), edges)[:-1] if len(first) else self.different

  def chances(self, context: np.ndarray, token: np.ndarray, below: np.ndarray) -> np.ndarray:
    """[...] of tokens in contexts: (n(token) + T below) / (n + T); `below` [...] where the context was never seen."""
    seen = found(self.pairs, self.seen, context.astype(np.int64) * self.width + token)
    different, total = (found(self.contexts, a, context) for a in (self.different, self.total))
    return np.where(total > 0, (seen + different * below) / np.maximum(total + different, 1), below)


def tally(keys: np.ndarray) -> Codes:
  """Whole numbers of at least 0 -> (those that occur, in order; how often each does)."""
  if keys.size and keys.max() < DENSE:
    counts = np.bincount(keys)
    there = np.flatnonzero(counts)
    return there, counts[there]
  return np.unique(keys, return_counts=True)


def found(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
  """The values that stand under the wanted ones of ordered keys, 0 where there is none."""
  if not len(keys):
    return np.zeros(wanted.shape, np.int64)
  at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
  return np.where(keys[at] == wanted, values[at], 0)

"""A fixed choice of some of many, for what is measured on less than all."""

import numpy as np

SEED = 0x63686F696365


def choice(count: int, number: int) -> np.ndarray:
  """int64 [min(number, count)], all different, in 0..count-1: where `number` is below `count` the begin of one shuffled
  order, else all in their own order.

  Sources are often sorted by class, so that the first ones are of one class. A smaller choice is the begin of a larger.
  """
  if number >= count:
    return np.arange(count)
  return np.random.Generator(np.random.Philox(key=[SEED, count])).permutation(count)[:number]

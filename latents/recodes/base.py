"""The contract of a recode, what all of them share, and a recode with its table."""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from latents.errors import UserError
from latents.types import Array, Latent

END = 0  # the token that says that an example is over; merged tokens are 1, 2, ...
State = Any


class Walk(NamedTuple):
  """How tokens find their places as they come, inside jit: start(B) -> state of B empty grids; step(state, token [B])
  -> (state, [B] int32 the place of the next token). A place is the raster number of the first code that a token stands
  for; the first token's is 0."""

  start: Callable[[int], State]
  step: Callable[[State, Array], tuple[State, Array]]


Table = Mapping[str, np.ndarray]  # what was fitted, as a file holds it
OWN = ("vocab", "fill", "origin")  # entries of a table that every recode has


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recode(abc.ABC):
  """Codes [*s] of one grid <-> at most `length` merged tokens, without loss.

  length: the most tokens that an example takes; one that takes more is a UserError. As many as the grid has codes
  always suffice. sample: so many training examples, a fixed choice over all of them, are what it is fitted on; 0 = all.
  """

  length: int
  sample: int = 0

  entry: ClassVar[str]  # of the table, beside those that every recode has

  @abc.abstractmethod
  def tokens(self, vocab: int) -> int:
    """The number of merged tokens over a codebook of `vocab` codes, END not counted. UserError for one that it cannot
    be fitted on."""

  @abc.abstractmethod
  def fit(self, codes: np.ndarray, vocab: int) -> Table:
    """codes [N,*s] int in [0,vocab) -> what `merge` and `expand` need; the same for the same codes."""

  @abc.abstractmethod
  def check(self, table: Table, grid: tuple[int, ...]) -> None:
    """UserError where a table that comes from a file is not one that `fit` could have made."""

  @abc.abstractmethod
  def merge(self, table: Table, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """codes [N,*s] -> (the tokens of all examples, one after the other, in [0, tokens); how many each has [N])."""

  @abc.abstractmethod
  def walk(self, table: Table, grid: tuple[int, ...]) -> Walk:
    """The places of tokens as a prior sees them (END and up); on a full grid, its last place."""

  @abc.abstractmethod
  def expand(self, table: Table, tokens: np.ndarray, grid: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """Any tokens [n] of one example -> (codes [*s] int32, -1 where no token says one; how many codes that tokens stand
    for found no place). The inverse of `merge`."""


@dataclasses.dataclass(frozen=True)
class Fitted:
  """A recode with the table that was fitted for a codebook, for codes on `grid`.

  table: beside the recode's own entries "vocab" [] of the codebook, "fill" [] the commonest code of the training set,
  which stands where a sample says no code, and "origin" [n] uint8, the identity of the stage 1 as text.
  """

  recode: Recode
  table: Table
  grid: tuple[int, ...]

  @functools.cached_property
  def walk(self) -> Walk:
    """How the tokens find their places."""
    return self.recode.walk(self.table, self.grid)

  @functools.cached_property
  def _walked(self) -> Any:
    def walked(rows: Array) -> Array:
      def step(carry: tuple, token: Array) -> tuple:
        state, place = carry
        return self.walk.step(state, token), place

      begin = self.walk.start(len(rows)), jnp.zeros(len(rows), jnp.int32)
      return jax.lax.scan(step, begin, rows.T)[1].T

    return jax.jit(walked)

  def places(self, rows: np.ndarray) -> np.ndarray:
    """tokens [N,length] -> int32 [N,length], the place of each on the grid."""
    return np.asarray(self._walked(np.asarray(rows, np.int32)))

  def merge(self, codes: np.ndarray) -> np.ndarray:
    """codes [N,*grid] -> tokens [N,length] int32, END from the end on. UserError for codes of another codebook, and for
    an example of more than `length` tokens."""
    codes, length = np.asarray(codes), self.recode.length
    check_codes(codes, int(self.table["vocab"]), self.grid)
    tokens, counts = self.recode.merge(self.table, codes)
    if (most := counts.max(initial=0)) > length:
      raise UserError(
        f"{(counts > length).sum()} of {len(codes)} examples take more than {length} merged tokens, one of them "
        f"{most}: give recode.length, and the prior, as many ({math.prod(self.grid)} always suffice)"
      )
    rows = np.full((len(codes), length), END, np.int32)
    rows[np.arange(length) < counts[:, None]] = tokens + 1
    return rows

  def expand(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tokens [N,length], of a prior too -> (codes [N,*grid] int32; [N] how many of the codes that an example's tokens
    stand for found no place on the grid and were cut; [N] how many places no token spoke of and got the commonest
    code)."""
    rows = np.asarray(rows)
    codes = np.zeros((len(rows), *self.grid), np.int32)
    cut, filled = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    for i, (row, length) in enumerate(zip(rows, lengths(rows), strict=True)):
      found, cut[i] = self.recode.expand(self.table, row[:length] - 1, self.grid)
      filled[i] = (found < 0).sum()
      codes[i] = np.where(found < 0, self.table["fill"], found)
    return codes, cut, filled

  def shortening(self, codes: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """codes [N,*grid] and their tokens [N,length] -> how much shorter they are, and their unigram entropy (of these
    examples' own frequencies) in bits a code before and after."""
    own, counts = np.asarray(codes).reshape(len(codes), -1), lengths(rows)
    kept = rows[np.arange(rows.shape[1]) < counts[:, None]]
    before, after = own.shape[1], float(counts.mean())
    return {
      "tokens_before": before,
      "tokens_after": after,
      "tokens_most": int(counts.max()),
      "shortening": before / after,
      "unigram_bits_before": entropy_bits(own),
      "unigram_bits_after": entropy_bits(kept) * after / before,
    }


def fitted(recode: Recode, codes: np.ndarray, vocab: int, origin: str) -> Fitted:
  """codes [N,*s] of the training set -> the recode with its table. origin: the identity of their stage 1."""
  grid = codes.shape[1:]
  check_codes(codes, vocab, grid)
  recode.tokens(vocab)
  own = {
    "vocab": np.asarray(vocab, np.int32),
    "fill": np.asarray(np.bincount(codes.reshape(-1), minlength=vocab).argmax(), np.int32),
    "origin": np.frombuffer(origin.encode(), np.uint8),
  }
  return Fitted(recode, {**recode.fit(codes, vocab), **own}, grid)


def read(recode: Recode, table: Table, grid: tuple[int, ...], vocab: int, origin: str, where: str) -> Fitted:
  """A stored table with its recode. UserError where it is no table, or of another codebook than `origin`'s."""
  if missing := [name for name in (*OWN, recode.entry) if name not in table]:
    raise UserError(f"{where} is no merge table of {type(recode).__name__}: it has no '{missing[0]}'")
  told = np.asarray(table["origin"], np.uint8).tobytes().decode(errors="replace")
  if told != origin or int(table["vocab"]) != vocab:
    raise UserError(
      f"{where} is a merge table of another codebook ({int(table['vocab'])} codes, of stage 1 {told[:12]}; these are "
      f"{vocab} codes of {origin[:12]})"
    )
  try:
    recode.check(table, grid)
  except UserError as error:
    raise UserError(f"{where}: {error}") from None
  return Fitted(recode, table, grid)


def lengths(rows: np.ndarray) -> np.ndarray:
  """tokens [N,length] -> [N]: how many come before the first END."""
  ends = rows == END
  return np.where(ends.any(1), ends.argmax(1), rows.shape[1])


def latent(rows: Array, places: Array | None = None) -> Latent:
  """tokens [B,length] and their places -> the Latent that a prior reads: its mask keeps the tokens up to the first END,
  and that; side "places"."""
  ends = (rows == END).astype(jnp.int32)
  side = {} if places is None else {"places": places}
  return Latent(codes=rows, mask=jnp.cumsum(ends, -1) <= ends, side=side)


def check_codes(codes: np.ndarray, vocab: int, grid: tuple[int, ...]) -> None:
  """UserError for codes that a table over `vocab` codes on `grid` does not know."""
  if codes.shape[1:] != tuple(grid):
    raise UserError(f"the merge table is of codes on {tuple(grid)}, these are on {codes.shape[1:]}")
  if codes.size and (codes.min() < 0 or codes.max() >= vocab):
    raise UserError(
      f"the merge table is of another codebook: it knows codes 0 to {vocab - 1}, these go from {codes.min()} to "
      f"{codes.max()}"
    )


def entropy_bits(values: np.ndarray) -> float:
  """Integers -> the entropy of their own histogram, bits a value."""
  counts = np.unique(values, return_counts=True)[1]
  share = counts / counts.sum()
  return float(-(share * np.log2(share)).sum())

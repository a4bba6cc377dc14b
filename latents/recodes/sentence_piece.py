"""Codes as characters of a text, merged by SentencePiece (DiscreTalk, Hayashi, Watanabe 2020, arXiv:2005.05525)."""

import dataclasses
import functools
import io
import math
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from latents.errors import UserError, first_line
from latents.recodes.base import Recode, Table, Walk
from latents.types import Array

PLANES = ((0xF0000, 65_534), (0x100000, 65_534))  # private-use planes 15 and 16: (first character, how many)
MOST = sum(count for _, count in PLANES)
BYTES = 4  # of such a character in UTF-8


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencePiece(Recode):
  """Codes in raster order, each a private-use character, as subwords of the package `sentencepiece`.

  vocab: subwords, the codes among them, so that every code of the codebook has one (also one that no training example
  uses). kind: of the package's models; DiscreTalk names none, "unigram" is the package's own. longest: codes that a
  subword may stand for. Nothing is normalised, no space is put before, spaces, digits and scripts mean nothing, and
  there are no bytes to fall back on: what goes in comes out. The unigram model picks the likeliest cut of an example,
  so it is not the shortest. The table is the package's own file. Paper: 256 subwords of 24 kHz speech.
  """

  vocab: int
  kind: Literal["unigram", "bpe"] = "unigram"
  longest: int = 16

  entry = "model"

  def tokens(self, vocab: int) -> int:
    """The subwords, also where fewer are found."""
    if self.vocab < vocab:
      raise UserError(f"recode.vocab is {self.vocab}: it must be at least {vocab}, one subword a code")
    if vocab > MOST:
      raise UserError(f"SentencePiece takes codebooks of at most {MOST} codes, private-use characters, not {vocab}")
    if self.longest < 1:
      raise UserError(f"recode.longest is {self.longest}: it must be at least 1")
    return self.vocab

  def fit(self, codes: np.ndarray, vocab: int) -> Table:
    """{"model": [n] uint8, the file that `sentencepiece` reads}."""
    package, made = installed(), io.BytesIO()
    unused = np.setdiff1d(np.arange(vocab), codes)  # its alphabet is what it sees: each of them a text of its own
    try:
      package.SentencePieceTrainer.train(
        sentence_iterator=iter(texts(codes) + texts(unused[:, None])), model_writer=made, model_type=self.kind,
        vocab_size=self.vocab + 1,  # one for what is unknown, which no code is
        hard_vocab_limit=False, character_coverage=1.0,
        normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
        byte_fallback=False, split_by_unicode_script=False, split_by_whitespace=False, split_by_number=False,
        max_sentencepiece_length=self.longest, max_sentence_length=BYTES * math.prod(codes.shape[1:]) + 1,
        unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1, num_threads=1, minloglevel=2,
      )  # fmt: skip
    except (RuntimeError, OSError) as error:
      raise UserError(f"SentencePiece cannot be fitted on these codes: {first_line(error)}") from None
    return {"model": np.frombuffer(made.getvalue(), np.uint8)}

  def check(self, table: Table, grid: tuple[int, ...]) -> None:
    """See `Recode.check`: a file of the package whose subwords are of codes of this codebook, all of which have one."""
    words = processor(np.asarray(table["model"], np.uint8).tobytes())[1]
    known, vocab = {word[0] for word in words if len(word) == 1}, int(table["vocab"])
    if not known >= set(range(vocab)) or any((word < 0).any() or (word >= vocab).any() for word in words):
      raise UserError(f"its subwords are not those of a codebook of {vocab} codes")
    if len(words) > self.vocab:
      raise UserError(f"it has {len(words)} subwords, not {self.vocab} or fewer")

  def merge(self, table: Table, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `Recode.merge`."""
    rows = [np.asarray(row, np.int32) for row in processor(bytes(table["model"]))[0].encode(list(texts(codes)))]
    return np.concatenate([np.zeros(0, np.int32), *rows]) - 1, np.asarray([len(row) for row in rows], np.int64)

  def walk(self, table: Table, grid: tuple[int, ...]) -> Walk:
    """See `Recode.walk`: how many codes came before."""
    counts, most = np.zeros(self.vocab + 1, np.int32), math.prod(grid) - 1
    words = processor(np.asarray(table["model"], np.uint8).tobytes())[1]
    counts[1 : len(words) + 1] = [len(word) for word in words]

    def step(before: Array, token: Array) -> tuple[Array, Array]:
      before = before + jnp.asarray(counts)[token]
      return before, jnp.minimum(before, most)

    return Walk(lambda batch: jnp.zeros(batch, jnp.int32), step)

  def expand(self, table: Table, tokens: np.ndarray, grid: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """See `Recode.expand`: one after the other; what goes beyond the grid is cut."""
    pieces = processor(bytes(table["model"]))[1]
    there = [pieces[token] for token in tokens.tolist() if token < len(pieces)]
    found = np.concatenate([np.zeros(0, np.int32), *there])
    made = np.full(math.prod(grid), -1, np.int32)
    made[: len(found)] = found[: made.size]
    return made.reshape(grid), max(0, len(found) - made.size)


def installed() -> Any:
  """The package. UserError where it is not there."""
  try:
    import sentencepiece
  except ImportError:
    raise UserError("SentencePiece needs the package sentencepiece: pip install -e '.[merge]'") from None
  return sentencepiece


@functools.lru_cache(maxsize=4)
def processor(model: bytes) -> tuple[Any, list[np.ndarray]]:
  """(what encodes, the codes of every subword). UserError for what is no such file."""
  package = installed()
  try:
    made = package.SentencePieceProcessor(model_proto=model)
    words = [made.id_to_piece(number) for number in range(1, made.get_piece_size())]
  except (RuntimeError, OSError, TypeError) as error:
    raise UserError(f"the merge table is no file of sentencepiece: {first_line(error)}") from None
  return made, [np.asarray([number(letter) for letter in word], np.int32) for word in words]


def texts(codes: np.ndarray) -> list[str]:
  """codes [N,*s] -> a text an example."""
  points = codes.reshape(len(codes), math.prod(codes.shape[1:])).astype(np.uint32)
  first, count = PLANES[0]
  points = np.where(points < count, points + first, points - count + PLANES[1][0])
  return [row.astype("<u4").tobytes().decode("utf-32-le") for row in points]


def number(letter: str) -> int:
  """The code of a character."""
  first, count = PLANES[0]
  point = ord(letter)
  return point - first if point < PLANES[1][0] else point - PLANES[1][0] + count

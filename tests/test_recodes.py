"""Merged tokens: every recode gives back what it was given, and the image BPE is the greedy one."""

import builtins
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from latents.errors import UserError
from latents.recodes import END, ImageBPE, SentencePiece, latent
from latents.recodes.base import entropy_bits, fitted, lengths, read
from tests.members.recodes import RECODES

SEED = 0


def drawn(shape: tuple[int, ...], vocab: int, count: int, seed: int = SEED) -> np.ndarray:
  """[count,*shape] codes with flat regions and a few rare ones."""
  rng = np.random.default_rng(seed)
  codes = rng.integers(0, vocab, (count, *shape)) * (rng.random((count, *shape)) < 0.6)
  for axis in range(1, codes.ndim):
    codes = np.where(rng.random(codes.shape) < 0.5, np.roll(codes, 1, axis), codes)
  return codes.astype(np.int32)


@pytest.fixture(params=RECODES, ids=lambda line: line[0])
def member(request):
  _, make, shape, vocab = request.param
  recode, train = make(), drawn(shape, vocab - 1, 60)  # the last code occurs in no training example
  return recode, fitted(recode, train, vocab, "one"), train, vocab


def test_what_goes_in_comes_out(member):
  """Of the examples that it was fitted on, others, flat ones, and codes that training never saw."""
  recode, made, train, vocab = member
  others = [drawn(made.grid, vocab, 80, seed) for seed in (1, 2)]
  flat = np.stack([np.full(made.grid, code, np.int32) for code in range(vocab)])
  noise = np.random.default_rng(3).integers(0, vocab, (50, *made.grid)).astype(np.int32)
  for codes in (train, *others, flat, noise):
    try:
      rows = made.merge(codes)
    except UserError:
      assert codes is noise and recode.length < np.prod(made.grid)
      continue
    assert rows.shape == (len(codes), recode.length) and rows.dtype == np.int32
    assert rows.min() >= 0 and rows.max() <= recode.tokens(vocab)
    counts = lengths(rows)
    np.testing.assert_array_equal(rows != END, np.arange(recode.length) < counts[:, None])
    again, cut, filled = made.expand(rows)
    np.testing.assert_array_equal(again, codes)
    assert not cut.any() and not filled.any()


def test_an_example_is_merged_alone(member):
  _, made, train, _ = member
  rows = made.merge(train)
  np.testing.assert_array_equal(np.concatenate([made.merge(train[i : i + 1]) for i in range(len(train))]), rows)


def test_the_table_is_a_function_of_the_codes_and_survives_a_file(member):
  recode, made, train, vocab = member
  twin = fitted(recode, train, vocab, "one")
  assert twin.table.keys() == made.table.keys()
  for name, array in made.table.items():
    np.testing.assert_array_equal(twin.table[name], array)
  back = read(recode, dict(made.table), made.grid, vocab, "one", "x")
  np.testing.assert_array_equal(back.merge(train), made.merge(train))


def test_whatever_a_prior_draws_expands_to_a_grid(member):
  recode, made, _, vocab = member
  rows = np.random.default_rng(4).integers(0, recode.tokens(vocab) + 1, (200, recode.length))
  rows[0], rows[1] = END, recode.tokens(vocab)
  codes, cut, filled = made.expand(rows)
  assert codes.shape == (200, *made.grid) and codes.min() >= 0 and codes.max() < vocab
  assert filled[0] == codes[0].size and (codes[0] == made.table["fill"]).all() and cut[0] == 0
  after = rows.copy()
  for row, n in zip(after, lengths(rows), strict=True):
    row[n + 1 :] = 1 - row[n + 1 :] % 2  # what comes after the end says nothing
  np.testing.assert_array_equal(made.expand(after)[0], codes)


def test_tables_of_another_codebook_are_one_line(member):
  recode, made, train, vocab = member
  with pytest.raises(UserError, match=r"x is a merge table of another codebook \(\d+ codes, of stage 1 one; "):
    read(recode, made.table, made.grid, vocab, "two", "x")
  with pytest.raises(UserError, match="x is a merge table of another codebook"):
    read(recode, made.table, made.grid, vocab + 1, "one", "x")
  with pytest.raises(UserError, match=f"it knows codes 0 to {vocab - 1}, these go from 0 to {vocab}"):
    made.merge(np.where(train == train.max(), vocab, train))
  with pytest.raises(UserError, match="is no merge table"):
    read(recode, {"vocab": np.asarray(3)}, made.grid, vocab, "one", "x")
  with pytest.raises(UserError, match="merge table is of codes on"):
    made.merge(train[:, :-1])


def test_more_tokens_than_the_length_are_one_line():
  made = fitted(ImageBPE(length=3, merges=0), np.zeros((2, 4), np.int32), 2, "one")
  with pytest.raises(
    UserError, match=r"2 of 2 examples take more than 3 merged tokens, one of them 4: give recode\.len"
  ):
    made.merge(np.zeros((2, 4), np.int32))


def test_the_mask_keeps_the_first_end_and_nothing_after_it():
  rows = jnp.asarray([[3, 1, END, END], [END, 5, 5, 5], [1, 2, 3, 4], [1, 2, 3, END]])
  found = latent(rows)
  np.testing.assert_array_equal(found.codes, rows)
  np.testing.assert_array_equal(found.mask, [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]])
  assert found.mask.dtype == bool


def test_without_merges_a_prior_sees_the_codes_themselves():
  """Every row is full, so no END is needed, and the likelihood is that of the codes."""
  codes = drawn((4, 5), 6, 9)
  rows = fitted(ImageBPE(length=20, merges=0), codes, 6, "one").merge(codes)
  np.testing.assert_array_equal(rows - 1, codes.reshape(9, 20))
  assert latent(jnp.asarray(rows)).mask.all()


def test_entropy_a_code_before_and_after():
  """0 1 | 0 1, or 0 1 | 1 0 in another order: by hand."""
  codes = np.asarray([[0, 1, 0, 1], [0, 1, 0, 1]], np.int32)
  made = fitted(ImageBPE(length=4, merges=1), codes, 2, "one")
  np.testing.assert_array_equal(made.table["merges"], [[0, 1, 0]])
  found = made.shortening(codes, made.merge(codes))
  assert found["unigram_bits_before"] == 1.0 and found["unigram_bits_after"] == 0.0
  assert (found["tokens_before"], found["tokens_after"], found["tokens_most"], found["shortening"]) == (4, 2.0, 2, 2.0)
  assert entropy_bits(np.asarray([1, 2, 3, 4, 1, 2, 3, 4])) == 2.0


# -- the image BPE against a brute force that keeps rectangles in a dictionary


Piece = tuple[int, int, int]  # token, height, width


class Brute:
  """One example as {(row, column): (token, height, width)}."""

  def __init__(self, codes: np.ndarray):
    self.pieces = {(int(r), int(c)): (int(v), 1, 1) for (r, c), v in np.ndenumerate(np.atleast_2d(codes))}

  def partner(self, at: tuple[int, int], orientation: int):
    _, h, w = self.pieces[at]
    other = (at[0], at[1] + w) if orientation == 0 else (at[0] + h, at[1])
    if other not in self.pieces:
      return None
    return other if self.pieces[other][1 + orientation] == (h, w)[orientation] else None

  def pairs(self):
    for at in self.pieces:
      for orientation in (0, 1):
        if (other := self.partner(at, orientation)) is not None:
          yield self.pieces[at][0], self.pieces[other][0], orientation

  def merge(self, a: int, b: int, orientation: int, token: int) -> None:
    for at in sorted(self.pieces, key=lambda at: at if orientation == 0 else at[::-1]):
      if at in self.pieces and self.pieces[at][0] == a and (other := self.partner(at, orientation)) is not None:
        if self.pieces[other][0] != b:
          continue
        (_, h, w), (_, low, wide) = self.pieces[at], self.pieces.pop(other)
        self.pieces[at] = (token, h, w + wide) if orientation == 0 else (token, h + low, w)

  def tokens(self) -> list[int]:
    return [self.pieces[at][0] for at in sorted(self.pieces)]


def brute(codes: np.ndarray, vocab: int, merges: int) -> tuple[list[tuple[int, int, int]], list[list[int]]]:
  examples, found = [Brute(one) for one in codes], []
  for i in range(merges):
    counts: dict[tuple[int, int, int], int] = {}
    for example in examples:
      for pair in example.pairs():
        counts[pair] = counts.get(pair, 0) + 1
    best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
    if best is None or counts[best] < 2:
      break
    for example in examples:
      example.merge(*best, vocab + i)
    found.append(best)
  return found, [example.tokens() for example in examples]


@pytest.mark.parametrize(
  ("shape", "vocab", "count", "merges"),
  [
    ((5, 6), 3, 8, 40),
    ((4, 4), 2, 5, 60),
    ((1, 12), 3, 6, 20),
    ((9, 2), 4, 7, 30),
    ((14,), 3, 9, 30),
    ((6, 6), 1, 3, 9),
  ],
)
@pytest.mark.parametrize("seed", range(4))
def test_image_bpe_is_the_brute_force(shape, vocab, count, merges, seed):
  codes = drawn(shape, vocab, count, seed)
  made = fitted(ImageBPE(length=int(np.prod(shape)), merges=merges), codes, vocab, "one")
  pairs, tokens = brute(codes, vocab, merges)
  assert [tuple(pair) for pair in made.table["merges"].tolist()] == pairs and pairs
  rows = made.merge(codes)
  assert [(row[:n] - 1).tolist() for row, n in zip(rows, lengths(rows), strict=True)] == tokens


def test_more_merges_never_take_more_tokens_and_begin_with_the_same():
  codes, others = drawn((6, 6), 4, 30), drawn((6, 6), 4, 30, 9)
  whole = fitted(ImageBPE(length=36, merges=40), codes, 4, "one").table["merges"]
  before = [36 * 30, 36 * 30]
  for merges in range(1, 41):
    made = fitted(ImageBPE(length=36, merges=merges), codes, 4, "one")
    np.testing.assert_array_equal(made.table["merges"], whole[:merges])
    now = [int(lengths(made.merge(x)).sum()) for x in (codes, others)]
    assert now[0] < before[0] and now[1] <= before[1]  # each merge is of a pair that is there
    before = now


def test_flat_regions_and_pairs_in_both_orders_are_merged():
  """What the published code leaves alone: (a,a), and (b,a) beside (a,b)."""
  flat = np.zeros((2, 8, 8), np.int32)
  made = fitted(ImageBPE(length=64, merges=6), flat, 1, "one")
  assert made.table["merges"].tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 0], [3, 3, 1], [4, 4, 0], [5, 5, 1]]
  np.testing.assert_array_equal(lengths(made.merge(flat)), [1, 1])
  stripes = np.tile(np.asarray([[1, 0]], np.int32), (3, 1))[None].repeat(4, 0)
  assert fitted(ImageBPE(length=6, merges=1), stripes, 2, "one").table["merges"].tolist() == [[1, 0, 0]]


def test_across_and_down_are_two_tokens():
  codes = np.asarray([[[0, 1], [2, 3]], [[0, 2], [1, 3]]], np.int32)
  made = fitted(ImageBPE(length=4, merges=2), np.concatenate([codes] * 2), 4, "one")
  assert made.table["merges"].tolist() == [[0, 1, 0], [0, 1, 1]]
  np.testing.assert_array_equal(made.expand(made.merge(codes))[0], codes)


def test_rectangles_that_do_not_fit_are_cut_and_what_is_free_is_filled():
  """2 x 3, with one row of each code."""
  codes = np.asarray([[[0, 0, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]] * 2 + [[[0, 0, 1], [1, 1, 0]]], np.int32)
  made = fitted(ImageBPE(length=6, merges=2), codes, 2, "one")
  assert made.table["merges"].tolist() == [[0, 0, 0], [1, 1, 0]]  # of equally common ones the least first
  wide = {0: 3, 1: 4}  # two of a code side by side, as a prior sees them
  rows = np.asarray([[wide[0], wide[0], wide[1], 1, END, END]])
  found, cut, filled = made.expand(rows)
  # 0 0 | then 0 0 at the last place of row 0: one is cut | 1 1 below | 0 in the corner
  np.testing.assert_array_equal(found, [[[0, 0, 0], [1, 1, 0]]])
  assert (cut.tolist(), filled.tolist()) == ([1], [0])
  found, cut, filled = made.expand(np.asarray([[2, END, 1, 1, 1, 1]]))
  fill = int(made.table["fill"])
  np.testing.assert_array_equal(found, [[[1, fill, fill], [fill] * 3]])
  assert (cut.tolist(), filled.tolist()) == ([0], [5])


def test_tokens_beyond_a_full_grid_are_cut():
  made = fitted(SentencePiece(length=9, vocab=3), np.zeros((3, 4), np.int32) + [0, 1, 2, 0], 3, "one")
  row = made.merge(np.asarray([[0, 1, 2, 0]], np.int32))[0]
  rows = np.full((1, 9), END, np.int32)
  rows[0, :4] = row[:4]
  rows[0, 4:8] = row[:4]
  found, cut, filled = made.expand(rows)
  np.testing.assert_array_equal(found, [[0, 1, 2, 0]])
  assert (cut.tolist(), filled.tolist()) == ([4], [0])


@pytest.mark.parametrize(
  "merges",
  [[[0, 9, 0]], [[0, 1, 2]], [[0, 1, 0], [4, 0, 1]], [[0, -1, 0]], [[0, 1, 0], [4, 4, 0], [5, 5, 0]], [[0, 1]]],
)
def test_tables_that_no_fit_makes_are_refused(merges):
  """An unknown token, orientation, rectangles that do not lie side by side, or are larger than the grid."""
  made = fitted(ImageBPE(length=16, merges=3), drawn((4, 4), 4, 9), 4, "one")
  table = {**made.table, "merges": np.asarray(merges, np.int32)}
  with pytest.raises(UserError, match="x: its merges are not 3 pairs of rectangles"):
    read(made.recode, table, (4, 4), 4, "one", "x")


def test_sentencepiece_tables_that_are_none_are_refused():
  recode = SentencePiece(length=12, vocab=12)
  made = fitted(recode, drawn((12,), 4, 40), 4, "one")
  for model in (b"no model", b""):
    with pytest.raises(UserError, match="x: "):
      read(recode, {**made.table, "model": np.frombuffer(model, np.uint8)}, (12,), 4, "one", "x")
  with pytest.raises(UserError, match="x: its subwords are not those of a codebook of 9 codes"):
    read(SentencePiece(length=12, vocab=12), {**made.table, "vocab": np.asarray(9)}, (12,), 9, "one", "x")


def test_a_missing_package_is_one_line(monkeypatch):
  real = builtins.__import__

  def without(name, *args, **kwargs):
    if name == "sentencepiece":
      raise ImportError
    return real(name, *args, **kwargs)

  monkeypatch.delitem(sys.modules, "sentencepiece", raising=False)
  monkeypatch.setattr(builtins, "__import__", without)
  with pytest.raises(UserError, match=r"needs the package sentencepiece: pip install -e '.\[merge\]'"):
    SentencePiece(length=4, vocab=8).fit(np.zeros((2, 4), np.int32), 2)


def test_large_codebooks_have_characters_of_their_own():
  """Both private-use planes, in both directions."""
  vocab = 70_000
  recode = SentencePiece(length=4, vocab=vocab)
  assert recode.tokens(vocab) == vocab
  from latents.recodes.sentence_piece import number, texts

  codes = np.asarray([[0, 65_533, 65_534, vocab - 1]], np.int32)
  assert [number(letter) for letter in texts(codes)[0]] == codes[0].tolist()
  with pytest.raises(UserError, match="at most 131068 codes"):
    SentencePiece(length=4, vocab=200_000).tokens(200_000)
  with pytest.raises(UserError, match=r"recode\.vocab is 7: it must be at least 8"):
    SentencePiece(length=4, vocab=7).tokens(8)


def test_volumes_are_refused():
  with pytest.raises(UserError, match=r"on a line or a plane, these are on \(2, 2, 2\)"):
    fitted(ImageBPE(length=8, merges=2), np.zeros((3, 2, 2, 2), np.int32), 2, "one")


def test_places_are_those_where_tokens_lie(member):
  """Of merged examples, by the first code that a token covers, told by expanding ever longer beginnings; and the walk
  that a sample takes ends where `expand` does, whatever a prior draws."""
  _, made, train, _ = member
  rows = made.merge(train[:12])
  places, cells = made.places(rows), int(np.prod(made.grid))
  for row, place, count in zip(rows, places, lengths(rows), strict=True):
    found = []
    for n in range(count):
      covered, _ = made.recode.expand(made.table, row[:n] - 1, made.grid)
      found.append(int((covered.reshape(-1) < 0).argmax()))
    assert place[:count].tolist() == found
    assert (place[count:] == cells - 1).all()
  drawn_ = np.random.default_rng(5).integers(1, made.recode.tokens(int(made.table["vocab"])) + 1, rows.shape)
  for row, place in zip(drawn_, made.places(drawn_), strict=True):
    for n in (1, 3, len(row) - 1):
      covered, _ = made.recode.expand(made.table, row[:n] - 1, made.grid)
      free = covered.reshape(-1) < 0
      assert place[n] == (free.argmax() if free.any() else cells - 1)

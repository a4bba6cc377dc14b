"""The image BPE on a line is the textbook's: the merges and the tokens of Hugging Face's `tokenizers`."""

import numpy as np
import pytest
import tokenizers

from latents.recodes import ImageBPE
from latents.recodes.base import fitted, lengths

FIRST = 0xE000  # characters that no rule of the package knows


def words(codes: np.ndarray) -> list[str]:
  return ["".join(chr(FIRST + c) for c in row) for row in codes.tolist()]


@pytest.mark.parametrize(("vocab", "length", "merges"), [(5, 30, 60), (3, 40, 40), (16, 25, 100), (1, 33, 5)])
@pytest.mark.parametrize("seed", range(5))
def test_merges_and_tokens_are_those_of_tokenizers(vocab, length, merges, seed):
  rng = np.random.default_rng(seed)
  codes = rng.integers(0, vocab, (50, length))
  codes = np.where(rng.random(codes.shape) < 0.4, np.roll(codes, 1, 1), codes).astype(np.int32)
  codes[:, :vocab] = np.arange(vocab)  # all codes occur: its alphabet is what it has seen
  made = fitted(ImageBPE(length=length, merges=merges), codes, vocab, "one")

  theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
  trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab + merges, min_frequency=2, show_progress=False)
  theirs.train_from_iterator(words(codes), trainer)
  names = theirs.get_vocab()
  ordered = sorted(names, key=names.__getitem__)
  merged = made.table["merges"].tolist()
  spelled = [chr(FIRST + c) for c in range(vocab)]
  for a, b, orientation in merged:
    assert orientation == 0
    spelled.append(spelled[a] + spelled[b])
  assert spelled == ordered

  others = rng.integers(0, vocab, (40, length)).astype(np.int32)
  for x in (codes, others):
    rows = made.merge(x)
    ours = [(row[:n] - 1).tolist() for row, n in zip(rows, lengths(rows), strict=True)]
    assert ours == [e.ids for e in theirs.encode_batch(words(x))]

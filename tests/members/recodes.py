"""Members of `latents/recodes`."""

from latents.recodes import ImageBPE, SentencePiece

# -- recodes: (name, make, grid of the codes, codes of the codebook)
RECODES = [
  ("image bpe", lambda: ImageBPE(length=48, merges=20), (6, 8), 7),
  ("image bpe 1d", lambda: ImageBPE(length=30, merges=15), (30,), 5),
  ("image bpe nothing to merge", lambda: ImageBPE(length=9, merges=0), (3, 3), 4),
  ("sentencepiece", lambda: SentencePiece(length=30, vocab=40), (30,), 5),
  ("sentencepiece bpe", lambda: SentencePiece(length=48, vocab=60, kind="bpe", longest=4), (6, 8), 7),
]

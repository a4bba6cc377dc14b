"""Members of `latents/backbones` on sequences: of tokens, or of vectors."""

from typing import Any

from latents.backbones import RQTransformer, Transformer, VectorTransformer

# -- (name, make(vocab, length), what a condition brings, ((axes of places) or None))
TOKENS: list[tuple[str, Any]] = [
  ("gpt", lambda v, n: Transformer(v, 16, 2, 2, n, classes=3, kind="gpt")),
  ("rotary", lambda v, n: Transformer(v, 16, 2, 2, n, classes=3, multiple=8, position="rotary", grid=(2, n // 2))),
  ("rotary-line", lambda v, n: Transformer(v, 16, 2, 2, n, groups=2, multiple=8, position="rotary")),
  (
    "llamagen",
    lambda v, n: Transformer(v, 16, 2, 2, n, classes=3, multiple=8, position="rotary", grid=(2, n // 2), blind=True),
  ),
  ("text", lambda v, n: Transformer(v, 16, 2, 2, n, multiple=8, text=(3, 5))),
  (
    "text-rotary",
    lambda v, n: Transformer(v, 16, 2, 2, n, classes=3, multiple=8, text=(3, 5), position="rotary", remat="block"),
  ),
  ("told", lambda v, n: Transformer(v, 16, 2, 2, n, classes=3, multiple=8, places=n, told=True)),
  ("rq", lambda v, n: RQTransformer(v, 16, 2, 1, 2, n, 2, classes=3)),
  ("rq-shared", lambda v, n: RQTransformer(v, 16, 1, 2, 2, n, n // 2, shared=True, kind="llama", multiple=8)),
]
VECTORS: list[tuple[str, Any]] = [
  ("givt", lambda n, d, out: VectorTransformer(16, 2, 2, n, d, out, classes=3)),
]

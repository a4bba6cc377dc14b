"""Members of `latents/backbones` that are causal over a grid, without a cache of their own."""

import functools

from latents.backbones import GatedPixelCNN, PixelCNN, PixelCNNPlus, PixelRNN, PixelSNAIL, PixelSNAILCodes

# -- networks over tokens: (name, make(vocab, shape, classes), tokens of a place that it takes, what a place sees of the
# -- places before it: see `before` in tests/test_grids.py). The sizes see all of 5x5.
GRID_TOKENS = [
  (
    "pixelcnn",
    lambda v, s, n: PixelCNN(v, s, classes=n, width=8, depth=4, first=3, hidden=12),
    (1, 2, 3),
    "triangle",
  ),
  (
    "gated",
    lambda v, s, n: GatedPixelCNN(v, s, classes=n, width=6, depth=4, size=3, first=3, hidden=12),
    (1, 2, 3),
    "all",
  ),
  (
    "gated-embedded",
    lambda v, s, n: GatedPixelCNN(v, s, classes=n, embed=3, width=9, depth=2, size=5, first=5, hidden=16),
    (1, 2, 3),
    "all",
  ),
  (
    "row-lstm",
    lambda v, s, n: PixelRNN(v, s, classes=n, kind="row", width=6, depth=3, first=3, hidden=12),
    (1, 2, 3),
    "triangle",
  ),
  (
    "diagonal-lstm",
    lambda v, s, n: PixelRNN(v, s, classes=n, kind="diagonal", width=6, depth=1, first=3, hidden=12),
    (1, 2, 3),
    "diagonal",
  ),
  (
    "snail-codes",
    lambda v, s, n: PixelSNAILCodes(v, s, classes=n, embed=4, width=8, blocks=2, resnets=1),
    (1,),
    "all",
  ),
]

# -- networks over pixels: (name, make(shape, out, classes))
GRID_ELEMENTS = [
  ("pixelcnn++", lambda s, out, n: PixelCNNPlus(s, out, classes=n, width=6, blocks=1)),
  ("pixelsnail", lambda s, out, n: PixelSNAIL(s, out, classes=n, width=8, blocks=2, resnets=1)),
]

# -- all of them: (name, make)
GRIDS = [(name, functools.partial(make, 5, (4, 4), 0)) for name, make, *_ in GRID_TOKENS]
GRIDS += [(name, functools.partial(make, (4, 4, 3), 9, 0)) for name, make in GRID_ELEMENTS]

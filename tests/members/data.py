"""Members of `latents/data`."""

import os

from latents.data import Digits, Photos, Shapes, Topics, Unnamed
from tests import sources

# -- sources: (name, make)
SOURCES = [
  ("digits", lambda: Digits(size=8)),
  ("shapes", lambda: Shapes(size=16, count=60, test=20)),
  ("photos", lambda: Photos(size=32, count=40)),
  ("folder", sources.folder),
  ("unnamed", lambda: Unnamed(path=os.path.join(sources.place(), "pictures"), size=16)),
  ("tfds", sources.tfds),
  ("audio", sources.audio),
  ("video", sources.video),
  ("strips", sources.strips),
  ("text", sources.text),
  ("topics", lambda: Topics(length=48)),
]

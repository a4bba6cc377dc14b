"""Members of `latents/data`."""

from latents.data import Digits, Photos, Shapes, Topics
from tests import sources

# -- sources: (name, make)
SOURCES = [
  ("digits", lambda: Digits(size=8)),
  ("shapes", lambda: Shapes(size=16, count=60, test=20)),
  ("photos", lambda: Photos(size=32, count=40)),
  ("folder", sources.folder),
  ("tfds", sources.tfds),
  ("audio", sources.audio),
  ("video", sources.video),
  ("strips", sources.strips),
  ("text", sources.text),
  ("topics", lambda: Topics(length=48)),
]

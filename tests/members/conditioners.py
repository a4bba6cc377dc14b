"""Members of `latents/conditioners`."""

from latents.conditioners import Labels, Text

# -- conditioners: (name, make)
CONDITIONERS = [
  ("labels", Labels),
  ("text", lambda: Text(texts=("zero", "one", "two"), length=4, size=6)),
]

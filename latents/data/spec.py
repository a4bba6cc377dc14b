"""A source by a short text: digits, shapes, photos, topics, folder:PATH, tfds:NAME, strips:NAME, audio:PATH, ..."""

import dataclasses
import os
from typing import Any

from latents.data.audio import Audio
from latents.data.digits import Digits
from latents.data.folder import Folder
from latents.data.photos import Photos
from latents.data.shapes import Shapes
from latents.data.source import Source
from latents.data.strips import Strips
from latents.data.text import Text, Topics
from latents.data.tfds import Tfds
from latents.data.video import Video
from latents.errors import UserError, nearest
from latents.machine.disk import on_disk

# word -> (class, field that the text after the colon fills)
KINDS: dict[str, tuple[type[Source], str | None]] = {
  "digits": (Digits, None),
  "shapes": (Shapes, None),
  "photos": (Photos, None),
  "folder": (Folder, "path"),
  "tfds": (Tfds, "name"),
  "audio": (Audio, "path"),
  "video": (Video, "path"),
  "strips": (Strips, "name"),
  "text": (Text, "path"),
  "topics": (Topics, None),
}

COUNTS = ("size", "length", "rate", "count", "test", "frames", "stride")


def source(spec: str, **options: Any) -> Source:
  """The source of a text such as "folder:~/pictures"; `options` are its fields (size=32, data_dir=...).

  An option that is None counts as not given. Raises UserError for an unknown source or option.
  """
  word, _, rest = spec.partition(":")
  if word not in KINDS:
    known = ", ".join(name if field is None else f"{name}:{field.upper()}" for name, (_, field) in KINDS.items())
    raise UserError(f"unknown data source {spec!r}{nearest(word, KINDS)}: one of {known}")
  kind, field = KINDS[word]
  if field is None and rest:
    raise UserError(f"{word} takes nothing after the name, got {spec!r}")
  if field is not None and not rest:
    raise UserError(f"{word} needs a {field}: {word}:{field.upper()}")
  given = {key: value for key, value in options.items() if value is not None}
  names = [f.name for f in dataclasses.fields(kind) if f.name != field]
  for key, value in given.items():
    if key not in names:
      raise UserError(f"{word} has no option {key!r}{nearest(key, names)}: it has {', '.join(names)}")
    numbers = value if key == "size" and isinstance(value, tuple) and len(value) == 2 else (value,)
    if key in COUNTS and any(not isinstance(number, int) or number < 1 for number in numbers):
      raise UserError(f"{word}: {key} must be a whole number above 0, got {value!r}")
    if key == "channels" and value not in (1, 3):
      raise UserError(f"{word}: channels must be 1 or 3, got {value!r}")
  if field == "path":
    given[field] = os.path.abspath(os.path.expanduser(on_disk(rest)))  # the same data from every working directory
  elif field is not None:
    given[field] = rest
  return kind(**given)

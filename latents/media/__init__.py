"""Kinds of signals: everything that differs between pictures, clips, sound, text and other arrays.

Contract (`base.Kind`), one file a kind; `Source.kind` is its name:
  dtype        of "x" in a batch; `types.to_signal` makes float32 in [-1,1] of uint8, and leaves other integers alone
  clip         what a decoder gives -> the signal's range
  stored       signals -> what an npz keeps (pictures and clips uint8, text int32, sound and arrays float32)
  values       a batch -> numbers of which means and deviations are taken
  judge        signals -> what a classifier and distances between signals see
  tiles        signals -> a picture of each; `picture`, `sheet` and `rows` lay them out
  write, check files for `--out`
How a kind stands on a report's page is in `latents.report`. Nothing here uses JAX: the report and the loaders of data
need none.

A new kind is one file and a line in `KINDS`.
"""

from latents.errors import UserError, nearest
from latents.media.array import ArrayKind
from latents.media.base import BESIDE, Kind, write_npz
from latents.media.image import Image
from latents.media.sound import Sound
from latents.media.text import Text
from latents.media.video import Video

KINDS: dict[str, Kind] = {made.name: made for made in (Image(), Video(), Sound(), Text(), ArrayKind())}

__all__ = ["BESIDE", "KINDS", "ArrayKind", "Image", "Kind", "Sound", "Text", "Video", "kind", "write_npz"]


def kind(name: str) -> Kind:
  """The kind of that name. Raises UserError."""
  if name not in KINDS:
    raise UserError(f"unknown kind of signal {name!r}{nearest(name, KINDS)}: one of {', '.join(KINDS)}")
  return KINDS[name]

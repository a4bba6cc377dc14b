"""Data: sources -> batches, the latent cache, and pictures of both.

Contract. A `Source` is a frozen dataclass of JSON scalars:
  kind "image" | "video" | "audio" | "text" | "array" (`latents.media`); rate (Hz, audio) or None; shape [*S,C], of
  text (T,); names of the labels; classes (0 = no labels)
  records(split) -> random access (`len`, `[i]`) to dicts of numpy arrays: "x" uint8 [H,W,C] or [T,H,W,C],
    float32 [T,1] in [-1,1], or int32 [T] (text); "label" int32 []; extras; `skipped` names the files
    that were left out and why
  augment(example, rng, train) -> example of exactly `shape`: random if `train`, else deterministic
  identity() -> 16 hex digits that tell the contents apart, for resuming and borrowing: see `Source.identity`
Splits are "train" and "test"; they never share an example. Fields with metadata {"address": False} say where
data lies on this machine and do not belong to the identity of an experiment.

`batches` and `evaluation_batches` make dicts of numpy arrays: "x" [b,*S,C] as above (`types.to_signal` maps
them to [-1,1] on the device), "label" int32 [b] if there are labels, "index" int32 [b], and for evaluation
"mask" bool [b]. What is in a batch is a pure function of (source, seed, step); an evaluation of less than a split
is of a fixed `choice` over all of it. `CachedLatents` is a source of "stored" [b,*s,..] in place of "x".

A new source is one file with one frozen dataclass, a line in `spec.KINDS` and one in tests/members/data.py.
Bad input raises `latents.errors.UserError`. Nothing here uses JAX: batches are numpy, and worker processes
never touch an accelerator.
"""

from latents.data.audio import Audio
from latents.data.cache import CachedLatents, write_cache
from latents.data.choice import choice
from latents.data.digits import Digits
from latents.data.folder import Folder
from latents.data.inspect import inspect
from latents.data.loader import Batches, batches, evaluation_batches
from latents.data.photos import Photos
from latents.data.pictures import load_image
from latents.data.prepare import prepare
from latents.data.shapes import Shapes
from latents.data.source import Broken, Example, Records, Source, Split, place
from latents.data.spec import source
from latents.data.strips import Strips
from latents.data.text import Text, Topics
from latents.data.tfds import Tfds
from latents.data.unnamed import Unnamed
from latents.data.video import Video
from latents.media.drawing import grid, save_png, spectrogram

__all__ = [
  "Audio",
  "Batches",
  "Broken",
  "CachedLatents",
  "Digits",
  "Example",
  "Folder",
  "Photos",
  "Records",
  "Shapes",
  "Source",
  "Split",
  "Strips",
  "Text",
  "Tfds",
  "Topics",
  "Unnamed",
  "Video",
  "batches",
  "choice",
  "evaluation_batches",
  "grid",
  "inspect",
  "load_image",
  "place",
  "prepare",
  "save_png",
  "source",
  "spectrogram",
  "write_cache",
]

"""Texts as embeddings: one text a label, of a fixed embedding of this project or of a file."""

import dataclasses
import functools
from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from latents.conditioners.base import Conditioner
from latents.errors import UserError
from latents.pretrained.readers import check_sha256, read_weights
from latents.types import Batch, Cond


@dataclasses.dataclass(frozen=True)
class Text(Conditioner):
  """{"text": [B,L,E] float32, "text_mask": [B,L] bool}: the text of an example's label; of a file that says what a
  network was told in place of none, its "null" [L,E], also "text_null" [B,L,E].

  texts: one a label. Each character is a token, embedded by a normal vector of size E / 2 that its code point seeds,
  beside sines of its place, E / 2: a fixed embedding that needs no file. path: an npz or safetensors file with "text"
  [K,L,E] and "text_mask" [K,L], the embeddings of the same texts by some other network, in their place. sha256: of that
  file's bytes; it says which embeddings are meant, wherever the file lies, and must be given with it.
  length: L, characters that are kept; shorter texts are padded and masked. size: E. Without texts (of a prior that was
  trained elsewhere) none can be asked for, and what is sampled is told an empty one.
  """

  texts: tuple[str, ...] = ()
  length: int = 8
  size: int = 32
  path: str = dataclasses.field(default="", metadata={"address": False})
  sha256: str = ""

  gives: ClassVar[tuple[str, ...]] = ("text", "text_mask")

  def __call__(self, batch: Batch) -> Cond | None:
    """See the class; None where an example has no label."""
    if "label" not in batch:
      return None
    (text, mask), null = self.table, self.null
    told = {"text": jnp.asarray(text)[batch["label"]], "text_mask": jnp.asarray(mask)[batch["label"]]}
    return told if null is None else {**told, "text_null": jnp.broadcast_to(null, told["text"].shape)}

  def count(self, classes: int) -> int:
    """The number of texts. UserError where labels have no text."""
    if self.texts and classes > len(self.texts):
      raise UserError(f"there are {len(self.texts)} texts for {classes} labels")
    return len(self.texts)

  def words(self, names: tuple[str, ...]) -> tuple[str, ...]:
    """The texts."""
    return self.texts

  @functools.cached_property
  def table(self) -> tuple[np.ndarray, np.ndarray]:
    """(text [K,L,E], mask [K,L]). UserError for a file that does not fit."""
    if not self.path:
      return embedded(self.texts or ("",), self.length, self.size)
    return self._read[:2]

  @property
  def null(self) -> np.ndarray | None:
    """[L,E] of an empty text, where a file says it."""
    return self._read[2] if self.path else None

  @functools.cached_property
  def _read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    return read(self.path, self.sha256, (len(self.texts), self.length, self.size))


def embedded(texts: tuple[str, ...], length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Texts -> (characters embedded [K,length,size] float32, mask [K,length])."""
  text, mask = np.zeros((len(texts), length, size), np.float32), np.zeros((len(texts), length), bool)
  half = size // 2
  place = np.arange(length)[:, None] / 10_000 ** (np.arange(size - half) // 2 * 2 / (size - half))
  waves = np.where(np.arange(size - half) % 2, np.cos(place), np.sin(place))
  for k, word in enumerate(texts):
    for i, letter in enumerate(word[:length]):
      text[k, i] = np.concatenate([np.random.default_rng(ord(letter)).normal(size=half), waves[i]])
      mask[k, i] = True
  return text, mask


def read(path: str, sha256: str, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
  """(text, text_mask, null or None) of a file, checked against its hash and their shape."""
  path = str(Path(path).expanduser())
  check_sha256(path, sha256)
  found = read_weights(path)
  told = {name: array.shape for name, array in found.items()}
  if {"null": shape[1:], **told} != {"text": shape, "text_mask": shape[:2], "null": shape[1:]}:
    raise UserError(f"{path} holds {told}: wanted are text {shape} and text_mask {shape[:2]}, and null if there is one")
  null = np.asarray(found["null"], np.float32) if "null" in found else None
  return np.asarray(found["text"], np.float32), np.asarray(found["text_mask"], bool), null

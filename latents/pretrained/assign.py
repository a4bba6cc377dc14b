"""Strict filling of a parameter tree from a flat file: every key and every shape must fit."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from latents.errors import UserError

Tree = Any  # nested dicts of arrays

# torch keeps convolutions as [out, in, *kernel] and linear layers as [out, in]; linen wants them last.
_LAYOUTS = {"same": None, "conv": (2, 3, 1, 0), "dense": (1, 0)}


def assign(
  template: Tree,
  arrays: Mapping[str, np.ndarray],
  sources: Mapping[str, tuple[str, str]],
  *,
  what: str,
  ignore: Iterable[str] = (),
) -> Tree:
  """The template's tree with the arrays of a file, as float32 (or the template's dtype).

  template: nested dicts of ShapeDtypeStruct (or arrays). arrays: {key: array} as a reader gave them.
  sources: {path in the tree, joined by "/": (key in the file, "same" | "conv" | "dense")}; conv turns
  OIHW into HWIO, dense OI into IO. what: what the file should be, for the message. ignore: prefixes of
  keys that the file may hold and nobody reads.
  Raises UserError in one line that names the first few missing, extra or misshapen keys and the counts.
  """
  flat, structure = jax.tree_util.tree_flatten_with_path(template)
  paths = ["/".join(str(part.key) for part in path) for path, _ in flat]
  wanted = [sources[path] for path in paths]
  keys = {key for key, _ in wanted}
  missing = [key for key, _ in wanted if key not in arrays]
  extra = [key for key in arrays if key not in keys and not key.startswith(tuple(ignore))]
  if missing or extra:
    raise UserError(f"{what}: the file does not fit: " + _few("missing", missing, "extra", extra))
  leaves, wrong = [], []
  for (_, leaf), (key, layout) in zip(flat, wanted, strict=True):
    array = np.asarray(arrays[key])
    axes = _LAYOUTS[layout]
    if axes is not None and array.ndim == len(axes):
      array = array.transpose(axes)
    if layout == "same" and array.size == np.prod(leaf.shape):
      array = array.reshape(leaf.shape)
    if array.shape != tuple(leaf.shape):
      wrong.append(f"{key} {array.shape} instead of {tuple(leaf.shape)}")
    leaves.append(array.astype(leaf.dtype))
  if wrong:
    raise UserError(f"{what}: the file does not fit: " + _few("wrong shapes", wrong))
  return jax.tree_util.tree_unflatten(structure, leaves)


def _few(*pairs: Any) -> str:
  """'3 missing (a, b, ...), 1 extra (c)'."""
  said = []
  for name, keys in zip(pairs[::2], pairs[1::2], strict=True):
    if keys:
      said.append(f"{len(keys)} {name} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})")
  return ", ".join(said)

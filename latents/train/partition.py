"""What of a model is trained: variables by path, taken apart and put together again."""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util

from latents.errors import UserError, nearest

Tree = Any  # nested dicts of arrays; the first level are collections ("params", "codebook", ...)


def is_below(path: tuple[str, ...], prefixes: tuple[str, ...]) -> bool:
  """Whether a path of a variable within its collection lies at or below one of the prefixes; "" is everything."""
  text = "/".join(path)
  return any(not p or text == p or text.startswith(p + "/") for p in prefixes)


def select(variables: Mapping[str, Tree], prefixes: tuple[str, ...], below: bool = True) -> dict[str, Tree]:
  """The variables at or below the prefixes (or, with below False, all others); collections without any are left out."""
  if prefixes == ("",):
    return dict(variables) if below else {}
  out = {}
  for name, tree in variables.items():
    flat = traverse_util.flatten_dict(dict(tree))
    chosen = {path: leaf for path, leaf in flat.items() if is_below(path, prefixes) == below}
    if chosen:
      out[name] = traverse_util.unflatten_dict(chosen)
  return out


def check(variables: Mapping[str, Tree], prefixes: tuple[str, ...]) -> None:
  """UserError for a prefix that names nothing, with the nearest part that there is."""
  every = [path for tree in variables.values() for path in traverse_util.flatten_dict(dict(tree))]
  for prefix in filter(None, prefixes):
    if not any(is_below(path, (prefix,)) for path in every):
      known = {"/".join(path[:n]) for path in every for n in range(1, len(path))}
      raise UserError(f"trained: the model has no part '{prefix}'{nearest(prefix, known)}")


def split(variables: Mapping[str, Tree], trained: tuple[str, ...]) -> tuple[dict[str, Tree], dict[str, Tree]]:
  """Collections of variables -> (those below `trained`, all others). UserError for a path that names nothing."""
  check(variables, trained)
  return select(variables, trained), select(variables, trained, below=False)


def merge(one: Tree, other: Tree) -> Tree:
  """Two trees of nested dicts without a common leaf -> their union; where both have a leaf, that of `other`."""
  if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
    return other
  return {**one, **{k: merge(one[k], v) if k in one else v for k, v in other.items()}}


def place(tree: Tree, source: str, into: str) -> Tree:
  """The part of a model's variables at `source` -> the same, standing at `into` (paths within each collection)."""
  out: dict[str, Tree] = {}
  for name, collection in tree.items():
    found = collection
    for word in source.split("/") if source else ():
      found = found.get(word) if isinstance(found, Mapping) else None
      if found is None:
        break
    if found:
      for word in reversed(into.split("/") if into else ()):
        found = {word: found}
      out[name] = found
  if not out:
    raise UserError(f"start: the stage that it begins with has no part '{source}'")
  return out

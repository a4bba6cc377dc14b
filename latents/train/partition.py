"""What of a model is trained: variables by path, taken apart and put together again."""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util

from latents.errors import UserError, nearest

Tree = Any  # nested dicts of arrays; the first level are collections ("params", "codebook", ...)
GIVEN = ("statistics",)  # collections that say what was measured elsewhere; an average of constants is not constant


def is_below(path: tuple[str, ...], prefixes: tuple[str, ...]) -> bool:
  """Whether a path of a variable within its collection lies at or below one of the prefixes; "" is everything."""
  text = "/".join(path)
  return any(not p or text == p or text.startswith(p + "/") for p in prefixes)


def select(variables: Mapping[str, Tree], prefixes: tuple[str, ...], below: bool = True) -> dict[str, Tree]:
  """The variables at or below the prefixes (or, with below False, all others); collections without any are left out.

  What lies in a collection of `GIVEN` is never trained, wherever it stands.
  """
  out = {}
  for name, tree in variables.items():
    every = flat(tree)
    chosen = {p: leaf for p, leaf in every.items() if (name not in GIVEN and is_below(p, prefixes)) == below}
    if len(chosen) == len(every) and below:
      out[name] = tree
    elif chosen:
      out[name] = traverse_util.unflatten_dict(chosen)
  return out


def check(variables: Mapping[str, Tree], prefixes: tuple[str, ...]) -> None:
  """UserError for a prefix that names nothing, with the nearest part that there is."""
  every = [path for tree in variables.values() for path in flat(tree)]
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


def place(tree: Tree, source: str, into: str, where: str) -> Tree:
  """The part of a model's variables at `source` -> the same, standing at `into` (paths within each collection).

  UserError, naming the Start at `where`, for a source that names nothing.
  """
  out: dict[str, Tree] = {}
  for name, collection in tree.items():
    found = collection
    for word in _words(source):
      found = found.get(word) if isinstance(found, Mapping) else None
      if found is None:
        break
    if found:
      for word in reversed(_words(into)):
        found = {word: found}
      out[name] = found
  if not out:
    known = {"/".join(path[:n]) for tree in tree.values() for path in flat(tree) for n in range(1, len(path))}
    raise UserError(f"{where}.source: that stage has no part '{source}'{nearest(source, known)}")
  return out


def flat(tree: Tree) -> dict[tuple[str, ...], Any]:
  """A tree of nested dicts -> {path: leaf}."""
  return traverse_util.flatten_dict(dict(tree))


def _words(path: str) -> list[str]:
  return path.split("/") if path else []

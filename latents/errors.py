"""The one exception for mistakes of a user: the command line prints it as one line and exits with 2."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """Bad input, said in one clear line."""


class Missing(UserError):
  """Data that are not where they are looked for: an experiment file may say where they come from."""


class TooFew(UserError):
  """Too few examples for a number: a score card leaves it out and says why."""


def first_line(error: BaseException) -> str:
  """What another's error says, cut to one line; its kind if it says nothing."""
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def nearest(word: str, choices: Iterable[str]) -> str:
  """' (did you mean X?)' for the choice nearest to `word`, or ''."""
  found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
  return f" (did you mean {found[0]}?)" if found else ""

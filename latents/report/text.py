"""Text on a page: originals above what was decoded, the characters that differ marked; samples as they are."""

import html
from collections.abc import Sequence

import numpy as np

from latents.media.text import printed

SHOWN, LENGTH = 16, 1024  # texts, and bytes of each
STYLE = (
  "<style>.texts pre{margin:0;font:12.5px/1.5 var(--mono);white-space:pre-wrap;overflow-wrap:anywhere}"
  ".texts div{padding:7px 0;border-bottom:1px solid var(--rule)}.texts mark{background:none;color:var(--mark);"
  "text-decoration:underline}.texts small{color:var(--soft)}</style>"
)


def marked(original: Sequence[int], other: Sequence[int]) -> str:
  """The second text as HTML, in <mark> what differs from the first."""
  out, letters = [], printed(np.asarray(other))
  inside = False
  for a, b, letter in zip(original, other, letters, strict=True):
    if (a != b) != inside:
      out.append("</mark>" if inside else "<mark>")
      inside = not inside
    out.append(html.escape(letter))
  return "".join(out) + ("</mark>" if inside else "")


def reconstructions(x: np.ndarray, decodings: dict[str, np.ndarray]) -> str:
  """x int [N,T] and the same of every decoding by name."""
  items = []
  for i in range(min(SHOWN, len(x))):
    row = x[i, :LENGTH]
    lines = f"<pre>{html.escape(printed(row))}</pre>"
    for name, y in decodings.items():
      word = f"<small>{html.escape(name)}</small>" if len(decodings) > 1 else ""
      lines += f"{word}<pre>{marked(row.tolist(), y[i, :LENGTH].tolist())}</pre>"
    items.append(f"<div>{lines}</div>")
  return (
    f'{STYLE}<div class="texts">{"".join(items)}</div><p class="small">{_count(len(x), "held-out texts")} '
    f"Each original, and below it what is decoded from its latent; what differs is marked. {SIGNS}{_cut(x)}</p>"
  )


def samples(x: np.ndarray, rows: list[tuple[str, list[int]]]) -> str:
  """x int [N,T]; rows: (name of a class, indices)."""
  items, shown = [], 0
  for name, members in rows:
    for i in members[: max(1, 2 * SHOWN // len(rows))]:
      word = f"<small>{html.escape(name)}</small>" if name else ""
      items.append(f"<div>{word}<pre>{html.escape(printed(x[i, :LENGTH]))}</pre></div>")
      shown += 1
  return (
    f'{STYLE}<div class="texts">{"".join(items)}</div><p class="small">{shown} of {len(x)} stored samples, '
    f"not selected. {SIGNS}{_cut(x)}</p>"
  )


SIGNS = "\N{PILCROW SIGN} is a line feed, \N{MIDDLE DOT} any other byte that does not print."


def _count(n: int, what: str) -> str:
  return f"{n} {what}." if n <= SHOWN else f"The first {SHOWN} of {n} stored {what}."


def _cut(x: np.ndarray) -> str:
  return f" Cut to {LENGTH} bytes." if x.shape[1] > LENGTH else ""

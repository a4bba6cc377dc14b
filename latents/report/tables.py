"""The tables of a page: runs compared, and the score card of one run."""

from collections.abc import Sequence
from html import escape
from typing import Any

from latents.report import several
from latents.report.run import Run
from latents.report.scores import (
  ARROWS,
  Column,
  chain,
  clip,
  compare,
  describe,
  number,
  order,
  plain,
  prior,
  split,
  value,
)  # fmt: skip


def comparison(runs: Sequence[Run], names: Sequence[str]) -> str:
  """A row a run, a column a score, the best in bold."""
  columns, notes = compare(runs)
  head = '<section class="run only" aria-labelledby="cmp">'
  head += f'<header><h1 id="cmp">{len(runs)} runs compared</h1></header>'
  if not columns:
    rows = "".join(f'<li><a href="#r{i}">{escape(n)}</a></li>' for i, n in enumerate(names))
    return f'{head}<p class="none">None of these runs has been evaluated yet.</p><ul>{rows}</ul></section>'
  groups = list(dict.fromkeys(c.group for c in columns))
  first = {next(i for i, c in enumerate(columns) if c.group == g) for g in groups}
  top = "".join(
    f'<th scope="colgroup" colspan="{sum(c.group == g for c in columns)}" class="first">{g}</th>' for g in groups
  )
  heads = "".join(
    f'<th scope="col" class="n{" first" if i in first else ""}">{_head(c.key)}</th>' for i, c in enumerate(columns)
  )
  rows = []
  for r, run in enumerate(runs):
    cells = "".join(f'<td class="n{" first" if i in first else ""}">{_cell(c, r)}</td>' for i, c in enumerate(columns))
    parts = escape(_chain_text(run))
    rows.append(f'<tr><th scope="row"><a href="#r{r}">{escape(names[r])}</a><span>{parts}</span></th>{cells}</tr>')
  for group in several.seeds(runs):
    cells = "".join(
      f'<td class="n{" first" if i in first else ""}">{escape(several.spread(c, group))}</td>'
      for i, c in enumerate(columns)
    )
    whose = ", ".join(names[i] for i in group)
    rows.append(f'<tr><th scope="row">mean of {len(group)} seeds<span>{escape(whose)}</span></th>{cells}</tr>')
  small = "".join(f" {escape(n)}" for n in notes)
  wide = "The table scrolls sideways. " if len(columns) > 4 else ""
  return (
    f'{head}<div class="wide" tabindex="0" role="region" aria-label="Comparison of runs">'
    f'<table class="cmp"><thead>'
    f'<tr><td></td>{top}</tr><tr><th scope="col">Run</th>{heads}</tr></thead>'
    f"<tbody>{''.join(rows)}</tbody></table></div>"
    f'<p class="small">{wide}Bold: the best of a column. Rate, distortion and modelability trade off against '
    f"each other: a run that wins one axis has usually paid on another.{small}</p>"
    f"{several.differences(runs, names)}{several.curves(runs, names)}</section>"
  )


def _head(key: str, units: bool = True) -> str:
  """A score's name, its direction, and below it what it was measured on."""
  score = describe(key)
  unit = f" ({score.unit})" if score.unit and units else ""
  label, _, features = score.label.partition(", ")
  below = f"<small>{escape(features)}</small>" if features else ""
  return f"{escape(label)}{unit}\N{NO-BREAK SPACE}{_arrow(score.best)}{below}"


def _arrow(best: str) -> str:
  if best not in ARROWS:
    return ""
  sign, words = ARROWS[best]
  spoken = f'<span aria-hidden="true">{sign}</span><span class="vh">{words}</span>'
  return f'<span class="dir" title="{words}">{spoken}</span>'


def _cell(column: Column, row: int) -> str:
  text = escape(value(column.key, column.values[row]))
  return f"<b>{text}</b>" if row in column.best else text


def _chain_text(run: Run) -> str:
  parts, prior = chain(run)
  text = " \N{RIGHTWARDS ARROW} ".join(parts)
  return f"{text} | {prior}" if prior else text


def card(run: Run) -> str:
  """The three axes: rate, distortion, modelability."""
  if not run.scores:
    return '<p class="none">This run has not been evaluated yet: it has no scores.json.</p>'
  latent, _ = split(run.table("latent"))
  kind = run.table("latent").get("kind")
  if kind is not None:
    latent["kind"] = kind
  decodings = {name: split(table) for name, table in run.decodings().items()}
  drawn, ways = split(run.table("samples"))
  drawn = prior(run) | drawn
  pending = "This experiment has no prior." if run.declaration and run.stage(2) is None else "No samples scored yet."
  tables = (
    _axis("Rate", "what the latent holds", {"": latent}, "No latent measured yet."),
    _axis(
      "Distortion",
      "what decoding loses",
      {k: t for k, (t, _) in decodings.items()},
      "No reconstruction scored yet.",
    ),
    _axis("Modelability", "what the prior makes of it", {"": drawn}, pending),
  )
  notes = []
  for name, (_, how) in decodings.items():
    notes += [f"Distortion{f' ({name})' if name else ''}: {_ways(how)}."] if how else []
  notes += [f"Samples: {_ways(ways)}."] if ways else []
  notes = list(dict.fromkeys(notes))
  if len({n.partition(": ")[2] for n in notes if n.startswith("Distortion")}) == 1 and len(decodings) > 1:
    notes = [f"Distortion: {_ways(next(iter(decodings.values()))[1])}."] + [n for n in notes if n.startswith("Samples")]
  notes += protocols(run)
  notes += [f"Left out: {name}, {number(why)}." for name, why in run.table("left_out").items()]
  small = f'<p class="small">{escape(" ".join(notes))}</p>' if notes else ""
  return f'<div class="axes">{"".join(tables)}</div>{small}'


def protocols(run: Run) -> list[str]:
  """A sentence for each protocol, with the scores that share it: 'Precision, recall: <how>.'"""
  shared: dict[str, list[str]] = {}
  for key, how in run.table("protocol").items():
    name = describe(str(key)).label.partition(", ")[0]
    names = shared.setdefault(number(how).rstrip("."), [])
    if name not in names:
      names.append(name)
  return [f"{', '.join([names[0], *map(_small, names[1:])])}: {how}." for how, names in shared.items()]


def _small(label: str) -> str:
  """A label within a sentence: names such as PSNR, and Fréchet's, stay."""
  name = label[:2].isupper() or label.startswith("Fr\N{LATIN SMALL LETTER E WITH ACUTE}")
  return label if name else label[:1].lower() + label[1:]


def _ways(how: dict[str, Any]) -> str:
  words = {"images": "n", "number": "n", "count": "n"}
  return ", ".join(f"{words.get(k, k.replace('_', ' '))} = {plain(v)}" for k, v in how.items())


def _axis(name: str, gloss: str, tables: dict[str, dict[str, Any]], empty: str) -> str:
  """One table: a row a score, a column a decoding."""
  keys = order([k for t in tables.values() for k in t])
  caption = f"<caption>{name} <span>{gloss}</span></caption>"
  if not keys:
    return f'<table>{caption}<tbody><tr><td class="none">{empty}</td></tr></tbody></table>'
  head = ""
  if len(tables) > 1:
    cells = "".join(f'<th scope="col" class="n">{escape(clip(k or "default", 24))}</th>' for k in tables)
    head = f'<thead><tr><th scope="col"><span class="vh">Score</span></th>{cells}</tr></thead>'
  rows = []
  for key in keys:
    score = describe(key)
    unit = f' <span class="u">{score.unit}</span>' if score.unit else ""
    texts = [escape(value(key, t.get(key))) + (unit if t.get(key) is not None else "") for t in tables.values()]
    cells = "".join(f'<td class="n">{text}</td>' for text in texts)
    rows.append(f'<tr><th scope="row">{_head(key, units=False)}</th>{cells}</tr>')
  return f'<div class="wide"><table>{caption}{head}<tbody>{"".join(rows)}</tbody></table></div>'

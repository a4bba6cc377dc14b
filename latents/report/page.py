"""Runs -> the HTML of one page. All text from a run's files passes through `html.escape`."""

import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from latents.report import media
from latents.report.figures import curve
from latents.report.run import Run, finite
from latents.report.scores import (
  ARROWS, DASH, Column, chain, clip, compare, describe, number, order, seconds, split, titles,
)  # fmt: skip
from latents.report.style import CSS, JS

BUDGET = 3_000_000  # bytes of PNG and WAV on a page before base64 adds a third: the page stays below 5 MB
# the page loads nothing: what a file of a run smuggled in could not call home either
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def document(runs: Sequence[Run]) -> str:
  """The whole page: a comparison on top if there are several runs, then each run."""
  several = len(runs) > 1
  names = titles(runs)
  budget = max(BUDGET // len(runs), 120_000)
  title = f"{len(runs)} runs: {', '.join(names)}" if several else names[0]
  body = "".join(section(r, f"r{i}", t, budget, several) for i, (r, t) in enumerate(zip(runs, names, strict=True)))
  return (
    '<!DOCTYPE html><html lang="en" class="nojs"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><link rel="icon" href="data:,">'
    f"<title>{escape(clip(title, 120))}</title><style>{CSS}</style></head><body>"
    f'<a class="skip" href="#r0">Skip to the first run</a><main>{comparison(runs, names) if several else ""}{body}'
    f'<footer class="foot">Made by latents from the files of {_count(len(runs), "run")} alone.</footer></main>'
    f"<script>{JS}</script></body></html>\n"
  )


def _count(n: int, word: str) -> str:
  return f"{n} {word}" if n == 1 else f"{n} {word}s"


def comparison(runs: Sequence[Run], names: Sequence[str]) -> str:
  """A row a run, a column a score, the best in bold."""
  columns, notes = compare(runs)
  head = f'<section class="run only" aria-labelledby="cmp"><header><h1 id="cmp">{len(runs)} runs compared</h1></header>'
  if not columns:
    rows = "".join(f'<li><a href="#r{i}">{escape(n)}</a></li>' for i, n in enumerate(names))
    return f'{head}<p class="none">None of these runs has been evaluated yet.</p><ul>{rows}</ul></section>'
  groups = list(dict.fromkeys(c.group for c in columns))
  first = {next(i for i, c in enumerate(columns) if c.group == g) for g in groups}
  top = "".join(f'<th scope="colgroup" colspan="{sum(c.group == g for c in columns)}" class="first">{g}</th>' for g in groups)
  heads = "".join(f'<th scope="col" class="n{" first" if i in first else ""}">{_head(c.key)}</th>' for i, c in enumerate(columns))
  rows = []
  for r, run in enumerate(runs):
    cells = "".join(
      f'<td class="n{" first" if i in first else ""}">{_cell(c, r)}</td>' for i, c in enumerate(columns)
    )
    parts = escape(_chain_text(run))
    rows.append(f'<tr><th scope="row"><a href="#r{r}">{escape(names[r])}</a><span>{parts}</span></th>{cells}</tr>')
  small = "".join(f" {escape(n)}" for n in notes)
  return (
    f'{head}<div class="wide" tabindex="0" role="region" aria-label="Comparison of runs"><table class="cmp"><thead>'
    f'<tr><td></td>{top}</tr><tr><th scope="col">Run</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    f'<p class="small">Bold: the best of a column. Rate, distortion and modelability trade off against each other: '
    f"a run that wins one axis has usually paid on another.{small}</p></section>"
  )


def _head(key: str) -> str:
  score = describe(key)
  unit = f" ({score.unit})" if score.unit else ""
  return f"{escape(score.label)}{unit} {_arrow(score.best)}"


def _arrow(best: str) -> str:
  if best not in ARROWS:
    return ""
  sign, words = ARROWS[best]
  return f'<span class="dir" title="{words}"><span aria-hidden="true">{sign}</span><span class="vh">{words}</span></span>'


def _cell(column: Column, row: int) -> str:
  text = escape(number(column.values[row]))
  return f"<b>{text}</b>" if row in column.best else text


def _chain_text(run: Run) -> str:
  parts, prior = chain(run)
  text = " \N{RIGHTWARDS ARROW} ".join(parts)
  return f"{text} | {prior}" if prior else text


def section(run: Run, key: str, title: str, budget: int, several: bool) -> str:
  """One run. `key` is the prefix of its ids."""
  h = "h3" if several else "h2"
  latent = media.latents(run, key, budget // 8)
  parts = [
    ("Scores", card(run)),
    ("Originals and reconstructions", media.reconstructions(run, key, budget // 2)),
    ("Latents", latent or ""),
    ("Samples", media.samples(run, key, budget * 3 // 8)),
    ("Stage 1: autoencoder", curves(run, 1)),
    ("Stage 2: prior", curves(run, 2)),
    ("Declaration", declaration(run)),
    ("Reproduce", reproduce(run)),
  ]
  body = "".join(
    f'<section class="part"><{h}>{name}</{h}><div class="body">{content}</div></section>' for name, content in parts if content
  )
  return f'<article class="run{"" if several else " only"}" id="{key}">{header(run, title, several)}{body}</article>'


def header(run: Run, title: str, several: bool) -> str:
  h = "h2" if several else "h1"
  parts, prior = chain(run)
  to = '<span class="to">\N{RIGHTWARDS ARROW}</span>'
  line = to.join(map(escape, parts)) or '<span class="none">The declaration (experiment.json) is missing.</span>'
  if prior:
    line += f'<span class="to">|</span>{escape(prior)}'
  paper = run.scores.get("paper")
  paper = f'<p class="paper">{escape(clip(paper, 400))}</p>' if isinstance(paper, str) and paper.strip() else ""
  facts = [_progress(run, 1), _progress(run, 2)]
  facts += [f"{escape(k.replace('_', ' '))} <b>{escape(number(v))}</b> parameters" for k, v in run.table("parameters").items()][:8]
  folder = f'folder <b class="mono">{escape(run.path.resolve().name)}</b>'
  items = "".join(f"<span>{f}</span>" for f in [*facts, folder] if f)
  return f'<header><{h}>{escape(title)}</{h}><p class="chain">{line}</p>{paper}<div class="facts">{items}</div></header>'


def _progress(run: Run, stage: int) -> str:
  declared = run.stage(stage)
  if declared is None:
    return "no stage 2" if stage == 2 and run.declaration else ""
  steps = [s[-1] for s, _ in run.metrics.get(stage, {}).values() if len(s)]
  total = number(declared.get("steps"))
  if not steps:
    return f"stage {stage} <b>not run yet</b> ({escape(total)} steps)"
  spent = run.table("time").get(f"stage{stage}_s")
  took = f", {escape(seconds(spent))}" if spent is not None else ""
  return f"stage {stage} <b>step {escape(number(_whole(max(steps))))}</b> of {escape(total)}{took}"


def _whole(x: float) -> float | int:
  return int(x) if x == int(x) else x


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
  pending = "This experiment has no prior." if run.declaration and run.stage(2) is None else "No samples scored yet."
  tables = (
    _axis("Rate", "what the latent holds", {"": latent}, "No latent measured yet."),
    _axis("Distortion", "what decoding loses", {k: t for k, (t, _) in decodings.items()}, "No reconstruction scored yet."),
    _axis("Modelability", "what the prior makes of it", {"": drawn}, pending),
  )
  notes = []
  for name, (_, how) in decodings.items():
    notes += [f"Distortion{f' ({name})' if name else ''}: {_ways(how)}."] if how else []
  notes += [f"Samples: {_ways(ways)}."] if ways else []
  notes = list(dict.fromkeys(notes))
  if len({n.partition(": ")[2] for n in notes if n.startswith("Distortion")}) == 1 and len(decodings) > 1:
    notes = [f"Distortion: {_ways(next(iter(decodings.values()))[1])}."] + [n for n in notes if n.startswith("Samples")]
  notes += [f"{str(k).replace('_', ' ').capitalize()}: {number(v).rstrip('.')}." for k, v in run.table("protocol").items()]
  small = f'<p class="small">{escape(" ".join(notes))}</p>' if notes else ""
  return f'<div class="axes">{"".join(tables)}</div>{small}'


def _ways(how: dict[str, Any]) -> str:
  words = {"images": "n", "number": "n", "count": "n"}
  return ", ".join(f"{words.get(k, k.replace('_', ' '))} = {number(v)}" for k, v in how.items())


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
    cells = "".join(
      f'<td class="n">{escape(number(t.get(key)))}{f" <span class=u>{score.unit}</span>" if score.unit and t.get(key) is not None else ""}</td>'
      for t in tables.values()
    )
    rows.append(f'<tr><th scope="row">{escape(score.label)} {_arrow(score.best)}</th>{cells}</tr>')
  return f'<div class="wide"><table>{caption}{head}<tbody>{"".join(rows)}</tbody></table></div>'


def curves(run: Run, stage: int) -> str:
  """Small multiples of a stage's log: losses, diagnostics, then speed."""
  terms = run.metrics.get(stage, {})
  if not terms:
    if stage == 2 and run.declaration and run.stage(2) is None:
      return '<p class="none">This experiment has no stage 2.</p>'
    return f'<p class="none">Stage {stage} has not run yet: metrics.jsonl has no line of it.</p>'
  groups: dict[str, list[str]] = {"": [], "Diagnostics": [], "Speed": []}
  for name in sorted(terms, key=lambda n: (not n.endswith("/total"), n)):
    other = any(w in name for w in ("grad", "lr", "usage", "perplexity", "skipped", "weight"))
    groups["Speed" if name.startswith("time/") else "Diagnostics" if other else ""].append(name)
  out = []
  for group, names in groups.items():
    if names:
      title = f"<h4>{group}</h4>" if group else ""
      out.append(f'{title}{_speed(terms) if group == "Speed" else ""}<div class="curves">')
      out += [curve(name.removeprefix("train/"), *terms[name]) for name in names] + ["</div>"]
  lost = f" {_count(run.unread, 'line')} of the log could not be read." if run.unread else ""
  return (
    f'{"".join(out)}<p class="small">Thin: as logged. Thick: mean over a twentieth of the run (of logarithms on log '
    f"axes); the number is its last value. Point at a curve for its values.{lost}</p>"
  )


def _speed(terms: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
  """The median step, and the share of it that waits for data."""
  words = []
  step = _median(terms, "time/step_s")
  if step and step > 0:
    words.append(f"Median step {number(1000 * step)} ms ({number(1 / step)} a second)")
  wait = _median(terms, "time/data_wait")
  if wait is not None:
    words.append(f"{number(100 * wait)} % of the time waits for data")
  return f'<p class="small" style="margin:0 0 12px">{"; ".join(words)}.</p>' if words else ""


def _median(terms: dict[str, tuple[np.ndarray, np.ndarray]], name: str) -> float | None:
  values = terms.get(name, (None, np.empty(0)))[1]
  values = values[np.isfinite(values)]
  return float(np.median(values)) if len(values) else None


def declaration(run: Run) -> str:
  if not run.declaration:
    return '<p class="none">This run has no experiment.json.</p>'
  return f'<details><summary>The experiment as it was declared (experiment.json)</summary><div class="tree">{_tree(run.declaration, "", 0)}</div></details>'


def _tree(x: Any, key: str, level: int) -> str:
  """JSON as nested <details>; parts show their class."""
  label = f'<span class="k">{escape(clip(key, 80))}:</span> ' if key else ""
  if isinstance(x, dict | list) and x and not (isinstance(x, list) and all(not isinstance(v, dict | list) for v in x)):
    pairs = [(k, v) for k, v in x.items() if k != "!"] if isinstance(x, dict) else [(str(i), v) for i, v in enumerate(x)]
    name = f'<span class="c">{escape(str(x["!"]).rpartition(":")[2])}</span>' if isinstance(x, dict) and "!" in x else ""
    if not pairs:
      return f'<div class="leaf">{label}{name}()</div>'
    inner = "".join(_tree(v, str(k), level + 1) for k, v in pairs)
    return f"<details{' open' if level < 3 else ''}><summary>{label}{name}</summary>{inner}</details>"
  return f'<div class="leaf">{label}{escape(clip(json.dumps(x, ensure_ascii=False), 2000))}</div>'


def reproduce(run: Run) -> str:
  """The command and the environment."""
  command, env = run.scores.get("command"), run.table("environment")
  out = ""
  if isinstance(command, str) and command.strip():
    out += (
      f'<div class="cmd"><pre tabindex="0" aria-label="Command"><code>{escape(command)}</code></pre>'
      '<button type="button" class="copy js">Copy</button></div>'
    )
  else:
    out += '<p class="none">The command was not recorded.</p>'
  seed = run.declaration.get("seed")
  rows = [*env.items(), *([("seed", seed)] if seed is not None else [])]
  rows += [(f"stage {k[5]} took", seconds(v)) for k, v in run.table("time").items() if k in ("stage1_s", "stage2_s")]
  if rows:
    cells = "".join(f'<tr><th scope="row">{escape(str(k))}</th><td>{escape(_plain(v))}</td></tr>' for k, v in rows)
    out += f'<table class="env"><tbody>{cells}</tbody></table>'
  return out


def _plain(x: Any) -> str:
  """An environment's value: exact for numbers (a seed is no measurement)."""
  if isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(finite(x)):
    return clip(str(x), 60)
  return clip(json.dumps(x), 400) if isinstance(x, dict) else number(x)

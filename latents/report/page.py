"""Runs -> the HTML of one page. All text from a run's files passes through `html.escape`."""

import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from latents.media.mark import PAGE
from latents.report import media
from latents.report.curves import curve
from latents.report.neighbours import neighbours
from latents.report.run import Run, finite
from latents.report.scores import chain, clip, number, seconds, titles
from latents.report.several import diagnostic
from latents.report.style import CSS, JS
from latents.report.tables import card, comparison

BUDGET = 2_700_000  # bytes of PNG and WAV on a page before base64 adds a third: the page stays below 5 MB
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
    f'<meta name="viewport" content="width=device-width,initial-scale=1">{PAGE}'
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><link rel="icon" href="data:,">'
    f"<title>{escape(clip(title, 120))}</title><style>{CSS}</style></head><body>"
    f'<a class="skip" href="#r0">Skip to the first run</a>'
    f"<main>{comparison(runs, names) if several else ''}{body}"
    f'<footer class="foot">Made by latents from the files of {_count(len(runs), "run")} alone.</footer>'
    "</main>"
    f"<script>{JS}</script></body></html>\n"
  )


def _count(n: int, word: str) -> str:
  return f"{n} {word}" if n == 1 else f"{n} {word}s"


def section(run: Run, key: str, title: str, budget: int, several: bool) -> str:
  """One run. `key` is the prefix of its ids."""
  h = "h3" if several else "h2"
  latent, beside = media.latents(run, key, budget // 8), neighbours(run, key, budget // 8)
  parts = [
    ("Scores", card(run)),
    (
      "Originals and reconstructions",
      media.reconstructions(run, key, budget // 2 if run.samples else budget * 7 // 8),
    ),
    ("Latents", latent or ""),
    ("Samples", media.samples(run, key, budget * 3 // 8 - (budget // 8 if beside else 0))),
    ("Nearest training examples", beside or ""),
    ("Stage 1: autoencoder", curves(run, 1)),
    ("Stage 2: prior", curves(run, 2)),
    ("Declaration", declaration(run)),
    ("Reproduce", reproduce(run)),
  ]
  body = "".join(
    f'<section class="part"><{h}>{name}</{h}><div class="body">{content}</div></section>'
    for name, content in parts
    if content
  )
  kind = "run" if several else "run only"
  return f'<article class="{kind}" id="{key}">{header(run, title, several)}{body}</article>'


def header(run: Run, title: str, several: bool) -> str:
  """The run's name, its paper and its parts in one line."""
  h = "h2" if several else "h1"
  parts, prior = chain(run)
  to = ' <span class="to">\N{RIGHTWARDS ARROW}</span> '
  line = to.join(map(escape, parts)) or '<span class="none">The declaration (experiment.json) is missing.</span>'
  if prior:
    line += f' <span class="to">|</span> {escape(prior)}'
  paper = run.scores.get("paper")
  paper = f'<p class="paper">{escape(clip(paper, 400))}</p>' if isinstance(paper, str) and paper.strip() else ""
  facts = [_progress(run, 1), _progress(run, 2)]
  facts += [
    f"{escape(k.replace('_', ' '))} <b>{escape(number(v))}</b> parameters" for k, v in run.table("parameters").items()
  ][:8]
  folder = f'folder <b class="mono">{escape(run.path.resolve().name)}</b>'
  items = "".join(f"<span>{f}</span>" for f in [*facts, folder] if f)
  top = f'<{h}>{escape(title)}</{h}><p class="chain">{line}</p>'
  return f'<header>{top}{paper}<div class="facts">{items}</div></header>'


def _progress(run: Run, stage: int) -> str:
  declared = run.stage(stage)
  if declared is None:
    return "no stage 2" if stage == 2 and run.declaration else ""
  steps = [s[-1] for s, _ in run.metrics.get(stage, {}).values() if len(s)]
  total = number(declared.get("steps"))
  if untrained(run, stage):
    return f"stage {stage} <b>needs no training</b>"
  if not steps:
    return f"stage {stage} <b>not run yet</b> ({escape(total)} steps)"
  spent = run.table("time").get(f"stage{stage}_s")
  took = f", {escape(seconds(spent))}" if spent is not None else ""
  return f"stage {stage} <b>step {escape(number(_whole(max(steps))))}</b> of {escape(total)}{took}"


def untrained(run: Run, stage: int) -> bool:
  """Whether a stage is declared without steps (the identity autoencoder of a model on pixels)."""
  declared = run.stage(stage)
  return declared is not None and finite(declared.get("steps")) == 0


def _whole(x: float) -> float | int:
  return int(x) if x == int(x) else x


def curves(run: Run, stage: int) -> str:
  """Small multiples of a stage's log: losses, diagnostics, then speed."""
  terms = run.metrics.get(stage, {})
  if not terms:
    if stage == 2 and run.declaration and run.stage(2) is None:
      return '<p class="none">This experiment has no stage 2.</p>'
    if untrained(run, stage):
      return f'<p class="none">Stage {stage} needs no training: it is declared with 0 steps.</p>'
    return f'<p class="none">Stage {stage} has not run yet: metrics.jsonl has no line of it.</p>'
  groups: dict[str, list[str]] = {"": [], "Diagnostics": [], "Speed": []}
  over = {name: terms.get(name.replace("train/", "held_out/", 1)) for name in terms if name.startswith("train/")}
  alone = [name for name in terms if not (name.startswith("held_out/") and name.replace("held_out/", "train/") in over)]
  for name in sorted(alone, key=lambda n: (not n.endswith("/total"), n)):
    groups["Speed" if name.startswith("time/") else "Diagnostics" if diagnostic(name) else ""].append(name)
  out = []
  for group, names in groups.items():
    if names:
      title = f"<h4>{group}</h4>" if group else ""
      out.append(f'{title}{_speed(terms) if group == "Speed" else ""}<div class="curves">')
      linear = group == "Speed"
      out += [curve(_term(name), *terms[name], linear=linear, held_out=over.get(name)) for name in names] + ["</div>"]
  lost = f" {_count(run.unread, 'line')} of the log could not be read." if run.unread else ""
  held = " Dashed: on held-out examples, as measured." if any(over.values()) else ""
  return (
    f'{"".join(out)}<p class="small">Thin: as logged. Thick: mean over a twentieth of the run (of logarithms '
    f"on log axes); the number is its last value.{held} Point at a curve for its values.{lost}</p>"
  )


def _term(name: str) -> str:
  return {"time/step_s": "step time (s)", "time/data_wait": "share waiting for data"}.get(
    name, name.removeprefix("train/").replace("held_out/", "held-out ", 1)
  )


def _speed(terms: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
  """The median step, and the share of it that waits for data."""
  words = []
  step = _median(terms, "time/step_s")
  if step and step > 0:
    words.append(f"Median step {1000 * step:.3g} ms ({1 / step:.3g} a second)")
  wait = _median(terms, "time/data_wait")
  if wait is not None:
    words.append(f"{100 * wait:.1f} % of the time waits for data")
  return f'<p class="small" style="margin:0 0 12px">{"; ".join(words)}.</p>' if words else ""


def _median(terms: dict[str, tuple[np.ndarray, np.ndarray]], name: str) -> float | None:
  values = terms.get(name, (None, np.empty(0)))[1]
  values = values[np.isfinite(values)]
  return float(np.median(values)) if len(values) else None


def declaration(run: Run) -> str:
  """The stored experiment as a tree that opens."""
  if not run.declaration:
    return '<p class="none">This run has no experiment.json.</p>'
  tree = f'<div class="tree">{_tree(run.declaration, "", 0)}</div>'
  return f"<details><summary>The experiment as it was declared (experiment.json)</summary>{tree}</details>"


def _tree(x: Any, key: str, level: int) -> str:
  """JSON as nested <details>; parts show their class."""
  label = f'<span class="k">{escape(clip(key, 80))}:</span> ' if key else ""
  if isinstance(x, dict | list) and x and not (isinstance(x, list) and all(not isinstance(v, dict | list) for v in x)):
    pairs = (
      [(k, v) for k, v in x.items() if k != "!"] if isinstance(x, dict) else [(str(i), v) for i, v in enumerate(x)]
    )
    name = (
      f'<span class="c">{escape(str(x["!"]).rpartition(":")[2])}</span>' if isinstance(x, dict) and "!" in x else ""
    )
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
  rows += [("one sample", seconds(v)) for k, v in run.table("time").items() if k == "sample_s"]
  if rows:
    cells = "".join(f'<tr><th scope="row">{escape(str(k))}</th><td>{escape(_plain(v))}</td></tr>' for k, v in rows)
    out += f'<table class="env"><tbody>{cells}</tbody></table>'
  return out


def _plain(x: Any) -> str:
  """An environment's value: exact for numbers (a seed is no measurement)."""
  if isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(finite(x)):
    return clip(str(x), 60)
  return clip(json.dumps(x), 400) if isinstance(x, dict) else number(x)

"""What a page of several runs shows beyond scores: what was declared otherwise, seeds together, curves overlaid."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from latents.report.curves import overlay
from latents.report.run import Run, finite
from latents.report.scores import Column, clip, number

ROWS, LINES, CURVES = 40, 8, 12  # of a table of differences; runs in one figure; figures


def diagnostic(name: str) -> bool:
  """Whether a line of the log is no loss."""
  return any(word in name for word in ("grad", "lr", "usage", "perplexity", "skipped", "weight"))


def flat(tree: Any, path: str = "") -> dict[str, str]:
  """A declaration -> dotted path -> value as text; a part's class stands at the part's own path."""
  if isinstance(tree, dict):
    found: dict[str, str] = {}
    for key, value in tree.items():
      found |= flat(value, path if key == "!" else f"{path}.{key}" if path else str(key))
    return found
  if isinstance(tree, list) and any(isinstance(value, dict) for value in tree):
    return flat({str(i): value for i, value in enumerate(tree)}, path)
  return {path: tree.rpartition(":")[2] if isinstance(tree, str) and ":" in tree else json.dumps(tree)}


def differing(runs: Sequence[Run]) -> dict[str, list[str]]:
  """Path -> the value of each run ("" where it has none), where they are not all equal; names of runs apart. What
  stands below a part of another class is not told: it is another part's."""
  trees = [flat(run.declaration) for run in runs]
  paths = list(dict.fromkeys(path for tree in trees for path in tree))
  found = {path: [tree.get(path, "") for tree in trees] for path in paths if path != "name"}
  found = {path: values for path, values in found.items() if len(set(values)) > 1}
  other = {path for path, values in found.items() if all(value[:1].isupper() for value in values if value)}
  return {path: v for path, v in found.items() if not any(path.startswith(f"{part}.") for part in other)}


def differences(runs: Sequence[Run], names: Sequence[str]) -> str:
  """A row a field that was declared otherwise, a column a run."""
  found = differing(runs)
  if not found:
    return '<p class="small">All runs have the same declaration.</p>'
  head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
  rows = "".join(
    f'<tr><th scope="row" class="mono">{escape(clip(path, 120))}</th>'
    + "".join(f'<td class="mono">{escape(clip(value, 60)) or "&ndash;"}</td>' for value in values)
    + "</tr>"
    for path, values in list(found.items())[:ROWS]
  )
  more = f'<p class="small">{len(found) - ROWS} more fields differ.</p>' if len(found) > ROWS else ""
  return (
    '<h3>What was declared otherwise</h3><div class="wide" tabindex="0" role="region" aria-label="Differences">'
    f'<table class="cmp"><thead><tr><th scope="col">Field</th>{head}</tr></thead>'
    f"<tbody>{rows}</tbody></table></div>{more}"
  )


def seeds(runs: Sequence[Run]) -> list[list[int]]:
  """The runs, by number, that differ in nothing but seeds: groups of two and more."""
  groups: dict[str, list[int]] = {}
  for i, run in enumerate(runs):
    told = {
      path: value for path, value in flat(run.declaration).items() if path.rpartition(".")[2] not in ("seed", "name")
    }
    if told:
      groups.setdefault(json.dumps(told, sort_keys=True), []).append(i)
  return [group for group in groups.values() if len(group) > 1]


def spread(column: Column, group: Sequence[int]) -> str:
  """mean ± standard deviation (n - 1) of a column over a group of runs; "" where one has no number."""
  values = np.array([finite(column.values[i]) for i in group])
  if not np.isfinite(values).all():
    return ""
  return f"{number(float(values.mean()))} ± {number(float(values.std(ddof=1)))}"


def curves(runs: Sequence[Run], names: Sequence[str]) -> str:
  """The losses that two and more runs have logged, their curves in one figure each."""
  figures = []
  for stage in (1, 2):
    logs: list[Mapping[str, Any]] = [run.metrics.get(stage, {}) for run in runs]
    names_of = (n for log in logs for n in log if n.startswith(("train/", "held_out/")) and not diagnostic(n))
    terms = list(dict.fromkeys(names_of))
    for term in sorted(terms, key=lambda name: (not name.endswith("/total"), name)):
      lines = [(i, *log[term]) for i, log in enumerate(logs[:LINES]) if term in log]
      if len(lines) > 1:
        told = term.removeprefix("train/").replace("held_out/", "held-out ", 1)
        figures.append(overlay(f"stage {stage}: {told}", lines, names))
  if not figures:
    return ""
  legend = "".join(f'<span class="s{i}">{escape(name)}</span>' for i, name in enumerate(names[:LINES]))
  left = f" The first {LINES} runs of {len(runs)}." if len(runs) > LINES else ""
  left += f" {len(figures) - CURVES} more terms stand with each run." if len(figures) > CURVES else ""
  return (
    f'<h3>Losses together</h3><p class="legend">{legend}</p><div class="curves">{"".join(figures[:CURVES])}</div>'
    f'<p class="small">Means over a twentieth of each run.{left}</p>'
  )

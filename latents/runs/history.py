"""What a run's log says over its steps, short enough to be stored with a sweep's table."""

from pathlib import Path

from latents.train import log

Curve = list[list[float]]  # points [step, value]
POINTS = 70  # of a curve


def read(metrics: Path) -> dict[str, Curve]:
  """The curves of stage 1 in a metrics.jsonl, by the log's names: means over at most POINTS stretches of its lines. A
  stretch where the log has no number has no point."""
  lines = [line for line in log.read(metrics) if line["stage"] == 1]
  names = dict.fromkeys(name for line in lines for name in line if name not in ("stage", "step"))
  size = -(-len(lines) // POINTS)
  parts = [lines[i : i + size] for i in range(0, len(lines), size or 1)]
  return {name: [point for part in parts if (point := _point(part, name))] for name in names}


def _point(part: list[dict], name: str) -> list[float]:
  values = [line[name] for line in part if line.get(name) is not None]
  return [part[-1]["step"], float(f"{sum(values) / len(values):.4g}")] if values else []

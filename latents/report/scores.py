"""Scores as people read them: labels, units, directions, numbers; and the comparison of runs."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

from latents.report.run import Run, finite

DASH = "\N{EN DASH}"


@dataclasses.dataclass(frozen=True)
class Score:
  """How a score is shown. best: 'low', 'high', 'one' (a ratio whose ideal is 1) or '' (no ranking).

  What follows ", " in a label is set small below it.
  """

  label: str
  unit: str = ""
  best: str = ""


KNOWN = {
  "tsr": Score("Tensor size reduction", "\N{MULTIPLICATION SIGN}", "high"),
  "bits": Score("Bits per example", "bit", "low"),
  "capacity_bits": Score("Capacity of the Gaussian channel", "bit"),
  "kl_bits": Score("KL to N(0,1)", "bit"),
  "active_share": Score("Latent numbers in use"),
  "usage": Score("Codes in use"),
  "usage_ceiling": Score("Codes in use, if uniform"),
  "dead": Score("Codes never used"),
  "tokens_counted": Score("Tokens whose codes were counted"),
  "perplexity": Score("Code perplexity"),
  "entropy_bits": Score("Entropy of a token", "bit"),
  "rate_bits": Score("Rate, all codes equal", "bit"),
  "entropy_rate_bits": Score("Rate, entropy-coded", "bit"),
  "numbers": Score("Numbers in a latent"),
  "std_spread": Score("Channel deviations, least and most"),
  "shape": Score("Latent shape"),
  "kind": Score("Latent kind"),
  "spectrum_slope": Score("Slope of the spectrum"),
  "fine_power": Score("Power in fine detail"),
  "neighbour_correlation": Score("Correlation of neighbours"),
  "effective_channels": Score("Channels in effect"),
  "excess_kurtosis": Score("Excess kurtosis"),
  "channel_mean": Score("Largest mean of a channel, held-out"),
  "channel_std": Score("Deviations of channels, held-out"),
  "psnr": Score("PSNR", "dB", "high"),
  "log_mel_db": Score("Log-mel distance", "dB", "low"),
  "ssim": Score("SSIM", "", "high"),
  "high_frequency_kept": Score("High-frequency energy kept", "", "one"),
  "bits_per_element": Score("Held-out bits, of one code or number", "bit"),
  "bits_per_example": Score("Held-out bits, of an example", "bit"),
  "bits_per_dim": Score("Held-out bits, a number of the signal", "bit"),
  "marginal_bits_per_element": Score("Bits by a histogram a position, of one code", "bit"),
  "marginal_bits_per_dim": Score("Bits by a histogram a position, a number of the signal", "bit"),
  "first_order_bits_per_element": Score("Bits by pairs of codes, of one code", "bit"),
  "first_order_bits_per_dim": Score("Bits by pairs of codes, a number of the signal", "bit"),
  "counted_examples": Score("Training examples counted for these"),
  "tokens_before": Score("Codes of an example"),
  "tokens_after": Score("Merged tokens of an example"),
  "tokens_most": Score("Merged tokens, at most"),
  "shortening": Score("Codes a merged token", "\N{MULTIPLICATION SIGN}"),
  "unigram_bits_before": Score("Unigram entropy, of one code", "bit"),
  "unigram_bits_after": Score("Unigram entropy merged, of one code", "bit"),
  "codes_cut": Score("Sampled codes without a place, share"),
  "codes_filled": Score("Places without a sampled code, share"),
  "classifier_accuracy": Score("Classifier on real held-out data"),
  "sample_to_train": Score("Sample to nearest training example", "RMS"),
  "heldout_to_train": Score("Held-out to nearest training example", "RMS"),
  "sample_to_sample": Score("Sample to nearest sample", "RMS"),
  "heldout_to_heldout": Score("Held-out to nearest held-out", "RMS"),
}
# what a score's name starts with (the longest counts), where the rest says on which features it was measured
FAMILIES = {
  "heldout_loss": Score("Held-out loss"),
  "lpips": Score("LPIPS", "", "low"),
  "frechet": Score("Fr\N{LATIN SMALL LETTER E WITH ACUTE}chet distance", "", "low"),
  "kernel": Score("Kernel distance", "", "low"),
  "kernel_std": Score("Kernel distance, deviation over subsets"),
  "precision": Score("Precision", "", "high"),
  "recall": Score("Recall", "", "high"),
  "class_agreement": Score("Class agreement", "", "high"),
  "classifier_accuracy": Score("Classifier on real held-out data"),
  "data_error_at": Score("Data error at log-SNR"),
  "energy": Score("Energy of samples over the data's, octave up to", "", "one"),
  **{k: KNOWN[k] for k in ("sample_to_train", "heldout_to_train", "sample_to_sample", "heldout_to_heldout")},
}
SETTINGS = ("images", "number", "n", "count", "guidance", "seed", "steps", "batch", "sampler", "features")
ARROWS = {
  "low": ("\N{DOWNWARDS ARROW}", "lower is better"),
  "high": ("\N{UPWARDS ARROW}", "higher is better"),
  "one": ("\N{RIGHTWARDS ARROW}1", "closer to 1 is better"),
}


def describe(key: str) -> Score:
  """The Score of a key of scores.json; unknown keys keep their name and are not ranked."""
  if key in KNOWN:
    return KNOWN[key]
  start = family(key)
  if start is not None:
    score, rest = FAMILIES[start], key[len(start) + 1 :].replace("_", " ")
    rest = rest.replace("efficientnet lite0", "EfficientNet-Lite0")
    return dataclasses.replace(score, label=f"{score.label}, {rest}" if rest else score.label)
  label = key.replace("_", " ").strip() or "value"
  return Score(label[:1].upper() + label[1:])


def family(key: str) -> str | None:
  """The longest name of a family that a key starts with."""
  return max((k for k in FAMILIES if key == k or key.startswith(k + "_")), key=len, default=None)


def number(x: Any) -> str:
  """Any JSON value as short text: 3 or 4 significant digits, grouped integers, en dash for null."""
  if x is None:
    return DASH
  if isinstance(x, bool):
    return "yes" if x else "no"
  if isinstance(x, list):
    if x and all(isinstance(v, int | float) and not isinstance(v, bool) for v in x):
      sign = " \N{MULTIPLICATION SIGN} " if all(isinstance(v, int) for v in x) else ", "  # a shape, or values
      return sign.join(map(number, x[:8]))
    return ", ".join(number(v) for v in x[:8])
  if not isinstance(x, int | float):
    return clip(str(x), 200)
  value = finite(x)
  if math.isnan(value):
    overflow = isinstance(x, int) or math.isinf(x)
    return ("\N{MINUS SIGN}" if x < 0 else "") + "\N{INFINITY}" if overflow else "nan"
  if value == 0:
    return "0"
  if abs(value) < 1e15 and isinstance(x, int):
    text = f"{x:,}".replace(",", "\N{NARROW NO-BREAK SPACE}") if abs(x) >= 10_000 else str(x)
  elif 1e-3 <= abs(value) < 1e6:
    size = math.floor(math.log10(abs(value)))  # 27.13, 0.953, 0.0421
    places = max(0, (3 if size >= 0 else 2) - size)
    text = f"{value:.{places}f}"
  else:
    text = f"{value:.2e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
  return text.replace("-", "\N{MINUS SIGN}")


def plain(x: Any) -> str:
  """A setting or a ratio: as `number`, but 2.0 is 2."""
  whole = isinstance(x, float) and math.isfinite(x) and x == int(x) and abs(x) < 1e15
  return number(int(x) if whole else x)


def value(key: str, x: Any) -> str:
  """A score as text; ratios of sizes are exact."""
  return plain(x) if key == "tsr" else number(x)


def clip(text: str, length: int) -> str:
  """Text of at most `length` characters."""
  return text if len(text) <= length else text[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def seconds(x: Any) -> str:
  """Seconds as people say them: '12.3 s', '4 min 5 s', '3 h 20 min'."""
  value = finite(x)
  if math.isnan(value) or value < 0:
    return DASH
  if value < 60:
    return f"{number(float(value))} s"
  whole = round(value)
  if whole < 3600:
    return f"{whole // 60} min {whole % 60} s"
  return f"{whole // 3600} h {whole % 3600 // 60} min"


def split(table: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """One level of a table of scores -> (scores, settings): what was measured, and how."""
  flat: dict[str, Any] = {}
  for key, value in table.items():
    flat |= {f"{key} {k}".strip(): v for k, v in value.items()} if isinstance(value, dict) else {key: value}
  setting = {k: v for k, v in flat.items() if k in SETTINGS or isinstance(v, str)}
  return {k: v for k, v in flat.items() if k not in setting}, setting


def prior(run: Run) -> dict[str, Any]:
  """The prior's scores: its held-out terms by the name of their family, and bits where they are known (not nats too).

  They rank priors on the same latents alone, and so no run is marked as the best.
  """
  table, _ = split(run.table("prior"))
  known = {k: v for k, v in table.items() if k in KNOWN or family(k)}
  terms = {f"heldout_loss_{k}": v for k, v in table.items() if k not in known and k != "nats_per_element"}
  return terms | known


def order(keys: Sequence[str]) -> list[str]:
  """The prior's own loss first; known scores in the order of the tables above; then the others as they come."""
  known = ["heldout_loss", *KNOWN, *FAMILIES]

  def rank(key: str) -> int:
    name = key if key in KNOWN else family(key)
    return known.index(name) if name is not None else len(known)

  return sorted(dict.fromkeys(keys), key=rank)


@dataclasses.dataclass(frozen=True)
class Column:
  """One score over all runs. best: the rows to print in bold; groups: the axis it belongs to."""

  group: str
  key: str
  values: tuple[Any, ...]
  best: frozenset[int]

  @property
  def score(self) -> Score:
    """How it is shown."""
    return describe(self.key)


def main_decoding(run: Run) -> dict[str, Any]:
  """Distortion of the decoding that has no name, else of the first one."""
  decodings = run.decodings()
  return decodings.get("") or next(iter(decodings.values()), {})


def compare(runs: Sequence[Run]) -> tuple[list[Column], list[str]]:
  """The columns of the comparison, and notes on what makes runs not comparable.

  A group of scores that were measured in different ways (other numbers of examples, other data, another protocol) has
  no best.
  """
  groups = {
    "Rate": [split({k: v for k, v in r.table("latent").items() if k != "kind"}) for r in runs],
    "Distortion": [split(main_decoding(r)) for r in runs],
    "Prior": [(prior(r), {}) for r in runs],
    "Samples": [split(r.table("samples")) for r in runs],
  }
  columns, notes = [], []
  data = {json.dumps(r.table("data"), sort_keys=True, default=str) for r in runs if r.table("data")}
  if len(data) > 1:
    notes.append("The runs are of different data, so none is marked as the best.")
  for group, tables in groups.items():
    ways = {str([s.get(k) for k in ("images", "number", "n", "count")]) for t, s in tables if t}
    if len(ways) > 1:
      notes.append(f"{group}: measured on different numbers of examples, so no run is marked as the best.")
    for key in order([k for table, _ in tables for k in table]):
      values = tuple(table.get(key) for table, _ in tables)
      chosen = (
        best(values, describe(key).best) if len(ways) == 1 and len(data) < 2 and one_way(runs, key) else frozenset()
      )
      columns.append(Column(group, key, values, chosen))
  if len({str(sorted(r.table("protocol").items(), key=str)) for r in runs if r.table("protocol")}) > 1:
    notes.append("The runs were measured under different protocols (see each run).")
  return columns, notes


def one_way(runs: Sequence[Run], key: str) -> bool:
  """Whether all runs that say how they measured a score say the same."""
  return len({str(r.table("protocol")[key]) for r in runs if key in r.table("protocol")}) < 2


def best(values: Sequence[Any], direction: str) -> frozenset[int]:
  """The rows with the best value; none where fewer than two have one or all are equal."""
  signs = {"low": lambda v: v, "high": lambda v: -v, "one": lambda v: abs(v - 1)}
  costs = {i: signs[direction](finite(v)) for i, v in enumerate(values) if direction and not math.isnan(finite(v))}
  if len(costs) < 2 or len(set(costs.values())) == 1:
    return frozenset()
  return frozenset(i for i, cost in costs.items() if cost == min(costs.values()))


def part(tree: Any) -> str:
  """The class of a part of a declaration, '?' if it is none."""
  name = tree.get("!") if isinstance(tree, dict) else None
  return clip(name.rpartition(":")[2] or "?", 60) if isinstance(name, str) else "?"


def chain(run: Run) -> tuple[list[str], str | None]:
  """([encoder, bottleneck, decoder], prior): the classes of the parts; the prior with its backbone."""
  model = (run.stage(1) or {}).get("model")
  parts = (
    [part(model.get(k)) for k in ("encoder", "bottleneck", "decoder") if k in model] if isinstance(model, dict) else []
  )
  prior = (run.stage(2) or {}).get("prior")
  if prior is None:
    return parts, None
  inner = prior.get("backbone") if isinstance(prior, dict) else None
  return parts, f"{part(prior)}({part(inner)})" if inner else part(prior)


def titles(runs: Sequence[Run]) -> list[str]:
  """One distinct title a run: its name, with its folder where names repeat."""
  names = [run.name for run in runs]
  folders = [run.path.resolve().name for run in runs]
  out = [n if names.count(n) == 1 or f == n else f"{n} ({f})" for n, f in zip(names, folders, strict=True)]
  return [t if out.count(t) == 1 else f"{t} #{i + 1}" for i, t in enumerate(out)]

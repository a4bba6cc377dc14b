"""`python -m latents.command.index`: writes experiments/README.md, a row an experiment, from what the files say.

A chapter is a folder of experiments/ and is called what its `__init__.py` says. A row is made of the docstring of an
experiment file and of experiments/results/NAME/: arXiv numbers anywhere in the docstring are its papers; a paragraph of
one line that begins with `Paper: ` is what they report, one with `Shown: ` what was seen here, beside the numbers of
scores.json and the flags that they were made with, or the verdicts of a sweep (results/ablations/NAME.json).
"""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from latents.command.catalogue import Chapter, chapters, docstring, said
from latents.command.overrides import folders
from latents.errors import UserError
from latents.report.scores import describe, number

FILE = "README.md"
HEAD = """# Experiments

Written by `python -m latents.command.index` from the docstrings of the files and from `results/`; not edited by hand.
Every row is one file: `latents run experiments/CHAPTER/NAME.py --scale tiny|paper`. What is shown here are runs of
`tiny` on CPU cores, with the flags that the row names; no paper's number is reproduced by them.

`--stage2 none` trains an autoencoder alone. bfloat16 is a `dtype` of each network
(`--stage1.model.encoder.dtype bfloat16 --stage1.model.decoder.dtype bfloat16 --stage2.prior.backbone.dtype bfloat16`);
another optimiser, `latents.optim.Muon` in place of `Adam`, is chosen in a file of one's own (the README has one).
"""
DATA = """
Most `tiny` runs read data that come with installed packages, and most at `paper` scale ImageNet as TFDS prepares it
(`imagenet2012` in ArrayRecord files, `--data-dir DIR`). The others:

"""
# of the first decoding, and of the samples
SCORES = (
  "psnr", "log_mel_db", "lpips_squeeze", "token_accuracy", "class_agreement", "class_agreement_efficientnet_lite0",
)  # fmt: skip
PRIOR = ("bits_per_dim", "nll", "flow")  # the first that is there
ELSEWHERE = ("--data", "--data-dir", "--lpips", "--evaluation.lpips", "--runs", "--name")  # say where files lie
USUAL = ("--scale", "tiny")  # what is shown but where a row says otherwise
PICTURES = {"pictures.webp": "pictures", "samples.png": "samples", "sound.flac": "sound"}


def text(folder: Path) -> str:
  """The index of a folder of experiments as Markdown."""
  every = [chapter for chapter in chapters(folder) if chapter.files]
  data = [(file.stem, said(docstring(file), "Data")) for chapter in every for file in chapter.files]
  told = "".join(f"- `{name}`: {where}\n" for name, where in data if where)
  return HEAD + DATA + told + "".join(_section(chapter, folder) for chapter in every)


def write(folder: Path) -> Path:
  """Write the index into its folder."""
  out = folder / FILE
  out.write_text(text(folder), encoding="utf-8")
  return out


def _section(chapter: Chapter, folder: Path) -> str:
  rows = ["| experiment | papers | shown here | the paper says |", "|---|---|---|---|"]
  rows += [f"| {' | '.join(_row(file, folder))} |" for file in chapter.files]
  return f"\n## {chapter.name}: {chapter.title}\n\n" + "\n".join(rows) + "\n"


def _row(file: Path, folder: Path) -> tuple[str, str, str, str]:
  doc = docstring(file)
  papers = dict.fromkeys(re.findall(r"arXiv:(\d{4}\.\d{4,5})", doc))
  links = ", ".join(f"[{paper}](https://arxiv.org/abs/{paper})" for paper in papers)
  told = _numbers(folder / "results" / file.stem), _verdicts(folder, file.stem), said(doc, "Shown")
  shown = "; ".join(part for part in told if part)
  pictures = [f"[{name}](results/{file.stem}/{n})" for n, name in PICTURES.items() if _kept(folder, file.stem, n)]
  what = f"[`{file.stem}`]({file.relative_to(folder).as_posix()}): {doc.splitlines()[0]}"
  cells = (what, links, "; ".join([*([shown.rstrip(".")] if shown else []), *pictures]), said(doc, "Paper").rstrip("."))
  what, links, here, theirs = (cell.replace("|", "\\|") or "\N{EN DASH}" for cell in cells)
  return what, links, here, theirs


def _verdicts(folder: Path, name: str) -> str:
  """How many claims of a kept sweep came out how, and its page."""
  path = folder / "results" / "ablations" / f"{name}.json"
  if not path.is_file():
    return ""
  try:
    stored = json.loads(path.read_text(encoding="utf-8"))
    found, seeds = [claim["verdict"] for claim in stored["verdict"]], len(stored["table"]["seeds"])
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(f"{path} does not hold an ablation's numbers: {error!r}") from None
  counts = ", ".join(f"{found.count(word)} {word}" for word in ("shown", "not shown", "contradicted") if word in found)
  return f"claims: {counts} ({seeds} seed{'s' * (seeds > 1)}); [page](results/ablations/{name}.md)"


def _kept(folder: Path, name: str, file: str) -> bool:
  return (folder / "results" / name / file).is_file()


def _numbers(result: Path) -> str:
  """The chosen scores of a kept run, its seconds and its flags."""
  path = result / "scores.json"
  if not path.is_file():
    return ""
  try:
    scores: Any = json.loads(path.read_text(encoding="utf-8"))
    decoded = scores["reconstruction"]
    measured = next(iter(decoded.values()), {}) | scores.get("samples", {})
    found = {k: measured[k] for k in SCORES if k in measured}
    found |= {k: scores["prior"][k] for k in PRIOR if k in scores.get("prior", {})}
    time, flags = sum(scores["time"].values()), _flags(scores["command"])
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{path} is not a score card: {error!r}") from None
  parts = [f"{_label(key)} {number(value)}{_unit(key)}" for key, value in found.items()]
  return f"{', '.join(parts)} ({f'`{flags}`, ' if flags else ''}{round(time)} s)"


def _flags(command: str) -> str:
  """The flags of a command that change the experiment, not where its files lie."""
  words, kept = shlex.split(command)[3:], []
  for flag, after in zip(words, [*words, ""][1:], strict=True):
    if flag.startswith("--") and flag.partition("=")[0] not in ELSEWHERE and (flag, after) != USUAL:
      kept.append(flag if after.startswith("--") or not after else f"{flag} {after}")
  return " ".join(kept)


def _label(key: str) -> str:
  label, _, rest = describe(f"heldout_loss_{key}" if key in ("nll", "flow") else key).label.partition(", ")
  label = f"{label} ({rest})" if rest else label
  return label if label[:2].isupper() else label[:1].lower() + label[1:]


def _unit(key: str) -> str:
  unit = describe(key).unit
  return f" {unit}" if unit else ""


def main() -> None:
  """Write the index of the experiments of this checkout."""
  print(write(folders()[0]))


if __name__ == "__main__":
  try:
    main()
  except UserError as error:
    sys.exit(f"latents: error: {error}")

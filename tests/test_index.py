"""experiments/README.md is what the command writes, and the command says what files and score cards say."""

import json
from pathlib import Path

import pytest

from latents.command import index
from latents.command.catalogue import chapters
from latents.errors import UserError

FOLDER = Path(__file__).parent.parent / "experiments"


def test_the_committed_index_is_what_the_command_writes():
  assert (FOLDER / "README.md").read_text() == index.text(FOLDER), "run `python -m latents.command.index`"


def test_its_links_lead_to_files():
  links = [part.partition(")")[0] for part in (FOLDER / "README.md").read_text().split("](")[1:]]
  assert len(links) > 20
  for link in links:
    assert link.startswith("https://arxiv.org/abs/") or (FOLDER / link).is_file(), link


def test_chapters_have_titles_and_bare_names_are_unique():
  found = chapters(FOLDER)
  assert all(chapter.title for chapter in found)
  names = [file.stem for chapter in found for file in chapter.files]
  assert len(names) == len(set(names)) >= 9


@pytest.fixture
def folder(tmp_path):
  chapter = tmp_path / "experiments" / "toys"
  chapter.mkdir(parents=True)
  (chapter / "__init__.py").write_text('"""Things to play with."""\n')
  (chapter / "top.py").write_text(
    '"""A top | spinning. Someone 2020, arXiv:2001.00001 and arXiv:1901.12345 and arXiv:2001.00001.\n\n'
    'Paper: it spins.\nShown: it spins here too.\n"""\n'
  )
  (chapter / "ball.py").write_text('"""A ball."""\n')
  return tmp_path / "experiments"


def card(folder: Path, **changes) -> None:
  table = {
    "command": "latents run top.py --data audio:x --scale tiny --stage1.steps 7 --data-dir=y --kl 0.5",
    "time": {"stage1_s": 10.4, "stage2_s": 5.0},
    "reconstruction": {"2 steps": {"psnr": 20.0}, "9 steps": {"psnr": 30.0}},
    "samples": {"class_agreement": 0.5},
    "prior": {"flow": 0.25, "images": 9},
  }
  (folder / "results" / "top").mkdir(parents=True, exist_ok=True)
  (folder / "results" / "top" / "scores.json").write_text(json.dumps(table | changes))


def test_a_row_is_made_of_the_docstring_and_the_score_card(folder):
  assert "| – | it spins |" not in index.text(folder)
  card(folder)
  (folder / "results" / "top" / "sound.flac").touch()
  text = index.text(folder)
  ball, top = text.splitlines()[-2:]
  assert "## toys: Things to play with\n" in text
  assert ball == "| [`ball`](toys/ball.py): A ball. | – | – | – |"
  what, papers, shown, paper = top[2:-2].replace("\\|", "/").split(" | ")
  assert (
    what
    == "[`top`](toys/top.py): "
    + "A top / spinning. Someone 2020, arXiv:2001.00001 and arXiv:1901.12345 and arXiv:2001.00001."
  )
  assert papers == "[2001.00001](https://arxiv.org/abs/2001.00001), [1901.12345](https://arxiv.org/abs/1901.12345)"
  assert shown == (
    "PSNR 20.00 dB, class agreement 0.500, held-out loss (flow) 0.250 (`--stage1.steps 7 --kl 0.5`, 15 s); "
    "it spins here too; [sound](results/top/sound.flac)"
  )
  assert paper == "it spins"


def test_a_row_of_a_sweep_counts_its_verdicts(folder):
  (folder / "results" / "ablations").mkdir(parents=True)
  stored = {"table": {"seeds": [0, 1]}, "verdict": [{"verdict": v} for v in ("shown", "not shown", "shown")]}
  (folder / "results" / "ablations" / "ball.json").write_text(json.dumps(stored))
  assert "| claims: 2 shown, 1 not shown (2 seeds); [page](results/ablations/ball.md) |" in index.text(folder)
  (folder / "results" / "ablations" / "ball.json").write_text("{}")
  with pytest.raises(UserError, match=r"ball\.json does not hold an ablation's numbers"):
    index.text(folder)


def test_a_broken_score_card_is_named(folder):
  card(folder, time=None)
  with pytest.raises(UserError, match=r"top/scores\.json is not a score card"):
    index.text(folder)

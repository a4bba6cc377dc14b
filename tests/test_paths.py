"""Paths of the command line: on this machine's disks alone; and what is written is never read as data."""

import numpy as np
import pytest

from latents import main, media
from latents.data import Text
from latents.media.mark import marked
from latents.report import write_report, write_table
from tests.test_report import full

AWAY = "gs://bucket/x"


@pytest.mark.parametrize(
  "words",
  [
    ["run", "digits", "--runs", AWAY],
    ["run", "ldm_kl", "--data", f"folder:{AWAY}"],
    ["run", "ldm_kl", "--data-dir", AWAY],
    ["ablate", "kl_weight", "--runs", AWAY],
    ["ablate", "kl_weight", "--publish", AWAY],
    ["ablate", "kl_weight", "--page", AWAY],
    ["list", "--runs", AWAY],
    ["sample", AWAY],
    ["sample", "r", "--out", AWAY],
    ["sample", "r", "--experiment", AWAY],
    ["reconstruct", AWAY, "a.png", "--out", "out"],
    ["reconstruct", "r", AWAY, "--out", "out"],
    ["reconstruct", "r", "a.png", "--out", AWAY],
    ["encode", AWAY, "--out", "out"],
    ["encode", "r", "--out", AWAY],
    ["encode", "r", "--out", "out", "--data", AWAY],
    ["evaluate", AWAY],
    ["evaluate", "r", "--data", AWAY],
    ["evaluate", "r", "--lpips", AWAY],
    ["report", AWAY],
    ["report", "r", "--out", f"{AWAY}.html"],
    ["data", "inspect", f"folder:{AWAY}"],
    ["data", "inspect", "digits", "--out", f"{AWAY}.png"],
    ["data", "inspect", "tfds:x", "--data-dir", AWAY],
    ["data", "prepare", AWAY, "name"],
    ["data", "prepare", "folder", "name", "--out", AWAY],
  ],
  ids=" ".join,
)
def test_a_scheme_is_refused_in_one_line_and_nothing_is_written(words, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  assert main.main(words) == 2
  error = capsys.readouterr().err
  assert "gs://bucket/x" in error and "only paths of this machine's disks are possible" in error
  assert error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_reports_and_samples_of_text_are_no_data(tmp_path):
  data = tmp_path / "data"
  data.mkdir()
  for i in range(12):
    (data / f"{i}.txt").write_text(f"a text that says made by latents, number {i}\n" * 5)
    (data / f"{i}.html").write_text(f"<p>a page, made by latents</p>{i}")
  (data / "notes.md").write_text("made by latents, as they say")
  row = np.frombuffer(b"a sample", np.uint8).astype(np.int32)
  media.kind("text").write(data / "samples.txt", np.stack([row] * 500), None, None)
  run = full(tmp_path / "run")
  write_report([run], data / "compare.html")
  write_table([run, full(tmp_path / "other")], data / "compare.md")
  made = Text(path=str(data))
  with pytest.warns(UserWarning, match=r"made by latents") as said:
    found = {*made.listing.train, *made.listing.test}
  assert found == {f"{i}.{ending}" for i in range(12) for ending in ("txt", "html")} | {"notes.md"}
  for name in ("samples.txt", "compare.html", "compare.md"):
    assert marked(str(data / name)) and f"{name} (made by latents)" in str(said[0].message)

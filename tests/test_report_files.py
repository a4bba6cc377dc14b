"""Runs' folders that are broken or strange: one clear line, or a page that says so."""

import numpy as np
import pytest

from latents.errors import UserError
from latents.report import markdown_table, report
from latents.report.run import read_run
from tests.test_report import check, declared, full, scored, write


def test_strange_numbers(tmp_path):
  strange = {
    "psnr": float("nan"),
    "ssim": float("-inf"),
    "lpips": 10**400,
    "l1": None,
    "l2": True,
    "mse": "x",
    "mae": 1e-300,
  }
  lines = [
    {"stage": 1, "step": s, "a": v, "b": 1e308, "c": 10**400, "d": None}
    for s, v in ((1, 1e-12), (2, float("nan")), (3, 5e9))
  ]
  folder = write(
    tmp_path / "run",
    declaration=declared(),
    score=scored(reconstruction=strange, latent={"bits": 1e400}),
    lines=lines,
  )
  text = check(report([folder])).text()
  assert "\N{INFINITY}" in text and "1.00e\N{MINUS SIGN}300" in text and "no finite value" in text
  markdown_table([folder, folder])


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("experiment.json", b"{"),
    ("experiment.json", b"[1]"),
    ("scores.json", b'{"a":' + b"[" * 500 + b"]" * 500 + b"}"),
    ("scores.json", b"[" * 100_000),
    ("scores.json", b"\xff\xfe"),
    ("metrics.jsonl", b"not a log\n"),
    ("samples.npz", b"PK no archive"),
    ("reconstructions.npz", b""),
  ],
)
def test_broken_files_are_one_line(tmp_path, name, content):
  folder = full(tmp_path / "run")
  (folder / name).write_bytes(content)
  with pytest.raises(UserError) as error:
    report([folder])
  assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
  "arrays",
  [
    {"y": np.zeros((2, 4, 4, 1), np.uint8)},
    {"x": np.zeros((2, 4), np.uint8)},
    {"x": np.zeros((2, 4, 4, 1), np.complex64)},
    {"x": np.zeros((2, 4, 4, 1), np.uint8), "reconstruction": np.zeros((2, 4, 5, 1), np.uint8)},
    {"x": np.zeros((2, 4, 4, 1), np.uint8), "reconstruction": np.zeros((1, 4, 4, 1), np.uint8)},
    {"x": np.array([{}, {}], dtype=object)},
  ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays):
  with pytest.raises(UserError):
    report([write(tmp_path / "run", declaration=declared(), images=arrays)])


def test_no_runs(tmp_path):
  for folders in ([], [tmp_path], [tmp_path / "none"]):
    with pytest.raises(UserError):
      report(folders)


def test_cut_last_line_of_the_log(tmp_path):
  folder = full(tmp_path / "run")
  with (folder / "metrics.jsonl").open("a") as file:
    file.write('{"stage": 2, "st')
  assert read_run(folder).unread == 1 and "1 line of the log" in check(report([folder])).text()

"""What a log says of a judge, and of a run's steps: by hand."""

import json

import pytest

from latents.ablations.ablation import at
from latents.report.panels import svg
from latents.runs import history
from latents.use.judged import fared


def line(step, real, fake, gate=1.0, weight=0.5, name="gan", **more):
  told = {"real_accuracy": real, "fake_accuracy": fake, f"{name}_gate": gate, f"{name}_adaptive": weight}
  return {"stage": 1, "step": step, **{f"train/{k}": v for k, v in told.items()}, **more}


def test_the_later_half_of_what_was_felt_counts():
  lines = [line(0, 0.0, 0.0, gate=0.0, weight=9.0), line(1, 0.1, 0.3, weight=2.0), line(2, 0.0, 0.0, weight=4.0)]
  lines += [line(3, 0.5, 0.7), line(4, 0.9, 1.0)]
  found = fared(lines, "gan", clamp=10.0)
  assert found == {
    "lines": 4, "accuracy": pytest.approx((0.6 + 0.95) / 2), "accuracy_lowest": pytest.approx(0.6),
    "accuracy_highest": pytest.approx(0.95), "adaptive_of_clamp": 0.4,
  }  # fmt: skip


def test_what_was_never_felt_says_nothing():
  assert fared([line(0, 1.0, 1.0, gate=0.0)], "gan", 1.0) == {} == fared([], "gan", 1.0)


def test_a_second_judge_is_asked_by_its_name():
  own = {"train/second_real_accuracy": 0.2, "train/second_fake_accuracy": 0.4, "train/second_gate": 1.0}
  assert fared([line(0, 1.0, 1.0, **own)], "second", 1.0)["accuracy"] == pytest.approx(0.3)
  assert fared([line(0, 1.0, 1.0, **own)], "gan", 1.0)["accuracy"] == 1.0


def test_a_curve_is_the_means_of_stretches(tmp_path):
  path = tmp_path / "metrics.jsonl"
  rows = [
    {"stage": 1, "step": s, "train/a": s, **({"train/b": None} if s < 3 else {"train/b": 1.0})} for s in range(210)
  ]
  path.write_text("".join(json.dumps(r) + "\n" for r in [*rows, {"stage": 2, "step": 1, "train/a": 9e9}]))
  found = history.read(path)
  assert len(found["train/a"]) == history.POINTS == 70 and found["train/a"][:2] == [[2, 1.0], [5, 4.0]]
  assert len(found["train/b"]) == 69 and found["train/b"][0] == [5, 1.0]
  assert history.read(tmp_path / "none") == {}


def test_names_may_hold_dots():
  tree = {"a": {"": {"band_0.25": 3.0, "band_0": {"5": 4.0}}}, "a.b": {"c": 5.0}}
  assert at(tree, "a..band_0.25") == 3.0 and at(tree, "a..band_0.5") == 4.0 and at(tree, "a.b.c") == 5.0
  assert at({"a": {"b": {"c": 1}}, "a.b": {"d": 2}}, "a.b.c") == 1  # the longer name has none
  assert at(tree, "a..band_0.125") is None and at(tree, "a.b.c.d") is None


def test_curves_stand_below_the_columns():
  table = {"values": {"m": {"x": [1.0], "y<": [2.0]}}, "variants": {"x": {}, "y<": {}}}
  plain = svg(table)
  curves = {"train/l2": {"x": [[[0, 1.0], [10, 0.5]], [[0, 3.0]]], "y<": [[]]}}
  drawn = svg(table | {"curves": curves})
  assert "train/l2" not in plain and "train/l2" in drawn and drawn.count("<polyline") == 1 and "y&lt;" in drawn

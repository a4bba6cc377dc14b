"""The report: well-formed, self-contained, safe with what files hold, and honest about what is missing."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from latents.errors import UserError
from latents.report import markdown_table, report, write_report

VOID = {"meta", "link", "img", "input", "br", "hr"}
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"


class Page(HTMLParser):
  """Collects tags, ids and text; fails on tags that do not balance."""

  def __init__(self, text: str):
    super().__init__()
    self.open, self.tags, self.ids, self.words = [], [], [], []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    self.ids += [v for k, v in attrs if k == "id"]
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open and self.open.pop() == tag, tag

  def handle_data(self, data):
    if self.open and self.open[-1] not in ("style", "script"):
      self.words.append(data)

  def text(self) -> str:
    return " ".join(" ".join(self.words).split())

  def all(self, tag: str) -> list[dict]:
    return [attrs for name, attrs in self.tags if name == tag]


def check(text: str) -> Page:
  """What holds for every page: balanced, nothing loaded, every image described, ids and anchors fit."""
  page = Page(text)
  assert all(attrs.get("alt") for attrs in page.all("img"))
  assert all(attrs.get("aria-label") for _, attrs in page.tags if attrs.get("role") in ("img", "group", "region"))
  assert len(page.ids) == len(set(page.ids))
  for tag, attrs in page.tags:
    assert not any(k.startswith("on") for k in attrs), (tag, attrs)
    for key in ("src", "href"):
      assert attrs.get(key, "#").startswith(("data:", "#")), (tag, attrs[key])
      assert not attrs.get(key, "").startswith("#") or attrs[key][1:] in page.ids
  assert "@import" not in text and text.count("url(") == text.count("url(data:image/png;base64,")
  assert len(page.all("script")) == 1 and not page.all("iframe") and len(page.all("h1")) == 1
  return page


def part(kind: str, **fields) -> dict:
  return {"!": f"latents.x.y:{kind}", **fields}


def declared(name: str = "digits", prior: bool = True) -> dict:
  model = part("Autoencoder", encoder=part("ConvEncoder"), bottleneck=part("KL", dim=4), decoder=part("ConvDecoder"))
  stage2 = part("Stage2", prior=part("FlowPrior", backbone=part("DiT", width=8)), steps=20) if prior else None
  return part("Experiment", name=name, stage1=part("Stage1", model=model, steps=50), stage2=stage2, seed=3)


def scored(**change) -> dict:
  table = {
    "command": "latents run experiments/images/digits.py",
    "paper": "Someone 2022, Table 8",
    "environment": {"jax": "0.10.2", "devices": "2 x cpu"},
    "latent": {"shape": [8, 8, 4], "kind": "continuous", "tsr": 4.0, "bits": 123.4},
    "reconstruction": {
      "": {"psnr": 27.1, "ssim": 0.95, "images": 300},
      "2 steps": {"psnr": 26.0, "images": 300},
    },
    "samples": {"frechet_efficientnet_lite0": 14.2, "precision": 0.8, "number": 500, "guidance": 2.0},
    "protocol": {"reference": "held-out digits"},
    "time": {"stage1_s": 372.1},
    "parameters": {"encoder": 412345},
  }
  return table | change


def write(folder: Path, *, declaration=None, score=None, lines=None, images=None, samples=None) -> Path:
  folder.mkdir(parents=True, exist_ok=True)
  if declaration is not None:
    (folder / "experiment.json").write_text(json.dumps(declaration))
  if score is not None:
    (folder / "scores.json").write_text(json.dumps(score))
  if lines is not None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  if images is not None:
    np.savez(folder / "reconstructions.npz", **images)
  if samples is not None:
    np.savez(folder / "samples.npz", **samples)
  return folder


def log(stage: int, n: int = 50) -> list[dict]:
  return [
    {
      "stage": stage,
      "step": s,
      "train/total": 100 / s,
      "train/l1": None if s == 3 else 0.5,
      "time/step_s": 0.02,
    }
    for s in range(1, n + 1)
  ]


def pictures(n: int, side: int = 8, channels: int = 1) -> np.ndarray:
  return np.random.default_rng(0).integers(0, 256, (n, side, side, channels)).astype(np.uint8)


def full(folder: Path, name: str = "digits", **change) -> Path:
  x = pictures(30)
  return write(
    folder,
    declaration=declared(name),
    score=scored(**change),
    lines=log(1) + log(2, 20),
    images={"x": x, "reconstruction": x // 2, "2 steps": x // 3, "pca": pictures(30, 4, 3)},
    samples={
      "x": pictures(60),
      "label": np.arange(60, dtype=np.int32) % 3,
      "names": np.array(["a", "b", "c"]),
    },
  )


def test_one_run_shows_everything(tmp_path):
  page = check(report([full(tmp_path / "digits")]))
  text = page.text()
  for word in (
    "ConvEncoder",
    "FlowPrior(DiT)",
    "27.10",
    "14.20",
    "n = 300",
    "guidance = 2",
    "step 50",
    "Median step 20 ms",
    "latents run experiments/images/digits.py",
    "2 x cpu",
    "6 min 12 s",
    "412 345",
    "1 of 50 not finite",
  ):
    assert word in text, word
  assert sum("tile" in a.get("class", "") for a in page.all("span")) == 24 + 2 * 12 + 3 * 10
  assert len(page.all("svg")) == 6
  flip = next(a for a in page.all("div") if a.get("class") == "flip")
  assert json.loads(flip["data-names"]) == ["default decoding", "2 steps"]
  assert len(page.all("details")) > 3 and any(a.get("class") == "copy js" for a in page.all("button"))


def test_several_runs_are_compared(tmp_path):
  a = full(tmp_path / "a", "first")
  b = full(tmp_path / "b", "second", reconstruction={"": {"psnr": 30.0, "ssim": 0.9, "images": 300}})
  c = write(tmp_path / "c", declaration=declared("third"))
  page = check(report([a, b, c]))
  assert {"#r0", "#r1", "#r2"} <= {x.get("href") for x in page.all("a")}
  text = report([a, b, c])
  assert "<b>30.00</b>" in text and "<b>0.950</b>" in text and "<b>27.10</b>" not in text
  table = markdown_table([a, b, c]).splitlines()
  assert len({line.count("|") for line in table[:5]}) == 1 and "**30.00**" in table[3] and "third" in table[4]


def test_no_best_where_numbers_of_examples_differ(tmp_path):
  a = full(tmp_path / "a")
  b = full(tmp_path / "b", reconstruction={"": {"psnr": 30.0, "images": 10}})
  assert "**30.00**" not in markdown_table([a, b]) and "different numbers" in markdown_table([a, b])
  assert "digits (a)" in markdown_table([a, b])  # equal names are told apart by their folders


@pytest.mark.parametrize(
  "missing", ["experiment.json", "metrics.jsonl", "scores.json", "reconstructions.npz", "samples.npz"]
)
def test_missing_parts_are_said(tmp_path, missing):
  folder = full(tmp_path / "run")
  (folder / missing).unlink()
  assert missing in check(report([folder])).text()


def test_a_bad_byte_in_the_log_costs_its_line(tmp_path):
  folder = full(tmp_path / "a")
  lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
  (folder / "metrics.jsonl").write_bytes(b"".join([*lines[:3], b'{"stage": 1, \xff\xfe', b"\n", *lines[4:]]))
  assert "1 line of the log could not be read" in report([folder])


def test_half_finished_and_no_prior(tmp_path):
  half = write(tmp_path / "half", declaration=declared("half"), lines=log(1, 7))
  text = check(report([half])).text()
  assert "Stage 2 has not run yet" in text and "step 7" in text and "not been evaluated yet" in text
  alone = write(tmp_path / "alone", declaration=declared("alone", prior=False), lines=log(1, 7))
  assert "no stage 2" in check(report([alone])).text()


def test_text_of_files_is_escaped(tmp_path):
  x = pictures(3)
  folder = write(
    tmp_path / "evil",
    declaration=declared(EVIL) | {EVIL: {"!": EVIL, "a": EVIL}},
    score=scored(
      command=EVIL,
      paper=EVIL,
      environment={EVIL: EVIL},
      protocol={EVIL: EVIL},
      parameters={EVIL: EVIL},
      latent={EVIL: 1.0, "shape": EVIL},
      reconstruction={EVIL: {EVIL: 2.0}},
      samples={EVIL: 1, "note": EVIL},
    ),
    lines=[{"stage": 1, "step": s, EVIL: 1.0 * s} for s in (1, 2)],
    images={"x": x, "evil": x},
    samples={"x": x, "label": np.zeros(3, np.int32), "names": np.array([EVIL])},
  )
  page = check(report([folder, folder]))
  assert "<script>alert" not in report([folder]) and not page.all("img") and "alert(1)" in page.text()
  row = markdown_table([folder]).splitlines()[2]
  assert "<img" not in row and "\n" not in row


def test_size_bound(tmp_path):
  noise = pictures(300, 96, 3)  # noise: the worst case for PNG
  folder = write(
    tmp_path / "run", declaration=declared(), score=scored(), lines=log(1, 5000),
    images={"x": noise, "reconstruction": noise[::-1], "2 steps": noise},
    samples={"x": noise, "label": np.arange(300, dtype=np.int32) % 50},
  )  # fmt: skip
  assert len(report([folder])) < 5_000_000
  assert len(report([folder] * 4)) < 5_000_000
  large = pictures(30, 320, 3)
  write(folder, images={"x": large, "reconstruction": large}, samples={"x": large})
  assert len(report([folder])) < 5_000_000


def test_audio(tmp_path):
  t = np.arange(8000) / 8000
  x = np.stack([0.5 * np.sin(2 * np.pi * f * t) for f in (220, 330, 440)])[..., None].astype(np.float32)
  folder = write(
    tmp_path / "run", declaration=declared(),
    images={"x": x, "reconstruction": x, "rate": np.int32(8000), "pca": pictures(3, 1, 3)},
    samples={"x": (x * 32767).astype(np.int16), "rate": np.int32(8000)},
  )  # fmt: skip
  page = check(report([folder]))
  assert len(page.all("audio")) == 9 and len(page.all("img")) == 9
  assert all(a["src"].startswith("data:audio/wav;base64,") for a in page.all("audio"))


def test_written_whole_or_not_at_all(tmp_path):
  folder = full(tmp_path / "run")
  out = tmp_path / "pages" / "report.html"
  write_report([folder], out)
  assert out.read_text(encoding="utf-8") == report([folder])
  assert [p.name for p in out.parent.iterdir()] == ["report.html"]
  with pytest.raises(UserError):
    write_report([folder], folder / "scores.json" / "report.html")


def test_jax_is_not_started(tmp_path):
  full(tmp_path / "run")
  code = (
    "import sys, pathlib; from latents.report import report; report([pathlib.Path(sys.argv[1])]);"
    "assert not {'jax', 'flax', 'grain'} & set(sys.modules)"
  )
  root = Path(__file__).parents[1]
  subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True, cwd=root)


def test_a_protocol_is_said_once_with_all_scores_that_share_it(tmp_path):
  how = "efficientnet_lite0, n=200"
  names = ("frechet_efficientnet_lite0", "kernel_efficientnet_lite0", "kernel_std_efficientnet_lite0", "recall_x")
  protocol = dict.fromkeys(names, how) | {"psnr": "range 2", "ssim": "range 2"}
  folder = write(tmp_path / "run", declaration=declared(), score=scored(protocol=protocol))
  text = check(report([folder])).text()
  assert text.count(how) == text.count("range 2") == 1
  assert f"Fr\N{LATIN SMALL LETTER E WITH ACUTE}chet distance, kernel distance, recall: {how}." in text
  assert "PSNR, SSIM: range 2." in text


def test_a_stage_without_steps_is_not_called_unfinished(tmp_path):
  tree = declared("pixels")
  tree["stage1"]["steps"] = 0
  text = check(report([write(tmp_path / "run", declaration=tree, score=scored(), lines=log(2))])).text()
  assert "stage 1 needs no training" in text and "Stage 1 needs no training: it is declared with 0 steps." in text
  assert "not run" not in text
  tree["stage1"]["steps"] = 5
  text = check(report([write(tmp_path / "other", declaration=tree, lines=log(2))])).text()
  assert "stage 1 not run yet" in text


def test_the_priors_held_out_loss_is_shown_without_saying_it_twice(tmp_path):
  told = {
    "nll": 2.5,
    "vlb": 0.125,
    "nats_per_element": 2.5,
    "bits_per_element": 3.607,
    "bits_per_dim": 0.25,
    "images": 9,
  }
  folder = write(tmp_path / "run", declaration=declared(), score=scored(prior=told))
  text = check(report([folder])).text()
  assert text.count("2.500") == 1 and "Held-out loss" in text and "vlb" in text and "0.125" in text
  assert "3.607" in text and text.index("Held-out loss") < text.index("Held-out bits") < text.index("Precision")
  other = write(tmp_path / "other", declaration=declared(), score=scored(prior=told | {"nll": 2.0}))
  table = markdown_table([folder, other])
  assert "Held-out loss, nll" in table and "**2.000**" not in table  # on other latents it ranks nothing


def test_scores_are_in_order_and_their_labels_whole(tmp_path):
  table = {"kernel_std_x": 0.1, "kernel_x": 1.0, "frechet_x": 2.0, "psnr": 3.0, "other": 4.0}
  folder = write(
    tmp_path / "run", declaration=declared(), score=scored(samples=table, latent={"kl_bits": 5.0, "bits": 6.0})
  )
  text = check(report([folder])).text()
  places = [text.index(word) for word in ("Fr\N{LATIN SMALL LETTER E WITH ACUTE}chet", "Kernel distance", "deviation")]
  assert places == sorted(places) and text.index("Kernel distance") + 30 < text.index("deviation")
  assert "KL to N(0,1)" in text and text.index("Other") > places[-1]


def test_clips_move_text_is_marked_and_arrays_are_drawn(tmp_path):
  rng = np.random.default_rng(0)
  clips = rng.integers(0, 256, (3, 4, 16, 16, 3)).astype(np.uint8)
  text = np.stack([np.frombuffer(b"<b>one\nbyte</b>\xff", np.uint8)] * 2).astype(np.int32)
  wrong = text.copy()
  wrong[0, 3] = ord("X")
  array = rng.normal(size=(3, 4, 5, 2)).astype(np.float32)
  for name, arrays in {
    "clips": {"x": clips, "reconstruction": clips},
    "text": {"x": text, "reconstruction": wrong},
    "array": {"x": array, "reconstruction": array, "kind": np.array("array")},
  }.items():
    (tmp_path / name).mkdir()
    np.savez(tmp_path / name / "reconstructions.npz", **arrays)
    np.savez(tmp_path / name / "samples.npz", **{k: v for k, v in arrays.items() if k != "reconstruction"})
  pages = {path.name: report([path]) for path in tmp_path.iterdir()}
  assert pages["clips"].count("data:image/webp") == 2 and "data:image/webp" not in pages["array"]
  assert "&lt;b&gt;<mark>X</mark>ne\N{PILCROW SIGN}byte&lt;/b&gt;\N{MIDDLE DOT}" in pages["text"]
  assert "&lt;b&gt;one\N{PILCROW SIGN}byte&lt;/b&gt;\N{MIDDLE DOT}" in pages["text"]
  assert len(pages["clips"]) < 500_000


def test_runs_are_compared_by_what_was_declared_otherwise(tmp_path):
  wide = declared("wide")
  wide["stage2"]["prior"]["backbone"]["width"] = 16
  other = declared("other")
  other["stage1"]["model"]["bottleneck"] = part("FSQ", levels=[8, 5])
  folders = [
    write(tmp_path / d["name"], declaration=d, score=scored(), lines=log(1) + log(2)) for d in (declared(), wide, other)
  ]
  text = check(report(folders)).text()
  assert "stage2.prior.backbone.width 8 16 8" in text and "stage1.model.bottleneck KL KL FSQ" in text
  assert "bottleneck.dim" not in text.partition("Losses together")[0]  # of another class: the class says it
  assert "name digits" not in text and "mean of" not in text
  assert "stage 1: total" in text and "stage 2: l1" in text
  page = check(report(folders))
  (line,) = [a for a in page.all("svg") if a.get("aria-label", "").startswith("stage 1: total")]
  assert "wide ends at" in line["aria-label"] and "other ends at" in line["aria-label"]


def test_seeds_of_one_declaration_have_a_mean_and_a_deviation(tmp_path):
  folders = []
  for seed, psnr in ((0, 27.0), (1, 28.0), (2, 29.0)):
    score = scored(reconstruction={"": {"psnr": psnr, "images": 300}})
    folders.append(write(tmp_path / f"s{seed}", declaration=declared() | {"seed": seed}, score=score, lines=log(1)))
  text = check(report(folders)).text()
  assert "mean of 3 seeds" in text and "28.00 ± 1" in text
  assert "seed 0 1 2" in text


@pytest.mark.parametrize("change", [{"data": {"source": "Other"}}, {"protocol": {"psnr": "range 1"}}])
def test_only_equals_have_a_best(tmp_path, change):
  ways = {"data": {"source": "Digits"}, "protocol": {"psnr": "range 2"}}
  better = {"reconstruction": {"": {"psnr": 30.0, "images": 300}}}
  a = write(tmp_path / "a", declaration=declared(), score=scored(**ways))
  b = write(tmp_path / "b", declaration=declared(), score=scored(**ways | better))
  c = write(tmp_path / "c", declaration=declared(), score=scored(**ways | better | change))
  assert "<b>30.00</b>" in report([a, b]) and "<b>30.00</b>" not in report([a, c])

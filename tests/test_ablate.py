"""Sweeps: what is refused, what is shared, what fails, what a kill leaves; and the pages in the repository."""

import dataclasses
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latents.ablations import Ablation, Against, judge
from latents.ablations.base import read_table
from latents.command import overrides
from latents.declare import addresses, every_address
from latents.errors import UserError
from latents.main import main
from latents.report import ablation as pages
from latents.runs import ablate
from tests import micro

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results" / "ablations"
SWEEPS = sorted(p for p in (ROOT / "experiments" / "ablations").glob("*.py") if p.name != "__init__.py")

FILE = '''"""More steps."""
import dataclasses
from latents.ablations import Ablation, Against
from tests import micro

def sweep(scale):
  made = micro.experiment(gan=False)
  made = dataclasses.replace(made, stage1=dataclasses.replace(made.stage1, steps=4))
  two = lambda **changes: dataclasses.replace(made, stage2=dataclasses.replace(made.stage2, **changes))
  variants = {"few": two(steps=2), "more": two(steps=3), BROKEN}
  return Ablation(variants=variants, varies=VARIES, seeds_of="stage2",
    columns=("reconstruction..psnr", "samples.number", "latent.kl_bits"),
    claims=(Against(sentence="More.", variant="more", control="few", column="reconstruction..psnr",
                    direction="higher"),))
'''
BROKEN = '"broken": two(microbatches=3)'  # eight do not divide into three


def sweep(folder: Path, broken: bool = False) -> Path:
  file = folder / "steps.py"
  varies = ("stage2.steps", *["stage2.microbatches"] * broken)
  file.write_text(FILE.replace("BROKEN", BROKEN if broken else "").replace("VARIES", repr(varies)))
  return file


def variants(**second):
  made = micro.experiment()
  return {"a": made, "b": dataclasses.replace(made, stage1=dataclasses.replace(made.stage1, **second))}


def ablation(second, varies, **changes):
  return Ablation(variants=variants(**second), varies=varies, **{"columns": ("m",), **changes})


def test_what_differs_is_declared():
  ablation({"steps": 9}, ("stage1.steps",)).check()
  ablation({"steps": 9, "batch": 4}, ("stage1",)).check()  # all below it
  with pytest.raises(UserError, match=r"stage1\.batch differs between the variants 'a' and 'b'"):
    ablation({"steps": 9, "batch": 4}, ("stage1.steps",)).check()
  with pytest.raises(UserError, match=r"stage1\.steps differs"):
    ablation({"steps": 9}, ("stage1.step",)).check()  # no path by its beginning alone
  with pytest.raises(UserError, match="log_every differs"):  # also what makes no other model
    ablation({"steps": 9, "log_every": 3}, ("stage1.steps",)).check()


def test_what_is_declared_differs():
  with pytest.raises(UserError, match=r"`varies` has stage1\.batch, at which no two variants differ"):
    ablation({"steps": 9}, ("stage1.steps", "stage1.batch")).check()
  with pytest.raises(UserError, match="'a' and 'b' are the same"):
    ablation({}, ()).check()


def test_claims_speak_of_what_is_there():
  claim = Against(sentence="s", variant="b", control="aa", column="m", direction="higher")
  with pytest.raises(UserError, match=r"'s' names no variant 'aa' \(did you mean a\?\)"):
    ablation({"steps": 9}, ("stage1.steps",), claims=(claim,)).check()
  with pytest.raises(UserError, match="names no column 'n'"):
    claim = dataclasses.replace(claim, control="a", column="n")
    ablation({"steps": 9}, ("stage1.steps",), claims=(claim,)).check()


@pytest.mark.parametrize(("of", "seeds"), [("stage1", (2, 0)), ("stage2", (0, 2)), ("both", (2, 2))])
def test_seeds_are_those_of_the_stage_that_is_said(of, seeds):
  made = ablation({"steps": 9}, ("stage1.steps",), seeds_of=of)
  members = made.members(3)
  assert [m.name for m in members] == ["a-s0", "b-s0", "a-s1", "b-s1", "a-s2", "b-s2"]
  last = members[-1].experiment
  assert (last.seed_of(last.stage1), last.seed_of(last.stage2)) == seeds


def test_weights_of_lpips_reach_every_run_and_no_address(tmp_path):
  """The flag is handed on to each process, and makes the same members as without it."""
  made = ablation({"steps": 9}, ("stage1.steps",))
  plain, told = (
    ablate.Sweep(made, tmp_path / "f.py", "", "tiny", tmp_path, "n", path) for path in (None, "/weights/w.npz")
  )
  for one, two in zip(plain.ablation.members(2), told.ablation.members(2), strict=True):
    assert (one.experiment.evaluation.lpips, two.experiment.evaluation.lpips) == (None, "/weights/w.npz")
    assert every_address(one.experiment) == every_address(two.experiment)
    assert "--lpips" not in plain.words(one)
    at = told.words(two).index("--lpips")
    assert told.words(two)[at + 1] == "/weights/w.npz"


def test_files_without_their_function(tmp_path, capsys):
  assert main(["ablate", str(ROOT / "experiments/images/digits.py")]) == 2
  assert "defines no function `sweep`: `latents run` takes it" in capsys.readouterr().err
  assert main(["run", str(sweep(tmp_path))]) == 2
  assert "`latents ablate` takes it" in capsys.readouterr().err


def numbers(folder: Path) -> dict:
  table = json.loads((folder / "table.json").read_text())
  return {"values": table["values"], "verdict": json.loads((folder / "verdict.json").read_text())}


STUB = """
import json, pathlib, sys, time
_, folder, name, stages, fails, trace = sys.argv
folder, stages = pathlib.Path(folder), stages.split()
for stage in stages:
  if list(folder.glob(f"*/stage?-{stage}/artefact.json")):
    continue
  with open(trace, "a") as file:
    print("trained", name, stage, file=file)
  time.sleep(0.2)
  if fails:
    sys.exit("latents: error: it cannot be")
  (folder / name / f"stage1-{stage}").mkdir(parents=True)
  (folder / name / f"stage1-{stage}" / "artefact.json").write_text("{}")
(folder / name / "scores.json").write_text(json.dumps({"m": len(stages), "environment": {}}))
"""


class Stubs(ablate.Sweep):
  """Members that only write what a run leaves."""

  def process(self, member):
    fails = "fails" * (member.variant == "broken")
    stages = " ".join(every_address(member.experiment))
    return [sys.executable, "-c", STUB, str(self.folder), member.name, stages, fails, str(self.runs / "trace")]


def test_shared_stages_are_trained_once_and_failures_are_named(tmp_path, capsys):
  made = micro.experiment()

  def two(**changes):
    return dataclasses.replace(made, stage2=dataclasses.replace(made.stage2, **changes))

  declared = Ablation(
    variants={"few": two(steps=2), "broken": two(steps=4), "more": two(steps=3)}, varies=("stage2.steps",),
    columns=("m",), seeds_of="stage2",
  )  # fmt: skip
  sweep = Stubs(declared, Path("f.py"), "doc", "tiny", tmp_path, "n")
  with pytest.raises(
    UserError, match=r"2 of 6 runs failed: broken-s0 \(exit code 1: error: it cannot be\); broken-s1 "
  ):
    sweep.all(2, jobs=3)
  trained = [line.split()[2] for line in (tmp_path / "trace").read_text().splitlines()]
  one = addresses(made)[0]
  assert trained.count(one) == 1 and len(trained) == 1 + 4 + 2
  table = json.loads((tmp_path / "n" / "table.json").read_text())
  assert table["values"]["m"] == {"few": [2, 2], "broken": [None, None], "more": [2, 2]}
  assert "few-s0 done in" in capsys.readouterr().err


def test_a_column_that_nothing_measures_is_named(tmp_path):
  declared = ablation({"steps": 9}, ("stage1.steps",), columns=("mm",))
  with pytest.raises(UserError, match=r"no number at the column mm"):
    Stubs(declared, Path("f.py"), "doc", "tiny", tmp_path, "n").all(1)


def test_a_child_ends_with_the_standard_input_that_its_parent_holds():
  lines = "import sys, time\nfrom latents.machine import endings\nendings.follow(sys.stdin)\n"
  end = "def wait():\n  print('up', flush=True)\n  time.sleep(60)\nsys.exit(endings.guarded(wait))"
  child = subprocess.Popen(
    [sys.executable, "-c", lines + end], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  )
  assert child.stdout.readline() == "up\n" and child.poll() is None
  child.stdin.close()
  assert child.wait(20) == 75
  done = [sys.executable, "-c", lines]
  with subprocess.Popen(done, stdin=subprocess.PIPE) as child:  # one that is done does not wait for it
    assert child.wait(20) == 0


@pytest.mark.slow
def test_a_sweep_shares_names_its_failures_and_is_done_once(tmp_path, capsys):
  command = ["ablate", str(sweep(tmp_path, broken=True)), "--seeds", "1", "--jobs", "2", "--runs", str(tmp_path / "r")]
  assert main(command) == 2
  said = capsys.readouterr().err
  assert "1 of 3 runs failed: broken-s0" in said and "3 microbatches" in said
  folder = tmp_path / "r" / "steps"
  logs = {name: (folder / f"{name}-s0.log").read_text() for name in ("few", "more")}
  assert sum("stage 1, autoencoder" in log for log in logs.values()) == 1  # trained once, though two ran at a time
  assert sum("reused" in log for log in logs.values()) == 1
  made = numbers(folder)
  assert made["values"]["reconstruction..psnr"]["broken"] == [None]
  assert made["values"]["samples.number"] == {"few": [20], "more": [20], "broken": [None]}
  assert made["verdict"][0]["verdict"] == "not shown" and "one seed" in made["verdict"][0]["why"]
  sweep(tmp_path)
  before = (folder / "few-s0" / "scores.json").stat().st_mtime_ns
  assert main([*command, "--publish", str(tmp_path / "out")]) == 0
  assert "2 runs, 2 of them done" in capsys.readouterr().err
  assert (folder / "few-s0" / "scores.json").stat().st_mtime_ns == before
  page = (tmp_path / "out" / "steps.md").read_text()
  assert "| More. | **not shown** |" in page and "| few | 2 |" in page
  assert (tmp_path / "out" / "steps.webp").stat().st_size < pages.LIMIT
  (tmp_path / "out" / "steps.md").unlink()
  assert main([*command, "--page", str(tmp_path / "out")]) == 0
  assert (tmp_path / "out" / "steps.md").read_text() == page


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_to_the_same_numbers(tmp_path):
  file, dice = sweep(tmp_path), random.Random(0)

  def command(runs: str) -> list[str]:
    return [sys.executable, "-m", "latents.main", "ablate", str(file), "--seeds", "1", "--runs", str(tmp_path / runs)]

  assert subprocess.run(command("whole"), cwd=ROOT).returncode == 0
  for _ in range(3):
    process = subprocess.Popen(command("killed"), cwd=ROOT)
    time.sleep(dice.uniform(3, 25))
    process.kill()
    process.wait()
  assert subprocess.run(command("killed"), cwd=ROOT).returncode == 0
  assert numbers(tmp_path / "killed" / "steps") == numbers(tmp_path / "whole" / "steps")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_declared_sweeps_hold_together(path, scale):
  made, document = overrides.build_sweep(path, scale)
  assert len(made.variants) >= 2 and made.claims and "latents ablate" in document


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda p: p.stem)
def test_verdicts_in_the_repository_are_those_of_their_numbers(path, tmp_path):
  stored = json.loads(path.read_text())
  found, claims = read_table(stored["table"])
  assert json.loads(json.dumps(judge(claims, found))) == stored["verdict"]
  for suffix in ("json", "webp"):
    if (source := path.with_suffix(f".{suffix}")).is_file():
      (tmp_path / source.name).write_bytes(source.read_bytes())
  pages.rewrite(tmp_path, path.stem)
  for suffix in (".md", ".svg"):
    assert (tmp_path / path.with_suffix(suffix).name).read_text() == path.with_suffix(suffix).read_text()

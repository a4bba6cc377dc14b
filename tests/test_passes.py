"""What a pass depends on: no more than is imported, and no less."""

from pathlib import Path

from tests import passes
from tests.declared import FILES

ROOT = passes.ROOT


def depends(name: str) -> set[str]:
  path = next(p for p in FILES if p.stem == name)
  return {str(p.relative_to(ROOT)) for p in passes.closure(path)}


def test_names_lead_to_their_files_and_on():
  found = depends("digits")
  wanted = ("bottlenecks/kl.py", "backbones/dit.py", "nn/attention.py", "encoders/conv.py", "data/digits.py")
  assert {f"latents/{name}" for name in wanted} <= found
  assert "latents/bottlenecks/vq_ema.py" not in found and "latents/data/tfds.py" not in found


def test_a_function_of_a_room_with_the_name_of_a_file_leads_to_both():
  assert passes.leads("latents.data", "source") == {ROOT / "latents/data/source.py", ROOT / "latents/data/spec.py"}
  assert passes.leads("latents.bottlenecks", "KL") == {ROOT / "latents/bottlenecks/kl.py"}
  assert passes.leads("numpy", "array") == set()


def test_experiments_that_are_imported_count():
  sweep = ROOT / "experiments" / "ablations" / "kl_weight.py"
  found = passes.closure(sweep)
  assert {ROOT / "experiments/images/ldm_kl.py", ROOT / "latents/bottlenecks/kl.py"} <= found


def test_a_change_far_below_makes_a_pass_older(monkeypatch):
  path = next(p for p in FILES if p.stem == "digits")
  before, read = passes.key(path), Path.read_bytes

  def changed(name: str) -> str:
    monkeypatch.setattr(Path, "read_bytes", lambda p: read(p) + b"#" * (p == ROOT / "latents" / name))
    return passes.key(path)

  assert changed("nn/mlp.py") != before
  assert changed("train/step.py") != before  # the check itself imports it
  assert changed("bottlenecks/vq_ema.py") == before


def test_what_never_passed_is_passed_whatever_the_budget(monkeypatch):
  old = FILES[: passes.BUDGET + 2]
  monkeypatch.setattr(passes, "stored", lambda: {p.stem: {"key": "of before"} for p in old})
  assert passes.older() == FILES
  found = passes.now(FILES)
  assert set(FILES) - set(old) <= set(found) and len(set(found) & set(old)) == passes.BUDGET


def test_a_sample_is_spread_over_the_chapters():
  chapters = {p.parent for p in FILES}
  found = passes.spread(FILES, most=len(chapters))
  assert {p.parent for p in found} == chapters and len(found) == len(chapters)
  assert passes.spread(FILES[:2], most=5) == FILES[:2]

"""The held-out losses while a stage is trained: the right numbers, and nothing else is touched by them."""

import dataclasses
import hashlib

import jax
import numpy as np
import pytest

from latents.data import choice, evaluation_batches
from latents.declare import addresses, check, dumps
from latents.errors import UserError
from latents.nn.streams import streams
from latents.optim import Adam
from latents.report import report
from latents.runs import run
from latents.train import log
from latents.train import step as steps
from latents.train.build_step import build_step
from latents.types import to_signal
from tests import micro


def changed(made, **fields):
  one, two = (dataclasses.replace(stage, **fields) for stage in (made.stage1, made.stage2))
  return dataclasses.replace(made, stage1=one, stage2=two)


def batch_of(stage):
  """The rows that are measured: the first batch of the fixed choice."""
  with evaluation_batches(stage.data, split="test", batch=stage.batch, limit=stage.batch) as found:
    return {name: array for name, array in next(found).items() if name != "mask"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """The same run with and without held-out losses, stage 2 from a cache; their folders by number of steps."""
  found = {}
  for every in (0, 4):
    made = changed(micro.experiment(), held_out_every=every, log_every=3)
    made = dataclasses.replace(made, stage2=dataclasses.replace(made.stage2, cache=True))
    found[every] = run.run(made, tmp_path_factory.mktemp(f"every{every}"), None, "a test")
  return found


def test_training_is_the_same_to_the_bit_and_its_log_has_the_losses(runs):
  lines = {every: log.read(folder / log.FILE) for every, folder in runs.items()}
  assert not any(name.startswith("held_out/") for line in lines[0] for name in line)
  for stage in (1, 2):
    measured = [line for line in lines[4] if line["stage"] == stage and "held_out/total" in line]
    assert [line["step"] for line in measured] == [4, 6]  # every fourth, and after the last
    assert all(np.isfinite(line["held_out/total"]) and line["time/step_s"] > 0 for line in measured)
    plain, watched = (
      {li["step"]: {k: v for k, v in li.items() if k.startswith("train/")} for li in found if li["stage"] == stage}
      for found in (lines[0], lines[4])
    )
    assert set(watched) == set(plain) | {4} and all(watched[step] == plain[step] for step in plain)
    weights = [next(folder.glob(f"stage{stage}-*/weights.safetensors")) for folder in runs.values()]
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in weights}) == 1
    assert len({path.parent.name for path in weights}) == 1  # and the address
  names = {name for line in lines[4] if line["stage"] == 1 for name in line if name.startswith("held_out/")}
  assert {"held_out/total", "held_out/l2", "held_out/kl", "held_out/gan"} <= names
  assert not any(name.endswith(steps.SETTINGS) or "grad" in name for name in names)


def test_it_is_the_objective_on_the_chosen_held_out_rows():
  made = micro.experiment(gan=False)
  program, batch = build_step(made, 1, micro.one_device()), batch_of(made.stage1)
  assert batch["index"].tolist() == choice(297, micro.BATCH).tolist()
  state = program.init()
  found = jax.device_get(program.held_out(state, {}, batch))
  x = to_signal(batch["x"])
  key = jax.random.fold_in(jax.random.key(made.seed), steps.HELD_OUT)
  variables = {"params": state.params["ae"], **state.extra["variables"]}
  (latent, decoded), _ = made.stage1.model.apply(variables, x, train=True, rngs=streams(key), mutable=list(variables))
  l2 = np.mean((np.asarray(decoded.x) - np.asarray(x)) ** 2)
  assert float(found["l2"]) == pytest.approx(float(l2), rel=1e-5)
  assert float(found["total"]) == pytest.approx(float(l2) + 1e-6 * float(latent.terms["kl"]), rel=1e-5)
  assert program.step.function._cache_size() == 0  # measuring trains nothing


def test_the_draw_is_the_same_each_time(tmp_path):
  """Without learning nothing changes: the losses of a step do, with their noise, and the held-out ones do not."""
  made = changed(micro.experiment(gan=False), held_out_every=2, optimizer=Adam(lr=1e-30, clip=0.0))
  lines = log.read(run.run(made, tmp_path, None, "a test") / log.FILE)
  for stage in (1, 2):
    of_stage = [line for line in lines if line["stage"] == stage]
    assert len({line["train/total"] for line in of_stage}) == len(of_stage)
    values = [line["held_out/total"] for line in of_stage if "held_out/total" in line]
    assert len(values) == 3 and len(set(values)) == 1


def test_parts_of_a_batch_and_sets_smaller_than_a_batch(tmp_path):
  """Of 297 examples, 296 divide by four."""
  made = changed(micro.experiment(gan=False), held_out_every=6, batch=320, microbatches=4, steps=1)
  lines = log.read(run.run(made, tmp_path, None, "a test") / log.FILE)
  assert all(np.isfinite(line["held_out/total"]) for line in lines) and len(lines) == 2


def test_it_makes_no_other_stage_and_a_declaration_without_it_is_what_it_was():
  made = micro.experiment()
  assert addresses(made) == addresses(changed(made, held_out_every=5))
  assert "held_out_every" not in dumps(made) and "held_out_every" in dumps(changed(made, held_out_every=5))
  with pytest.raises(UserError, match=r"stage1.held_out_every is -1: it must be at least 0"):
    check(changed(made, held_out_every=-1))


def test_the_report_draws_it_over_the_trainings(runs):
  page = report([runs[4]])
  assert page.count('<polyline class="held"') == page.count('<span class="held">held-out ') >= 4
  assert "Dashed: on held-out examples" in page and 'class="held"' not in report([runs[0]])
  both = report([runs[4], runs[4]])
  assert "stage 1: held-out total" in both

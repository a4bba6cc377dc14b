"""What would learn nothing is refused before anything is written, and a stage that learned nothing is no stage."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.declare import trainable
from latents.errors import UserError
from latents.losses import Adversarial
from latents.machine.disk import on_disk
from latents.optim import Adam, Muon
from latents.runs.ablate import Sweep
from latents.runs.run import evaluate, run
from latents.train import loop
from tests import micro
from tests.declared import FILES, SCALES, build, make_data


def stage1(**changes):
  return dataclasses.replace(micro.experiment().stage1, **changes)


def gan(**changes):
  made = micro.experiment().stage1.losses
  return {**made, "gan": dataclasses.replace(made["gan"], **changes)}


def stage2(**changes):
  made = micro.experiment(codes=True).stage2
  return dataclasses.replace(made, prior=made.prior.clone(**changes))


REFUSED = [
  (stage1(optimizer=Adam(lr=0.0)), "x.optimizer.lr is 0.0: it must be above 0"),
  (stage1(optimizer=Adam(lr=-1.0)), "x.optimizer.lr is -1.0: it must be above 0"),
  (stage1(optimizer=Adam(lr=float("nan"))), "x.optimizer.lr is nan: it must be above 0"),
  (stage1(optimizer=Adam(lr=float("inf"))), "x.optimizer.lr is inf: it must be above 0"),
  (stage1(optimizer=Muon(adam_lr=-1e-3)), "x.optimizer.adam_lr is -0.001: it must be above 0"),
  (stage1(optimizer=Muon(momentum=1.0)), "x.optimizer.momentum is 1.0: it must be in [0, 1)"),
  (stage1(optimizer=Adam(betas=(0.9, 1.0))), "x.optimizer.betas is (0.9, 1.0): it must be in [0, 1)"),
  (stage1(optimizer=Adam(decay=-0.1)), "x.optimizer.decay is -0.1: it must be at least 0"),
  (stage1(optimizer=Adam(clip=-1.0)), "x.optimizer.clip is -1.0: it must be at least 0 (0 = none)"),
  (stage1(optimizer=Adam(eps=0.0)), "x.optimizer.eps is 0.0: it must be above 0"),
  (stage1(optimizer=Adam(warmup=7)), "x.optimizer.warmup is 7: it must be at most 6, the number of updates"),
  (stage1(optimizer=Adam(warmup=-1)), "x.optimizer.warmup is -1: it must be at least 0"),
  (stage1(losses=gan(optimizer=Adam(lr=0.0))), "x.losses.gan.optimizer.lr is 0.0: it must be above 0"),
  # of 6 steps it is updated at 2, 3, 4 and 5
  (
    stage1(losses=gan(optimizer=Adam(warmup=5))),
    "x.losses.gan.optimizer.warmup is 5: it must be at most 4, the number of updates",
  ),
  (stage1(losses=gan(every=0)), "x.losses.gan.every is 0: it must be at least 1"),
  (stage1(losses=gan(clamp=-1.0)), "x.losses.gan.clamp is -1.0: it must be at least 0"),
  (stage2(top_p=0.0), "x.prior.top_p is 0.0: it must be in (0, 1] (1 = all)"),
  (stage2(top_p=1.5), "x.prior.top_p is 1.5: it must be in (0, 1] (1 = all)"),
  (stage2(top_k=-1), "x.prior.top_k is -1: it must be at least 0 (0 = all), below 2^31"),
  (stage2(temperature=-1.0), "x.prior.temperature is -1.0: it must be at least 0 (0 = the likeliest)"),
  (stage2(label_drop=1.5), "x.prior.label_drop is 1.5: it must be in [0, 1]"),
]


@pytest.mark.parametrize(("stage", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_would_learn_nothing(stage, message):
  with pytest.raises(UserError) as found:
    trainable("x", stage)
  assert str(found.value) == message


def test_what_may_be_trained(tmp_path):
  trainable("x", stage1(optimizer=Adam(warmup=6)))  # the last update has the whole rate
  trainable("x", stage1(optimizer=Adam(warmup=9), steps=0))  # nothing is trained
  trainable("x", stage1(losses=gan(optimizer=Adam(warmup=4))))
  trainable("x", stage1(losses=gan(start=100, optimizer=Adam(warmup=9))))  # it never begins
  data = make_data(tmp_path)
  for path in FILES:
    for scale in SCALES:
      made = build(path, scale, data)
      for stage in (made.stage1, made.stage2):
        if stage is not None:
          trainable(path.stem, stage)


@pytest.mark.parametrize("optimizer", [Adam(lr=-1.0), Adam(warmup=7)], ids=["rate", "warm-up"])
def test_nothing_is_written(tmp_path: Path, optimizer):
  made = micro.experiment()
  two = dataclasses.replace(made.stage2, optimizer=optimizer)
  with pytest.raises(UserError, match=r"stage2\.optimizer"):
    run(dataclasses.replace(made, stage2=two), tmp_path / "runs", None, "")
  assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("place", ["gs://bucket/runs", "s3://b", "hf://a/b/c", "file:///tmp/runs"])
def test_what_lies_on_no_disk_is_refused_at_once(place, tmp_path: Path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for call in (
    lambda: run(micro.experiment(), Path(place), None, ""),
    lambda: evaluate(Path(place) / "digits", {}, ""),
    lambda: on_disk(place),
    lambda: Sweep(None, Path("x.py"), "", "tiny", Path(place), "x"),  # pyright: ignore[reportArgumentType]
  ):
    with pytest.raises(
      UserError, match=rf"^{place.replace(':///', '://')}(/digits)?: only paths of this machine's disks"
    ):
      call()
  assert not list(tmp_path.iterdir())
  for path in ("runs", "/tmp/a:/b", "C:/runs", "a b:/c"):
    assert on_disk(path) == Path(path)


def test_a_stage_without_one_good_update_is_an_error(tmp_path: Path, monkeypatch):
  def none(program, plan, *_):
    state = program.init()
    return state.replace(extra={**state.extra, "skipped_total": jnp.int32(plan.steps)})

  monkeypatch.setattr(loop, "train", none)
  with pytest.raises(UserError, match="stage 1: none of its 6 updates was finite, so nothing was learned"):
    run(micro.experiment(gan=False), tmp_path, None, "")
  assert not list(tmp_path.rglob("artefact.json"))
  assert json.loads((tmp_path / "micro" / "experiment.json").read_text())["name"] == "micro"


def test_the_schedule_of_a_late_judge_is_over_the_updates_that_are_left_to_it():
  late = Adversarial(start=30, lead=10, every=3, optimizer=Adam(lr=1.0, schedule="cosine", final=0.1))
  assert [late.updates(steps) for steps in (0, 20, 21, 23, 24, 50)] == [0, 0, 1, 1, 2, 10]
  due = [int(late.learn_gate(jnp.int32(step))) for step in range(50)]
  assert sum(due) == late.updates(50)
  rate = late.optimizer.rate(late.updates(50))
  assert float(rate(0)) == 1.0 and float(rate(10)) == pytest.approx(0.1)
  assert float(rate(5)) == pytest.approx(0.55)


def test_a_cosine_may_end_before_the_run():
  rate = Adam(lr=2.0, schedule="cosine", final=0.25, warmup=2, over=10).rate(50)
  np.testing.assert_allclose([rate(s) for s in (0, 2, 6, 10, 30, 49)], [1, 2, 1.25, 0.5, 0.5, 0.5], rtol=1e-6)
  assert float(Adam(lr=2.0, schedule="cosine").rate(50)(25)) == pytest.approx(1.0)


def test_the_judge_of_a_run_comes_to_the_end_of_its_schedule():
  """The last update of the discriminator has the rate of a run of its own length, not of the whole."""
  judge = Adam(lr=1.0, schedule="cosine")
  stage = stage1(losses=gan(start=4, lead=0, ramp=0, optimizer=judge), steps=6)
  x = jax.random.uniform(jax.random.key(0), (8, 16, 16, 1), minval=-1)
  batch = {"x": x, "label": jnp.zeros(8, jnp.int32), "index": jnp.arange(8)}
  step = jax.jit(lambda state: micro.update(stage, state, {}, batch))
  state = micro.first_state(stage, {}, batch)
  for _ in range(5):
    state, _ = step(state)
  before = state.params["disc"]
  state, _ = step(state)
  # Adam's second step of a gradient that hardly turns moves by about its rate: 0.5 of 2 updates, not 0.93 of 6.
  moved = [
    float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (before, state.params["disc"])), strict=True)
  ]
  assert max(moved) <= 0.55

"""Variants that are said to cost the same are counted."""

import pytest

from experiments.ablations import ar_families, raw_or_latent, trick_ladder, two_stages_or_one
from latents.plan import flops, stored
from latents.train.build_step import build_step
from tests import micro

pytestmark = pytest.mark.slow  # each variant's step is traced


def spent(made) -> int:
  """As `compute.flops` of a run, which keeps its latents where it is declared to."""
  one, two = made.stage1, made.stage2
  used = two.steps * flops.of_step(build_step(made, 2, micro.one_device(), stored=stored(made)))
  return used + (one.steps * flops.of_step(build_step(made, 1, micro.one_device())) if one.steps else 0)


def test_latents_and_pixels_are_trained_for_as_many_flops():
  found = {name: spent(made) for name, made in two_stages_or_one.sweep("tiny").variants.items()}
  assert found.pop("latents") == pytest.approx(9.53e12, rel=0.01)  # as the document says
  assert all(value == pytest.approx(10.1e12, rel=0.01) for value in found.values()), found


def test_the_unet_at_the_foot_of_the_ladder_costs_as_much_as_the_transformer():
  unet, dit = (spent(trick_ladder.rung("tiny", number)) for number in (0, 1))
  assert unet == pytest.approx(dit, rel=0.06)


def test_raw_and_codes_are_trained_for_as_many_flops():
  found = {name: spent(made) for name, made in raw_or_latent.sweep("tiny").variants.items()}
  assert all(value == pytest.approx(3.14e12, rel=0.01) for value in found.values()), found


def test_priors_over_codes_are_trained_for_as_many_flops():
  for name, made in ar_families.sweep("tiny").variants.items():
    step = flops.of_step(build_step(made, 2, micro.one_device(), stored=stored(made)))
    used = made.stage2.steps * step
    assert used == pytest.approx(3.2e12, rel=0.01), name

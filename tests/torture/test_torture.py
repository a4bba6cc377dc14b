"""The short form: a few faults, one other topology. The fifty faults of faults.py are marked `torture`; topologies.py
prints a table."""

import numpy as np
import pytest

from tests.torture import faults
from tests.torture.faults import Topology, Torture, compare, series, weights
from tests.torture.topologies import codebook, distance, train

ONE = Topology(1, 1)


@pytest.mark.slow
def test_codebook_and_batch_statistics_are_of_the_global_batch(tmp_path):
  alone, half = train(tmp_path, ONE, "--codes", "True"), train(tmp_path, ONE, "--codes", "True", "--batch", "4")
  spread = train(tmp_path, Topology(2, 2), "--codes", "True")
  assert distance(alone, spread) < 2e-3
  assert compare(weights(alone), weights(spread), bitwise=False) < 2e-3
  # what a process would count by itself is half of it: the comparison sees that
  error = np.abs(codebook(alone) - codebook(spread)).max()
  assert np.abs(codebook(alone) - codebook(half)).max() > 100 * max(error, 1e-6)


@pytest.mark.slow
def test_a_few_faults_change_nothing(tmp_path):
  alone = Torture(tmp_path / "alone", 0, 5)
  alone.finish(ONE)
  made = series(tmp_path / "struck", 3, 5, [ONE])
  assert sum(made.counts.values()) == 5
  compare(weights(alone.run), weights(made.run), bitwise=True)


@pytest.mark.torture
def test_fifty_faults_change_nothing(tmp_path, capsys):
  faults.main(["--folder", str(tmp_path)])
  assert "trainings lost: 0, hangs: 0" in capsys.readouterr().out

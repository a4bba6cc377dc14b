"""The benchmark of the data runs, and counts cores as it says; that of training needs torch and is run by hand."""

import json
import sys

import numpy as np
import pytest

from latents.data import loader
from tests.benchmarks import data, sampling


def test_the_data_benchmark_runs(monkeypatch, capsys):
  monkeypatch.setattr(loader, "MEMORY", loader.MEMORY)  # the script sets it
  monkeypatch.setattr(data, "SETS", {"tiny": ((24, 24), 16, 80)})
  monkeypatch.setattr(data, "WORKERS", (0,))
  monkeypatch.setattr(sys, "argv", ["data.py", "--json", "--seconds", "0.01", "--step", "x=0.5:64:2"])
  loader.opened.cache_clear()
  data.main()
  loader.opened.cache_clear()
  found = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert [row["data"] for row in found["rows"]] == ["JPEG tiny", "cached latents 32x32x4", "64 px, kept in memory"]
  assert all(row["ours"]["cpu"] > 0 and row["ours"]["per_second"] > 0 for row in found["rows"])
  assert found["rows"][0]["reference"]["cpu"] > 0 and found["steps"] == {"x": [0.5, 64, 2]}


def test_cores_that_a_step_needs():
  rows = [{"data": "d", "workers": w, "ours": {"cpu": cpu, "main": 0.001}} for w, cpu in ((0, 9.0), (2, 0.01))]
  row = data.needs(rows, {"s": (0.1, 100, 5)})[-1]
  # 100 examples in 0.1 s on 5 hosts are 200 a second; 98 % of them at 10 ms each are 1.96 cores
  assert row == "| s | d | 196 | 1.96 | 20 % of a core |"


def test_a_step_is_read_from_a_flag():
  assert data.parse_step("a=b=0.1:8:2") == ("a=b", (0.1, 8, 2))
  with pytest.raises(ValueError, match="unpack"):
    data.parse_step("a=0.1:8")


def test_what_is_told_of_tokens():
  """A draw of 256 tokens of 88 MB of weights, each of which takes 2 ms at best, and 1 ms in PyTorch."""
  runs = lambda ms: [{side: {"wall": k * ms / 1e3, "parameters": 22e6} for side, k in (("latents", 2), ("torch", 1))}]
  found = {"tokens1": [*runs(300), *runs(256)], "early": runs(32), "late": runs(40), "diffusion": []}
  assert sampling.told(found, "gpu", "NVIDIA H200") == [
    "tokens1: 2.000 ms of wall time a token of 1, PyTorch 1.000",
    "early: 2.000 ms of wall time a token of 1, PyTorch 1.000",
    "late: 2.500 ms of wall time a token of 1, PyTorch 1.250",
    "latents: a late token takes 1.25 of an early one's time",
    "torch: a late token takes 1.25 of an early one's time",
    "latents: 84 MiB of weights a token at batch 1, 0.9% of NVIDIA H200's bandwidth",  # 44 of 4,800 GB/s
    "torch: 84 MiB of weights a token at batch 1, 1.8% of NVIDIA H200's bandwidth",
  ]
  one, two = (sampling.numbers(name, (3, 5)) for name in ("blocks_0/qkv", "blocks_0/norm1"))
  assert (
    abs(one.mean()) < 0.1
    and abs(two.mean() - 1) < 0.1
    and np.array_equal(one, sampling.numbers("blocks_0/qkv", (3, 5)))
  )

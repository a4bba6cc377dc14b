"""`launch.tpu_pod` against a gcloud that plays a slice; the job's shell for real in a worker's home folder."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from latents.errors import UserError
from launch import command, tpu_job, tpu_pod
from tests.programs import Fakes, alive, eventually

TPU = [
  "--name",
  "pod",
  "--zone",
  "z",
  "--project",
  "p",
  "--accelerator-type",
  "v6e-8",
  "--runtime-version",
  "v2",
  "--spot",
]
RUN = ["--", "run", "x.py", "--name", "it's"]


@pytest.fixture
def fakes(tmp_path, monkeypatch):
  return Fakes(tmp_path, monkeypatch)


def session(**options) -> tpu_pod.Session:
  pod = {"name": "pod", "zone": "z", "accelerator_type": "v6e-8", "runtime_version": "v2"}
  pod |= {name: options.pop(name) for name in ("existing",) if name in options}
  return tpu_pod.Session(pod=tpu_pod.Pod(**pod), runner=command.Runner(), **{"poll_s": 0.01, **options})


def test_tpu_dry_run_is_what_runs(fakes, capsys):
  assert tpu_pod.main(["--dry-run", *TPU, *RUN]) == 0
  assert fakes.calls() == [] and not (fakes.folder / "cache").exists()
  dry = capsys.readouterr().out
  assert tpu_pod.main([*TPU, *RUN]) == 0
  calls = fakes.calls()
  job = fakes.folder / "cache" / "launch" / "pod" / tpu_job.JOB
  lines = [line for line in dry.replace(f"# {job}\n{job.read_text()}\n", "").splitlines() if line]
  assert lines == [shlex.join(call) for call in calls]
  assert [c[4] for c in calls if c[0] == "gcloud"] == ["create", "describe", "scp", "ssh", "ssh", "ssh", "delete"]
  create = "gcloud compute tpus queued-resources create pod --node-id=pod --accelerator-type=v6e-8"
  assert calls[0] == [*create.split(), "--runtime-version=v2", "--spot", "--zone=z", "--project=p", "--quiet"]
  assert "latents run x.py --name 'it'\"'\"'s' --distributed" in job.read_text()


def test_tpu_waits_and_gives_up(fakes, capsys):
  fakes.steer(states="WAITING_FOR_RESOURCES\nPROVISIONING\nACTIVE")
  assert session().launch(["run"]) == 0
  assert fakes.verbs().count("describe") == 3
  fakes.steer(states="WAITING_FOR_RESOURCES")
  with pytest.raises(UserError, match=r"pod is still WAITING_FOR_RESOURCES after"):
    session(wait_s=0.1).launch(["run"])
  assert fakes.verbs()[-1] == "delete"
  fakes.steer(states="FAILED")
  with pytest.raises(UserError, match="pod is FAILED"):
    session(keep=True).launch(["run"])
  assert "delete" not in fakes.verbs()


def test_tpu_that_cannot_be_made(fakes, capsys):
  fakes.steer(create="1")
  assert tpu_pod.main([*TPU, *RUN]) == 2
  assert fakes.verbs() == ["create"]
  assert capsys.readouterr().err.endswith("create ... failed with exit code 1\n")


def test_tpu_preempted_by_state_is_made_again(fakes):
  fakes.steer(states="ACTIVE\nSUSPENDED\nSUSPENDED\nACTIVE", codes="\nexit=0 exit=0")
  assert session().launch(["run"]) == 0
  start = ["describe", "scp", "ssh", "ssh", "ssh"]
  assert fakes.verbs() == ["create", *start, "describe", "describe", "delete", "create", *start, "delete"]


def test_tpu_preempted_by_exit_code_starts_again_where_it_is(fakes):
  fakes.steer(codes="exit=75 exit=1\nexit=0 exit=0")
  assert session().launch(["run"]) == 0
  assert fakes.verbs().count("create") == 1
  fakes.steer(codes="exit=75")
  assert session(restarts=1).launch(["run"]) == 75
  assert fakes.verbs().count("scp") == 2


def test_tpu_lost_while_the_tree_is_copied(fakes):
  fakes.steer(scp="1\n0", states="ACTIVE\nSUSPENDED\nSUSPENDED\nACTIVE")
  assert session().launch(["run"]) == 0
  assert fakes.verbs().count("create") == 2


def test_tpu_exit_code_passes_and_workers_that_hang_are_stopped(fakes, capsys):
  fakes.steer(codes="exit=running exit=running\nexit=0 exit=3")
  assert session().launch(["run"]) == 3
  assert fakes.verbs()[-1] == "delete"
  fakes.steer(codes="exit=running exit=4")
  assert session(straggle_s=0.05).launch(["run"]) == 4
  assert "1 of 2 workers do not end" in capsys.readouterr().err
  assert any("kill -TERM" in call[-2] or "kill -TERM" in call[-3] for call in fakes.calls("gcloud"))


def test_tpu_existing_is_never_deleted(fakes):
  fakes.steer(states="READY")
  assert session(existing=True).launch(["run"]) == 0
  calls = fakes.calls("gcloud")
  assert {c[3] for c in calls} == {"tpu-vm"} and not {"create", "delete"} & {c[4] for c in calls}
  fakes.steer(states="READY\nPREEMPTED", codes="")
  with pytest.raises(UserError, match="pod is gone"):
    session(existing=True).launch(["run"])
  assert not {"create", "delete"} & set(fakes.verbs())


def test_tpu_attach_only_follows(fakes):
  assert session(keep=True).launch(["run"], attach=True) == 0
  assert fakes.verbs() == ["ssh", "ssh"]


def home(fakes, monkeypatch, job: str) -> Path:
  """A worker's home folder, in which the fake ssh runs its commands for real; `job` stands for latents."""
  folder = fakes.folder / "home"
  (folder / "latents-env" / "bin").mkdir(parents=True)
  (folder / "latents-env" / "bin" / "latents").write_text(f"#!/bin/bash\n{job}\n")
  (folder / "latents-env" / "bin" / "latents").chmod(0o755)
  (folder / "latents-tree" / "runs").mkdir(parents=True)
  (folder / "latents-tree" / "stale.py").write_text("")
  tree = fakes.folder / "tree.py"
  tree.write_text("")
  subprocess.run(["tar", "-C", str(fakes.folder), "-czf", str(folder / "latents-tree.tar.gz"), "tree.py"], check=True)
  monkeypatch.setattr(tpu_job, "LOCK", str(fakes.folder / "lock"))
  monkeypatch.setattr(tpu_job, "FREE_S", 0)
  (folder / tpu_job.JOB).write_text(tpu_job.script(["run", "it's", "--distributed"], "export MOUNTED=yes"))
  return folder


def test_tpu_job_on_a_worker(fakes, monkeypatch, capsys):
  folder = home(fakes, monkeypatch, 'echo "$1,$2,$MOUNTED"; ls; sleep 0.3; echo end; exit 7')
  (fakes.folder / "lock").write_text("")  # left by a killed process
  fakes.steer(tail="255\n0")  # the first ssh that follows breaks after two lines
  assert session().launch(["run", "it's", "--distributed"]) == 7
  assert capsys.readouterr().out == (folder / "latents.log").read_text()
  assert (folder / "latents.log").read_text() == "run,it's,yes\nruns\ntree.py\nend\n"
  assert not (fakes.folder / "lock").exists()
  assert ["python3", "-m", "uv", "pip", "install"] in [call[:5] for call in fakes.calls("python3")]


def start(folder: Path) -> None:
  subprocess.run(["bash", "-c", tpu_job.START], cwd=folder, env={**os.environ, "HOME": str(folder)}, check=True)


def test_tpu_lock_that_is_held_stays(fakes, monkeypatch):
  folder = home(fakes, monkeypatch, "echo never")
  with (fakes.folder / "lock").open("w"):
    start(folder)
    assert eventually((folder / "latents.exit").exists)
  assert "another process of this worker uses the TPU" in (folder / "latents.log").read_text()
  assert eventually(lambda: (folder / "latents.exit").read_text() == "1\n")
  assert (fakes.folder / "lock").exists()


def test_tpu_start_ends_the_job_before(fakes, monkeypatch):
  folder = home(fakes, monkeypatch, "echo $$; exec sleep 30")

  def started() -> int:
    start(folder)
    assert eventually(lambda: (folder / "latents.log").read_text().strip())
    return int((folder / "latents.log").read_text())

  first = started()
  second = started()
  assert not alive(first) and alive(second) and not (folder / "latents.exit").exists()
  subprocess.run(["bash", "-c", tpu_job.STOP], cwd=folder, check=True)
  assert not alive(second)

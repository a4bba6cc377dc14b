"""Processes that find each other, meet, and end when one of them does: with real processes on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latents.errors import UserError
from latents.machine import cluster, hosts
from launch.multiprocess import free_port

ROOT = Path(__file__).parent.parent
START = """
import os, sys, time
import jax
from latents.machine import endings, hosts
from latents.errors import UserError
hosts.SILENCE_S, hosts.POLL_S, hosts.START_S = 4.0, 0.2, 20

def call():
  hosts.start(os.environ)
  me = jax.process_index()
  print("up", flush=True)
"""


class Group:
  """Processes that run the same lines after they have found each other."""

  def __init__(self, lines: str, count: int = 2, started: int | None = None):
    body = "".join(f"  {line}\n" for line in lines.splitlines())
    code = f"{START}{body}\nsys.exit(endings.guarded(call))"
    port = free_port()
    self.processes = []
    for number in range(started or count):
      names = {"COORDINATOR": f"127.0.0.1:{port}", "PROCESSES": str(count), "PROCESS": str(number)}
      env = {**os.environ, "PYTHONPATH": str(ROOT), **{f"LATENTS_{k}": v for k, v in names.items()}}
      pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
      self.processes.append(subprocess.Popen([sys.executable, "-c", code], env=env, **pipes))

  def up(self) -> None:
    for process in self.processes:
      assert process.stdout.readline() == "up\n", process.stderr.read()

  def end(self, seconds: float = 60) -> list[tuple[int, str, str]]:
    """Exit code, stdout and the lines of our own on stderr, of each."""
    deadline, found = time.monotonic() + seconds, []
    for process in self.processes:
      try:
        out, err = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
      except subprocess.TimeoutExpired:
        process.kill()
        raise
      if process.returncode == -signal.SIGABRT:
        print(err)  # what jaxlib said, for whoever reads of it
      found.append((process.returncode, out, "\n".join(li for li in err.splitlines() if li.startswith("latents:"))))
    return found


def test_words_are_exchanged_and_told():
  group = Group('print(hosts.exchange("x", f"w{me}"), hosts.exchange("x", ""), hosts.tell("y", f"t{me}"))', count=3)
  for code, out, err in group.end():
    assert (code, err) == (0, "") and out.splitlines()[1] == "['w0', 'w1', 'w2'] ['', '', ''] t0"


def test_who_does_not_come_is_named():
  group = Group('time.sleep(8 * me)\nhosts.meet("the save", 2)')
  (code, _, err), other = group.end()
  assert code == 2 and "waited 2 s at 'the save' for process 1 (" in err
  assert other[0] == 2 and "process 0 (" in other[2] and "the save" in other[2]


def test_a_mistake_in_one_ends_all_with_its_code_and_reason():
  begin = time.monotonic()
  group = Group('if me == 1:\n  raise UserError("no such folder")\ntime.sleep(60)')
  for number, (code, _, err) in enumerate(group.end()):
    assert code == 2 and "no such folder" in err
    assert ("process 1 (" in err) == (number == 0)
  assert time.monotonic() - begin < 30


def test_a_sigterm_between_trainings_ends_all_as_a_preemption():
  """jax's own handler would keep it for the next step, and while scoring there is none."""
  group = Group('with endings.stoppable():\n  print("within", flush=True)\n  time.sleep(60)')
  group.up()
  begin = time.monotonic()
  for process in group.processes:
    assert process.stdout.readline() == "within\n"
  group.processes[1].send_signal(signal.SIGTERM)
  for number, (code, _, err) in enumerate(group.end()):
    assert code == 75 and "asked to stop; the same command goes on" in err
    assert ("process 1 (" in err) == (number == 0)
  assert time.monotonic() - begin < 15


def test_a_killed_process_ends_the_others_and_is_named():
  group = Group("time.sleep(60)", count=3)
  group.up()
  begin = time.monotonic()
  group.processes[2].send_signal(signal.SIGKILL)
  found = group.end()
  assert time.monotonic() - begin < 15
  for code, _, err in found[:2]:
    assert code == 76 and f"process 2 ({os.uname().nodename}, pid {group.processes[2].pid})" in err
  assert "silent" in found[0][2]


def test_the_first_process_killed_ends_the_others():
  group = Group("time.sleep(60)")
  group.up()
  begin = time.monotonic()
  group.processes[0].send_signal(signal.SIGKILL)
  assert group.end()[1][0] in (76, -signal.SIGABRT)  # jaxlib may speak before us: 'the leader task ... died'
  assert time.monotonic() - begin < 15


@pytest.mark.slow
def test_a_process_that_never_starts():
  ((code, _, err),) = Group("", count=2, started=1).end(90)
  assert code != 0 and (code == -signal.SIGABRT or "did not find each other" in err)


def test_one_that_waits_in_a_collective_is_ended():
  lines = (
    "import numpy as np\nfrom latents.declare import Mesh\nfrom latents.train import sharding\n"
    "mesh = sharding.make_mesh(Mesh())\n"
    'x = sharding.spread(np.arange(4.0), mesh)\nprint(hosts.gather({"x": x})["x"].tolist(), flush=True)\n'
    "if me == 1:\n  time.sleep(60)\nhosts.gather(x)"
  )
  group = Group(lines)
  group.up()
  for process in group.processes:
    assert "[0.0, 1.0, 2.0, 3.0]\n" in iter(process.stdout.readline, "")  # gloo writes a line of its own before
  group.processes[1].send_signal(signal.SIGKILL)
  code, _, err = group.end()[0]
  assert code == 76 and f"process 1 ({os.uname().nodename}, pid {group.processes[1].pid})" in err


def test_a_defect_of_a_single_process_is_no_echo():
  assert not hosts.is_echo(RuntimeError("the coordination of connection reset"))  # or its traceback would be lost


def test_one_that_cannot_write_a_checkpoint_ends_all_at_once(tmp_path):
  """Orbax alone would wait ten minutes: the others stand at a barrier for the one whose write failed."""
  lines = (
    "import resource, pathlib\nfrom latents.declare import Mesh\nfrom latents.train import sharding\n"
    "from latents.train.checkpoint import Checkpoints\nfrom latents.train.state import fresh\n"
    "make = lambda: fresh({'ae': {'w': jax.random.normal(jax.random.key(0), (64, 4096))}}, {}, 'ae', {})\n"
    "mesh = sharding.make_mesh(Mesh(fsdp=2))\n"
    "state = jax.jit(make, out_shardings=sharding.shardings(jax.eval_shape(make), mesh))()\n"
    f"made = Checkpoints(pathlib.Path({str(tmp_path)!r}) / 'c{{one}}')\n"
    "made.save(1, state)\nmade.finish()\n"
    "if me == {one}:\n  resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))\n"
    "made.save(2, state)\n"
    "made.finish()\nmade.close()\n"
  )
  for one in (0, 1):
    begin = time.monotonic()
    group = Group(lines.replace("{one}", str(one)))
    for code, _, err in group.end(120):
      assert code == 2 and "file size limit is reached; the last complete checkpoint is kept" in err, err
    assert time.monotonic() - begin < 60
    assert (tmp_path / f"c{one}" / "1" / "_CHECKPOINT_METADATA").exists()
    assert not (tmp_path / f"c{one}" / "2").exists()


SLURM = {"SLURM_STEP_NODELIST": "gpu[07-09,12],b1", "SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "4100"}


def test_clusters_are_recognised():
  assert cluster.recognise({}) is None
  made = cluster.recognise({"LATENTS_COORDINATOR": "h:1", "LATENTS_PROCESSES": "4", "LATENTS_PROCESS": "2"} | SLURM)
  assert (made.processes, made.process, made.coordinator, made.local) == (4, 2, "h:1", None)
  alone = SLURM | {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "8", "SLURM_LOCALID": "0"}
  made = cluster.recognise(alone)
  assert (made.processes, made.process, made.coordinator, made.local) == (8, 3, "gpu07:61444", None)
  shared = cluster.recognise(alone | {"SLURM_STEP_NUM_NODES": "4", "SLURM_LOCALID": "1"})
  assert shared.local == (1,)  # two tasks on a node: each takes one device
  assert cluster.recognise({"OMPI_COMM_WORLD_SIZE": "4"}).kind == "MPI"
  assert cluster.recognise({"TPU_WORKER_HOSTNAMES": "a,b,c,d"}).processes == 4
  assert cluster.recognise({"TPU_WORKER_HOSTNAMES": "localhost"}) is None


SLICES = {"MEGASCALE_NUM_SLICES": "3", "MEGASCALE_COORDINATOR_ADDRESS": "a:8080", "TPU_WORKER_ID": "1"}


def test_the_processes_of_several_slices_are_workers_times_slices():
  made = cluster.recognise({"TPU_WORKER_HOSTNAMES": "a,b,c,d", **SLICES})
  assert (made.kind, made.processes, made.process, made.coordinator, made.told) == (
    "3 TPU slices",
    12,
    None,
    None,
    True,
  )
  assert cluster.recognise({"TPU_WORKER_HOSTNAMES": "localhost", **SLICES}).processes == 3
  assert cluster.recognise({"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_NUM_SLICES": "1"}).processes == 2
  assert cluster.recognise({"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_NUM_SLICES": ""}).processes == 2
  # an indexed job of TPU hosts: those that the slices know
  pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"}
  assert cluster.recognise({"TPU_WORKER_HOSTNAMES": "a,b,c,d", **SLICES, **pod}).processes == 12
  for word in ("0", "x", "-1"):
    with pytest.raises(UserError, match=f"MEGASCALE_NUM_SLICES is '{word}'"):
      cluster.recognise({"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_NUM_SLICES": word})
  with pytest.raises(UserError, match=r"one of 12 processes \(3 TPU slices\): add --distributed"):
    cluster.check_alone({"TPU_WORKER_HOSTNAMES": "a,b,c,d", **SLICES})
  # a machine that asks its metadata server for the workers
  assert cluster.recognise(SLICES).processes is None
  with pytest.raises(UserError, match=r"one of at least 3 processes \(3 TPU slices\): add --distributed"):
    cluster.check_alone(SLICES)


def test_a_start_of_several_slices_counts_them_all(monkeypatch):
  """jax counts workers times slices too; only that number is accepted."""
  monkeypatch.setattr(hosts.jax.distributed, "initialize", lambda **_: None)
  monkeypatch.setattr(hosts, "_Watch", type("Watch", (), {"instance": None, "meet": lambda *_: None}))
  given = {"TPU_WORKER_HOSTNAMES": "a,b,c,d", **SLICES}
  monkeypatch.setattr(hosts.jax, "process_count", lambda: 12)
  hosts.start(given)
  monkeypatch.setattr(hosts.jax, "process_count", lambda: 4)
  with pytest.raises(UserError, match="4 processes came together, 12 were started"):
    hosts.start(given)


POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
UNTOLD = [
  (POD | {"JOB_COMPLETION_INDEX": "3"}, "process 3 of several (Kubernetes)"),
  (POD | {"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "4"}, "process 0 of 4 (Kubernetes)"),
  (POD | {"JOB_COMPLETION_INDEX": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-8"}, "process 1 of several (Kubernetes)"),
  ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "process 0 of 2 (torchrun)"),
  ({"PMI_RANK": "1", "PMI_SIZE": "2"}, "process 1 of 2 (PMI)"),
  ({"PMIX_RANK": "2"}, "process 2 of several (PMIx)"),
  ({"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}, "process 3 of several (Slurm)"),  # a container without the rest
]


@pytest.mark.parametrize(("given", "who"), UNTOLD, ids=[who for _, who in UNTOLD])
def test_one_of_several_that_is_told_nothing_of_the_others_is_refused(given, who):
  """Each would train alone, into the same folder; with the flag it would wait for nobody."""
  line = f"this is {who}, told nothing of the others: "
  line += "set LATENTS_COORDINATOR=HOST:PORT, LATENTS_PROCESSES and LATENTS_PROCESS"
  for call in (cluster.check_alone, hosts.start):
    with pytest.raises(UserError) as found:
      call(given)
    assert str(found.value) == line
  told = {"LATENTS_COORDINATOR": "h:1", "LATENTS_PROCESSES": "4", "LATENTS_PROCESS": "3"}
  assert cluster.recognise(given | told).kind == "explicit"


@pytest.mark.parametrize(
  "given",
  [
    POD,
    POD | {"JOB_COMPLETION_INDEX": "0"},
    POD | {"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "1"},
    {"RANK": "0", "WORLD_SIZE": "1"},
    {"RANK": "high"},
    {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"},  # the batch script itself
    {"WORLD_SIZE": "8"},
  ],
)
def test_who_is_alone_is_alone(given):
  assert cluster.recognise(given) is None
  cluster.check_alone(given)


NODES = [("a", "a"), ("a1,b2", "a1"), ("n[001-015],z", "n001"), ("n-x[3,7]", "n-x3")]


@pytest.mark.parametrize(("nodes", "name"), NODES)
def test_first_host(nodes, name):
  assert cluster.first_host(nodes) == name


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"LATENTS_COORDINATOR": "h:1"}, "LATENTS_PROCESSES is ''"),
    ({"LATENTS_PROCESSES": "2", "LATENTS_PROCESS": "1"}, "LATENTS_COORDINATOR is ''"),
    (SLURM | {"SLURM_PROCID": "x"}, "SLURM_PROCID is 'x'"),
    ({"LATENTS_COORDINATOR": "h", "LATENTS_PROCESSES": "2", "LATENTS_PROCESS": "0"}, "HOST:PORT"),
    ({"LATENTS_COORDINATOR": "h:1", "LATENTS_PROCESSES": "2", "LATENTS_PROCESS": "-1"}, "LATENTS_PROCESS is '-1'"),
  ],
)
def test_wrong_environments(given, message):
  with pytest.raises(UserError, match=message):
    cluster.recognise(given)


def test_one_of_several_without_the_flag_is_refused():
  with pytest.raises(UserError, match="one of 8 processes \\(Slurm\\): add --distributed"):
    cluster.check_alone(SLURM)
  cluster.check_alone({})
  cluster.check_alone(SLURM | {"SLURM_NTASKS": "1"})

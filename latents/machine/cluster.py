"""Which processes belong together, as the environment tells it: explicitly, or by Slurm, MPI or TPU slices; and who was
started as one of several and is told nothing of the others."""

import dataclasses
import re
from collections.abc import Mapping

from latents.errors import UserError


@dataclasses.dataclass(frozen=True)
class Cluster:
  """Who we are among whom. coordinator: host:port of process 0; None: jax asks the machine (TPU, MPI). told: False =
  one of several, and nothing here says where the others are. least: how many there are at least, if not told."""

  kind: str
  processes: int | None
  process: int | None
  coordinator: str | None
  local: tuple[int, ...] | None = None
  told: bool = True
  least: int = 1


SET = "set LATENTS_COORDINATOR=HOST:PORT, LATENTS_PROCESSES and LATENTS_PROCESS"
# Who starts processes side by side: (name, the variable with a process's number, those that may hold their number).
STARTERS = (
  ("Kubernetes", "JOB_COMPLETION_INDEX", ("JOB_COMPLETIONS", "COMPLETIONS", "JOB_PARALLELISM", "PARALLELISM")),
  ("Slurm", "SLURM_PROCID", ()),  # SLURM_NTASKS stands in a batch script too, which is one process
  ("PMIx", "PMIX_RANK", ()),
  ("PMI", "PMI_RANK", ("PMI_SIZE",)),
  ("torchrun", "RANK", ("WORLD_SIZE",)),
)


def recognise(given: Mapping[str, str]) -> Cluster | None:
  """The cluster that the environment describes, the explicit one first; None if it describes none."""
  if any(f"LATENTS_{name}" in given for name in ("COORDINATOR", "PROCESSES", "PROCESS")):
    place = given.get("LATENTS_COORDINATOR", "")
    words = {name: given.get(f"LATENTS_{name}", "") for name in ("PROCESSES", "PROCESS")}
    numbers = {name: _number(f"LATENTS_{name}", word) for name, word in words.items()}
    if not re.fullmatch(r"[^\s:]+:\d+|\[[0-9a-fA-F:]+\]:\d+", place):
      raise UserError(f"LATENTS_COORDINATOR is '{place}': it must be HOST:PORT")
    return Cluster("explicit", numbers["PROCESSES"], numbers["PROCESS"], place)
  if "SLURM_STEP_NODELIST" in given and "SLURM_PROCID" in given:
    count, rank = _number("SLURM_NTASKS", given.get("SLURM_NTASKS", "")), _number("SLURM_PROCID", given["SLURM_PROCID"])
    job = _number("SLURM_JOB_ID", given.get("SLURM_JOB_ID", "0"))
    port = 61_440 + job % 4_096  # jobs that share a node get ports of their own
    alone = given.get("SLURM_STEP_NUM_TASKS") == given.get("SLURM_STEP_NUM_NODES")  # one task a node sees all devices
    local = None if alone else (_number("SLURM_LOCALID", given.get("SLURM_LOCALID", "0")),)
    return Cluster("Slurm", count, rank, f"{first_host(given['SLURM_STEP_NODELIST'])}:{port}", local)
  if "OMPI_COMM_WORLD_SIZE" in given:
    return Cluster("MPI", _number("OMPI_COMM_WORLD_SIZE", given["OMPI_COMM_WORLD_SIZE"]), None, None)
  # The names are those of one slice's workers ("localhost": it has one, or they are not told); all slices are alike.
  names = [name for name in given.get("TPU_WORKER_HOSTNAMES", "").split(",") if name]
  slices = _number("MEGASCALE_NUM_SLICES", given.get("MEGASCALE_NUM_SLICES") or "1")
  if slices < 1:
    raise UserError(f"MEGASCALE_NUM_SLICES is '{slices}': it must be at least 1")
  if slices > 1:
    return Cluster(f"{slices} TPU slices", len(names) * slices or None, None, None, least=slices)
  if set(names) - {"localhost"}:
    return Cluster("TPU pod", len(names), None, None)
  if untold := _untold(given):
    return untold
  if any(name in given for name in ("TPU_NAME", "TPU_ACCELERATOR_TYPE", "MEGASCALE_COORDINATOR_ADDRESS")):
    return Cluster("TPU", None, None, None)  # a TPU machine asks its metadata server how many there are
  return None


def _untold(given: Mapping[str, str]) -> Cluster | None:
  """One of several that are not told of each other; None for a process that is alone as far as anything says."""
  for kind, rank, counts in STARTERS:
    index = given.get(rank, "")
    count = max([int(given[name]) for name in counts if given.get(name, "").isdecimal()], default=0)
    if index.isdecimal() and (int(index) > 0 or count > 1):
      return Cluster(kind, count or None, int(index), None, told=False)
  return None


def check_told(cluster: Cluster) -> None:
  """UserError for one of several that is told nothing of the others."""
  if not cluster.told:
    several = cluster.processes or "several"
    raise UserError(
      f"this is process {cluster.process} of {several} ({cluster.kind}), told nothing of the others: {SET}"
    )


def first_host(nodes: str) -> str:
  """The first name of Slurm's list: a, a1,b or a[01-04,7],b."""
  found = re.fullmatch(r"([^\[,]+)(?:\[(\d+)[^\]]*\])?.*", nodes)
  if found is None:
    raise UserError(f"SLURM_STEP_NODELIST is '{nodes}': no host's name")
  return found[1] + (found[2] or "")


def _number(name: str, text: str) -> int:
  if not text.isdecimal():
    raise UserError(f"{name} is '{text}': it must be a whole number")
  return int(text)


def check_alone(given: Mapping[str, str]) -> None:
  """UserError if this process was started as one of several, without --distributed: each would train alone."""
  cluster = recognise(given)
  if cluster is None:
    return
  check_told(cluster)
  if (cluster.processes or cluster.least) > 1:
    count = cluster.processes or f"at least {cluster.least}"
    raise UserError(f"this is one of {count} processes ({cluster.kind}): add --distributed")

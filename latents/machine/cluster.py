"""Which processes belong together, as the environment tells it: explicitly, or by Slurm, MPI or a TPU pod."""

import dataclasses
import re
from collections.abc import Mapping

from latents.errors import UserError


@dataclasses.dataclass(frozen=True)
class Cluster:
  """Who we are among whom. coordinator: host:port of process 0; None: jax asks the machine (TPU, MPI)."""

  kind: str
  processes: int | None
  process: int | None
  coordinator: str | None
  local: tuple[int, ...] | None = None


def recognise(given: Mapping[str, str]) -> Cluster | None:
  """The cluster that the environment describes, the explicit one first; None if it describes none."""
  if "LATENTS_COORDINATOR" in given:
    words = {name: given.get(f"LATENTS_{name}", "") for name in ("PROCESSES", "PROCESS")}
    numbers = {name: _number(f"LATENTS_{name}", word) for name, word in words.items()}
    if not re.fullmatch(r"[^\s:]+:\d+|\[[0-9a-fA-F:]+\]:\d+", given["LATENTS_COORDINATOR"]):
      raise UserError(f"LATENTS_COORDINATOR is '{given['LATENTS_COORDINATOR']}': it must be HOST:PORT")
    return Cluster("explicit", numbers["PROCESSES"], numbers["PROCESS"], given["LATENTS_COORDINATOR"])
  if "SLURM_STEP_NODELIST" in given and "SLURM_PROCID" in given:
    count, rank = _number("SLURM_NTASKS", given.get("SLURM_NTASKS", "")), int(given["SLURM_PROCID"])
    port = 61_440 + int(given.get("SLURM_JOB_ID", "0")) % 4_096  # jobs that share a node get ports of their own
    alone = given.get("SLURM_STEP_NUM_TASKS") == given.get("SLURM_STEP_NUM_NODES")  # one task a node sees all devices
    local = None if alone else (int(given.get("SLURM_LOCALID", "0")),)
    return Cluster("Slurm", count, rank, f"{first_host(given['SLURM_STEP_NODELIST'])}:{port}", local)
  if "OMPI_COMM_WORLD_SIZE" in given:
    return Cluster("MPI", _number("OMPI_COMM_WORLD_SIZE", given["OMPI_COMM_WORLD_SIZE"]), None, None)
  workers = [name for name in given.get("TPU_WORKER_HOSTNAMES", "").split(",") if name and name != "localhost"]
  if workers:
    return Cluster("TPU pod", len(workers), None, None)
  if any(name in given for name in ("TPU_NAME", "TPU_ACCELERATOR_TYPE", "MEGASCALE_COORDINATOR_ADDRESS")):
    return Cluster("TPU", None, None, None)  # a TPU machine asks its metadata server how many there are
  return None


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
  if cluster is not None and (cluster.processes or 1) > 1:
    raise UserError(f"this is one of {cluster.processes} processes ({cluster.kind}): add --distributed")

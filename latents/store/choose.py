"""Where a run of an experiment goes."""

from pathlib import Path

from latents.declare import Experiment, addresses, differences, digest, to_json
from latents.errors import UserError
from latents.machine.disk import check_folder
from latents.store.folder import DECLARATION, LOCK, Folder, open_folder


def identity(experiment: Experiment) -> str:
  """What makes two runs the same run: the addresses of both stages."""
  return digest(list(addresses(experiment)))


def choose_folder(runs: Path, experiment: Experiment, name: str | None) -> Folder:
  """Where a run of this experiment goes: `runs/NAME`, or `runs/NAME-<hash>` if another declaration of
  the same experiment is there already.

  UserError if `runs` is itself a run's folder, or if the place holds something else: another
  experiment, or files that are no run's; or, with an explicit `name`, another declaration.
  """
  check_folder(runs)
  if (runs / DECLARATION).exists():
    raise UserError(f"{runs} is a run's folder itself; --runs takes the folder that holds runs")
  path = runs / _safe(name or experiment.name)
  check_folder(path)
  try:
    str(path.absolute()).encode()
  except UnicodeEncodeError:
    raise UserError(f"{str(path.absolute())!a} is not UTF-8, and checkpoints need it: choose another folder") from None
  if _free(path):
    return Folder(path, experiment)
  there = open_folder(path).experiment
  if identity(there) == identity(experiment):
    return Folder(path, experiment)
  changed = differences(to_json(there, "address"), to_json(experiment, "address"))
  if there.name != experiment.name:
    raise UserError(f"{path} holds a run of another experiment, '{there.name}': choose another --name or --runs")
  if name is not None:
    raise UserError(f"{path} holds another run of {there.name} ({'; '.join(changed[:3])}): choose another --name")
  path = runs / f"{path.name}-{identity(experiment)[:6]}"
  if not _free(path) and identity(open_folder(path).experiment) != identity(experiment):
    raise UserError(f"{path} holds another experiment: choose another --name or --runs")
  return Folder(path, experiment)


def _free(path: Path) -> bool:
  """Nothing is there but what a run leaves that was killed before it had declared itself."""
  return not path.exists() or all(p.name == LOCK or p.suffix == ".tmp" for p in path.iterdir())


def _safe(name: str) -> str:
  if not name or name.startswith((".", "-")) or any(c in name for c in "/\\\0\n"):
    raise UserError(f"'{name}' cannot be the name of a run: one folder's name, please")
  return name

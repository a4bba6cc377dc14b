"""From an experiment file and flags to an `Experiment`: the file's own knobs, then every scalar of the tree."""

import contextlib
import dataclasses
import importlib.util
import inspect
import io
import re
import sys
import traceback
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tyro

from latents.ablations import Ablation
from latents.declare import Experiment, Stage1, admit
from latents.errors import UserError, nearest

CONFIG = (tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff)


def find_file(name: str) -> Path:
  """A path, or the bare name of a file in a chapter of `experiments/` (here, or beside the package)."""
  path, every = Path(name), files()
  if path.is_file() and path.suffix == ".py":
    return path
  for file in every:
    if file.stem == name:
      return file
  if path.exists():
    raise UserError(f"{name} is not an experiment file (.py)")
  moved = next((f" (it is {file})" for file in every if file.stem == path.stem), None)
  raise UserError(f"there is no experiment file {name}{moved or nearest(path.stem, [f.stem for f in every])}")


def files() -> list[Path]:
  """All experiment files, in the order of chapters and names."""
  return [f for place in folders() for f in sorted(place.glob("**/*.py")) if f.name != "__init__.py"]


def folders() -> list[Path]:
  """Where experiment files are looked for: ./experiments, and the one beside the package."""
  places = (Path("experiments"), Path(__file__).resolve().parent.parent.parent / "experiments")
  return [p for i, p in enumerate(places) if p.is_dir() and p.resolve() not in {q.resolve() for q in places[:i]}]


def load_file(path: Path, function: str = "experiment") -> types.ModuleType:
  """Run an experiment file, whose own parts may then stand in stored declarations. UserError with the file and line if
  it fails, or if it lacks its function."""
  root = next((p.parent for p in path.resolve().parents if p.name == "experiments"), None)
  if root is not None and str(root) not in sys.path:
    sys.path.insert(0, str(root))  # a file may import another: `from experiments.images import digits`
  name = ".".join(path.resolve().relative_to(root).with_suffix("").parts) if root is not None else path.stem
  spec = importlib.util.spec_from_file_location(name, path)
  if spec is None or spec.loader is None:
    raise UserError(f"{path} cannot be loaded as Python")
  module = importlib.util.module_from_spec(spec)
  before = sys.modules.get(name)
  sys.modules[name] = module  # while it is run: dataclasses look their module up
  try:
    with _told(path):
      spec.loader.exec_module(module)
  finally:
    sys.modules.pop(name)
    if before is not None:
      sys.modules[name] = before
  near = [m for n, m in list(sys.modules.items()) if n.split(".")[0] == "experiments"]  # what it may have imported
  admit(part for m in (*near, module) for part in vars(m).values() if isinstance(part, type))
  if not callable(getattr(module, function, None)):
    other = {"experiment": ("sweep", "ablate"), "sweep": ("experiment", "run")}[function]
    hint = f": `latents {other[1]}` takes it" if callable(getattr(module, other[0], None)) else ""
    raise UserError(f"{path} defines no function `{function}`{hint}")
  return module


def build(path: Path, flags: list[str], on: Stage1 | None = None) -> Experiment | None:
  """The experiment of a file with its flags applied; None after printing the help that was asked for. on: a stage 1 in
  place of its own.

  UserError, one line, for a flag that does not fit.
  """
  module = load_file(path)
  function = module.experiment
  if "--help" in flags or "-h" in flags:
    print((inspect.getdoc(module) or "").strip())
    _print_help(path, function, flags)
    return None
  known = _knobs(function)
  head, tail = _split(flags, known)
  with _told(path):
    made = _tyro(function, head, known)
  if not isinstance(made, Experiment):
    raise UserError(f"`experiment` of {path} gives {type(made).__name__}, not an Experiment")
  if on is not None:
    made = dataclasses.replace(made, stage1=on)
  return override(made, tail, known)


def build_sweep(path: Path, scale: str) -> tuple[Ablation, str]:
  """The ablation that `sweep(scale)` of a file declares, checked, and the file's docstring. UserError, one line."""
  module = load_file(path, "sweep")
  with _told(path):
    made = module.sweep(scale)
  if not isinstance(made, Ablation):
    raise UserError(f"`sweep` of {path} gives {type(made).__name__}, not an Ablation")
  made.check()
  return made, (inspect.getdoc(module) or "").strip()


def override(made: Experiment, flags: list[str], known: list[str] = []) -> Experiment:  # noqa: B006
  """Flags such as --stage1.model.encoder.ch 64 applied to an experiment; --stage2 none leaves an autoencoder alone."""
  flags, asked = _taken(flags, "--stage2")
  for value in asked:
    if value.lower() != "none":
      raise UserError(f"--stage2 {value}".rstrip() + ": only `none` is possible, an autoencoder without a prior")
    made = dataclasses.replace(made, stage2=None)
  if made.stage2 is None and (word := next((w for w in flags if w.startswith("--stage2.")), None)):
    raise UserError(f"{word.split('=')[0]}: there is no stage 2, the autoencoder is alone")
  if not flags:
    return made
  known = [*known, *(f"--{p}" for p in scalars(made))]
  thin = {f"stage{n}": _thinned(stage, f"--stage{n}", flags) for n in (1, 2) if (stage := getattr(made, f"stage{n}"))}
  changed = _tyro(Experiment, flags, known, default=dataclasses.replace(made, **thin))
  full = {name: _filled(getattr(changed, name), getattr(made, name)) for name in thin}
  return dataclasses.replace(changed, **full)


def _thinned(stage: Any, path: str, flags: list[str]) -> Any:
  """A stage without the starts that no flag names: a chain of rounds has as many stages as it has halves of halves, and
  tyro takes half a minute to read them all."""
  starts = getattr(stage, "start", ())  # a release has none
  if not starts:
    return stage
  if not any(word.startswith(f"{path}.start.") for word in flags):
    return dataclasses.replace(stage, start=())
  kept = [
    dataclasses.replace(s, stage=_thinned(s.stage, f"{path}.start.{i}.stage", flags)) for i, s in enumerate(starts)
  ]
  return dataclasses.replace(stage, start=tuple(kept))


def _filled(thin: Any, full: Any) -> Any:
  """`_thinned`'s inverse: the starts of `full` that `thin` lacks."""
  starts = getattr(full, "start", ())
  if not starts:
    return thin
  if not thin.start:
    return dataclasses.replace(thin, start=starts)
  kept = [dataclasses.replace(a, stage=_filled(a.stage, b.stage)) for a, b in zip(thin.start, starts, strict=True)]
  return dataclasses.replace(thin, start=tuple(kept))


def _taken(flags: list[str], name: str) -> tuple[list[str], list[str]]:
  """(the flags without one of that name, the values that it was given; "" where it has none)."""
  rest: list[str] = []
  values: list[str] = []
  words = iter(flags)
  for word in words:
    if word == name:
      values.append(next(words, ""))
    elif word.startswith(f"{name}="):
      values.append(word.removeprefix(f"{name}="))
    else:
      rest.append(word)
  return rest, values


def scalars(tree: Any, path: str = "") -> Iterator[str]:
  """Dotted paths of everything in a declaration that a flag can set, as flags spell them."""
  if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
    names = [f.name for f in dataclasses.fields(tree) if (f.init and f.name not in ("parent", "name")) or not path]
    for name in names:
      yield from scalars(getattr(tree, name), f"{path}.{_flag(name)}" if path else _flag(name))
  elif isinstance(tree, Mapping):
    for name, value in tree.items():
      yield from scalars(value, f"{path}.{_flag(name)}")
  elif isinstance(tree, tuple) and any(map(dataclasses.is_dataclass, tree)):
    for number, value in enumerate(tree):
      yield from scalars(value, f"{path}.{number}")
  else:
    yield path


def _flag(name: str) -> str:
  return name.replace("_", "-")


def _split(flags: list[str], known: list[str]) -> tuple[list[str], list[str]]:
  """(flags of the function's own knobs with their values, all others)."""
  head: list[str] = []
  tail: list[str] = []
  into = tail
  for word in flags:
    if word.startswith("--"):
      into = head if _flag(word.split("=")[0]) in known else tail
    into.append(word)
  return head, tail


def _tyro(target: Any, flags: list[str], known: list[str], **options: Any) -> Any:
  for word in flags:
    name = _flag(word.split("=")[0])
    if word.startswith("--") and name not in known:
      raise UserError(f"unknown flag {word.split('=')[0]}{nearest(name, known)}")
  out = io.StringIO()
  try:
    with contextlib.redirect_stderr(out), contextlib.redirect_stdout(out):
      return tyro.cli(target, args=_pairs(flags), prog="latents run", config=CONFIG, **options)
  except SystemExit:
    raise UserError(_one_line(out.getvalue())) from None


def _pairs(flags: list[str]) -> list[str]:
  """--size 32,48 as --size 32 48: height and width."""
  found: list[str] = []
  for word in flags:
    pair = re.fullmatch(r"(--[\w.-]*size=)?(\d+),(\d+)", word)
    if pair and pair[1]:
      found += [pair[1].removesuffix("="), pair[2], pair[3]]
    elif pair and found and found[-1].startswith("--") and found[-1].endswith("size"):
      found += [pair[2], pair[3]]
    else:
      found.append(word)
  return found


def _one_line(text: str) -> str:
  """The first paragraph of tyro's message without its title, its frame and its rules."""
  lines = [line.strip(" │|╭╮╰╯─-").strip() for line in text.splitlines()]
  body = lines[1:]
  while body and not body[0]:
    body.pop(0)
  end = body.index("") if "" in body else len(body)
  return " ".join(body[:end]) or "a flag does not fit"


def _print_help(path: Path, function: Any, flags: list[str]) -> None:
  print(f"\nKnobs of {path}:\n")
  with contextlib.suppress(SystemExit):
    tyro.cli(function, args=["--help"], prog=f"latents run {path}", config=CONFIG)
  print("\nEvery scalar of the experiment (and --stage2 none: an autoencoder alone):\n")
  head, _ = _split([word for word in flags if word not in ("-h", "--help")], _knobs(function))
  try:
    made = _tyro(function, head, _knobs(function))
  except UserError as error:  # its data are not here, say
    print(f"(not known before this is mended: {error})")
    return
  with contextlib.suppress(SystemExit):
    tyro.cli(Experiment, args=["--help"], prog=f"latents run {path}", default=made, config=CONFIG)


def _knobs(function: Any) -> list[str]:
  return [f"--{_flag(p)}" for p in inspect.signature(function).parameters]


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
  """A failure inside the user's file as one line with its place."""
  try:
    yield
  except (UserError, KeyboardInterrupt):
    raise
  except Exception as error:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == path.resolve()]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else "?"
    message = str(error).splitlines()[0] if str(error) else ""
    raise UserError(f"{path}:{line}: {type(error).__name__}: {message}") from error

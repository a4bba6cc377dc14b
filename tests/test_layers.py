"""The house's rules: imports go down, files and functions stay small, nothing is left over."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "latents"

# From the ground up. A file may import from a line above its own, or from its own room.
ORDER = (
  "types errors",
  "machine",
  "optim nn media",
  "backbones diffusion pretrained data",
  "encoders bottlenecks conditioners",
  "decoders",
  "autoencoders",
  "frozen",
  "priors discriminators recodes",
  "losses",
  "regularisers evaluate",
  "declare",
  "ablations interop train",
  "report",
  "store",
  "use",
  "plan",
  "runs",
  "command",
  "main",
)
RANK = {name: rank for rank, line in enumerate(ORDER) for name in line.split()}
FILES = sorted(PACKAGE.glob("**/*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_logic_asks_the_wall_clock(path):
  assert "time.time()" not in path.read_text() and "datetime.now" not in path.read_text()  # it may be set at any time


def imports(path: Path) -> set[tuple[str, ...]]:
  """Every `latents...` module that a file imports, anywhere in it."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {tuple(alias.name.split(".")) for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      base = tuple((node.module or "").split("."))
      found |= {(*base, alias.name) if len(base) == 1 else base for alias in node.names}
  return {name for name in found if name[0] == "latents" and len(name) > 1}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
  room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
  if room == "__init__":
    return  # the package's own `load` imports when it is called
  for _, other, *_ in imports(path):
    assert other in RANK or other == "__version__", f"{path} imports latents.{other}, which has no floor in ORDER"
    if other != room and other in RANK:
      assert RANK[other] < RANK[room], f"{path}: latents.{room} must not import latents.{other}"


def test_every_file_has_a_floor():
  rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
  assert rooms == rooms & set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_are_small(path):
  text = path.read_text()
  limit = 400 if path.parent.name == "backbones" else 300
  assert len(text.splitlines()) <= limit
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.FunctionDef):
      assert node.end_lineno - node.lineno < 60, f"{path}: {node.name} is longer than 60 lines"


def test_no_file_is_called_utils():
  assert not list(PACKAGE.glob("**/utils*.py"))


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("**/*.py")), ids=lambda p: p.stem)
def test_experiment_files_are_documents(path):
  doc = ast.get_docstring(ast.parse(path.read_text()))
  assert doc
  if path.name != "__init__.py":
    assert f"latents {'ablate' if path.parent.name == 'ablations' else 'run'}" in doc

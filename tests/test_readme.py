"""The README's blocks run as they are printed, its commands exist, and its table has a row for every experiment."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from latents import main
from latents.media.drawing import save_png
from latents.pretrained.readers import read_weights
from tests import releases

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
# Blocks of Python: (what is said of it in the line above, the code)
BLOCKS = re.findall(r"^([^\n]*)\n\n?```python\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^    (latents .+?)(?:  .*)?$", TEXT, re.MULTILINE)
COPIED = ("latents", "experiments", "tests", "launch", "README.md", "pyproject.toml")
OPTIMISER = ["experiments/images/digits_muon.py"]
SHORT = (
  "--stage1.steps 4 --stage2.steps 2 --stage1.optimizer.warmup 0 --stage2.optimizer.warmup 0 --evaluation.images 20 "
  "--evaluation.samples 20 --evaluation.classifier False --stage1.model.encoder.ch 4 --stage1.model.decoder.ch 4 "
  "--stage2.prior.backbone.depth 1"
)

FEW = (
  "--stage2.data.count 8 --stage2.data.size 32 --stage2.steps 2 --stage2.batch 4 --stage2.optimizer.warmup 0 "
  "--stage2.prior.backbone.depth 1 --evaluation.images 4 --evaluation.samples 4 --evaluation.batch 4 "
  "--evaluation.features False"
)


class Copy:
  """A copy of this checkout, with the blocks that are files in their places."""

  def __init__(self, root: Path):
    self.root, self.files, self.said = root, [], []
    for name in COPIED:
      if (ROOT / name).is_dir():
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
      else:
        shutil.copy(ROOT / name, root / name)
    for above, code in BLOCKS:
      paths = re.findall(r"`(\w[\w/]*/\w+\.py)`", above)
      if not paths:
        self.said.append(code)
        continue
      with (root / paths[0]).open("a") as file:
        file.write(f"\n{code}" if file.tell() else code)
      self.files.append(paths[0])

  def call(self, *words: str) -> str:
    """What python says to these words, in the copy; it must end well."""
    env = {**os.environ, "PYTHONPATH": str(self.root)}
    made = subprocess.run([sys.executable, "-m", *words], cwd=self.root, env=env, capture_output=True, text=True)
    assert made.returncode == 0, f"{words}: {made.stdout[-3000:]}{made.stderr[-3000:]}"
    return made.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
  return Copy(tmp_path_factory.mktemp("copy"))


def test_the_blocks_of_a_method_of_ones_own_are_whole_files(copy):
  assert copy.files == [
    *OPTIMISER,
    "latents/bottlenecks/sign.py",
    "tests/members/bottlenecks.py",
    "experiments/codes/sign.py",
  ]
  if shutil.which("ruff"):
    subprocess.run(["ruff", "check", "--no-cache", *copy.files], cwd=copy.root, check=True)
  out = copy.call(
    "pytest", "-p", "no:cacheprovider", "tests/test_bottlenecks.py", "tests/test_members.py", "-k", "sign or room"
  )
  assert int(re.search(r"(\d+) passed", out)[1]) > 10


def test_the_method_of_ones_own_runs_and_the_other_blocks_with_it(copy):
  """Every block that is no file is executed where a finished run is called as there; x is a batch of its signals. So
  are the commands on such a run that need nothing else."""
  copy.call("latents.main", "run", "experiments/codes/sign.py", "--name", "digits", *SHORT.split())
  assert len(copy.said) >= 1
  begin = "import numpy as np\nfrom latents import main\n\nx = np.zeros((2, 32, 32, 1), np.float32)\n"
  lines = [re.sub(r"runs/(\*|\w+)", "runs/digits", line).split()[1:] for line in COMMANDS]
  save_png(np.zeros((40, 40, 1), np.uint8), copy.root / "a.png")
  lines = [words for words in lines if words[0] in ("list", "sample", "encode", "report")]
  assert len(lines) >= 4
  calls = [f"assert main.main({words!r}) == 0, {words!r}" for words in lines]
  (copy.root / "said.py").write_text("\n".join([begin, *copy.said, *calls, "print(latent.z.shape)\n"]))
  assert copy.call("said").splitlines()[-1] == "(2, 8, 8, 8)"
  for name in ("x.png", "cache", "compare.html"):
    assert (copy.root / name).exists()


def test_an_autoencoder_alone_and_other_precisions_and_optimisers_are_had_as_it_says(copy):
  """The lines with --stage2 none and with bfloat16, and the file with another optimiser."""
  short = SHORT.split()
  alone = next(line for line in COMMANDS if "--stage2 none" in line).split()[1:]
  half = next(line for line in COMMANDS if "bfloat16" in line).split()[1:]
  pairs = [short[i : i + 2] for i in range(0, len(short), 2)]
  without = [word for pair in pairs if not pair[0].startswith("--stage2") for word in pair]
  copy.call("latents.main", *alone, "--runs", "alone", *without)
  assert not list((copy.root / "alone" / "digits").glob("stage2-*"))
  assert (copy.root / "alone" / "digits" / "report.html").exists()
  flags = half[2:] + ["--stage2.prior.backbone.dtype", "bfloat16"]
  copy.call("latents.main", "run", *OPTIMISER, *flags, *short)
  stored = json.loads((copy.root / "runs" / "digits_muon" / "experiment.json").read_text())
  assert stored["stage2"]["optimizer"]["!"].endswith(":Muon")
  assert stored["stage2"]["prior"]["backbone"]["dtype"] == stored["stage1"]["model"]["encoder"]["dtype"] == "bfloat16"


def test_a_release_comes_in_and_goes_out(tmp_path, monkeypatch):
  """The three commands, on a small file in the layout of Stable Diffusion's."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(str(ROOT))
  releases.write(Path("vae.safetensors"))
  words = [line.split()[1:] for line in COMMANDS if re.search(r"runs/sd|--name sd\b", line)]
  words = [line for line in words if "--texts" not in line]  # Stable Diffusion's U-Net: test_interop_backbones.py
  assert [line[0] for line in words] == ["import", "run", "export"]
  words[1] = [word.replace("experiments/", f"{ROOT}/experiments/") for word in words[1]] + FEW.split()
  for line in words:
    assert main.main(line) == 0, line
  found = read_weights("sd-vae/diffusion_pytorch_model.safetensors")
  first = read_weights("vae.safetensors")
  assert found.keys() == first.keys() and all((found[name] == first[name]).all() for name in first)
  assert Path("sd-vae/config.json").exists() and Path("runs/sd-photos/samples.png").exists()


def test_commands_of_the_readme_are_understood():
  """Each `latents ...` line parses: its command and, where argparse knows them, its flags."""
  assert len(COMMANDS) >= 10
  for line in COMMANDS:
    arguments, rest = main.parser().parse_known_args(line.split()[1:])
    assert not rest or arguments.call in (main._run, main._plan), line


def test_the_set_up_is_two_commands():
  blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
  assert len(blocks) == 2 and all(block.count("\n") == 1 for block in blocks)
  assert "latents run experiments/images/digits.py" in blocks[0] and "pytest" in blocks[1]


def test_the_table_has_every_experiment():
  files = [path for path in (ROOT / "experiments").glob("*/*.py") if path.name != "__init__.py"]
  assert len(files) >= 9
  for path in files:
    link = f"[`{path.stem}`](experiments/{path.parent.name}/{path.name})"
    assert link in TEXT, f"README's table lacks {path.stem}"


# -- what is said of installing

SAYS = [p for p in ROOT.rglob("*") if p.suffix in (".py", ".md", ".toml", ".sh") or p.parent.name == ".ci"]
SAYS = [p for p in SAYS if not any(word.startswith((".venv", ".git")) for word in p.relative_to(ROOT).parts)]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_nothing_is_installed_by_the_name_that_another_project_has():
  """On the package index `latents` is another's: everything is installed from the checkout, by extras that exist."""
  assert len(SAYS) > 300
  for path in SAYS:
    text = path.read_text()
    assert not re.search(r"\binstall\b[^\n`#&;]*[ '\"]latents(?![\w-])", text), path
    if path != Path(__file__):
      assert not re.search(r"(?<![\w./-])latents\[[a-z{]", text), path
    for names in re.findall(r"['\"`]\.\[([a-z0-9, ]+)\]['\"`]", text):
      assert set(names.replace(" ", "").split(",")) <= EXTRAS.keys(), (path, names)


def test_the_messages_that_say_what_to_install():
  found = {path.name: re.findall(r"pip install -e '\.\[(\w+|\{extra\})\]'", path.read_text()) for path in SAYS}
  assert found["topology.py"] == ["plan"] and not found["efficientnet.py"]
  assert found["environment.py"] == ["{extra}"]

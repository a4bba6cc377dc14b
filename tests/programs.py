"""Programs that record how they were called, for the tests of the launchers."""

import ast
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launch import command

ROOT = Path(__file__).resolve().parents[1]

# Records its call; then: sbatch gives a number, srun its file's exit code, gcloud plays a slice (see `Fakes`).
FAKE = r"""
import os, sys
here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
with open(here + "/calls", "a") as file:
  file.write(repr([name, *words]) + "\n")
def take(what, default=""):
  path = here + "/" + what
  lines = open(path).read().split("\n") if os.path.exists(path) else []
  if len(lines) > 1:
    open(path, "w").write("\n".join(lines[1:]))
  return lines[0] if lines else default
if name == "sudo":
  os.execvp(words[0], words)
if name == "sbatch":
  print("4711;cluster")
if name == "srun":
  sys.exit(int(take("srun", "0")))
if name == "gcloud":
  verb = words[3]
  if verb in ("create", "scp"):
    sys.exit(int(take(verb, "0")))
  if verb == "describe":
    print(take("states", "ACTIVE"))
  text = next((w.removeprefix("--command=") for w in words if w.startswith("--command=")), "")
  if text.startswith("tail") and (code := take("tail", "0")) != "0":
    text = "until [ $(wc -l < latents.log) -ge 2 ]; do sleep 0.02; done; head -n 2 latents.log; exit " + code
  if text and os.path.exists(here + "/home"):
    os.chdir(here + "/home")
    os.execvpe("bash", ["bash", "-c", text], {**os.environ, "HOME": here + "/home"})
  if text.startswith("echo"):
    print(take("codes", "exit=0").replace(" ", "\n"))
"""


class Fakes:
  """Programs in front of PATH. Files beside them steer them, a line a call, the last for all later ones:
  states (describe), codes (the workers' exit codes), srun, tail, create, scp (exit codes)."""

  def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
    self.folder = folder
    (folder / "bin").mkdir()
    for name in ("gcloud", "sbatch", "srun", "scontrol", "git", "sudo", "python3"):
      path = folder / "bin" / name
      path.write_text(f"#!{sys.executable} -IS\n{FAKE}")
      path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("LATENTS_CACHE", str(folder / "cache"))

  def steer(self, **lines: str) -> None:
    for name, text in lines.items():
      (self.folder / name).write_text(text)

  def calls(self, *programs: str) -> list[list[str]]:
    path = self.folder / "calls"
    made = [ast.literal_eval(line) for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return [words for words in made if not programs or words[0] in programs]

  def verbs(self) -> list[str]:
    return [words[4] for words in self.calls("gcloud")]


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list]:
  """Stands for `latents`: records its words and some of its environment; exits with the codes in a file."""
  path = tmp_path / "latents.py"
  path.write_text(
    "import json, os, sys, pathlib\n"
    "here = pathlib.Path(__file__).parent\n"
    "open(here / 'runs', 'a').write(json.dumps([sys.argv[1:], dict(os.environ)]) + '\\n')\n"
    "codes = here / 'exits'\n"
    "words = codes.read_text().split() if codes.exists() else ['0']\n"
    "codes.write_text(' '.join(words[1:] or words))\n"
    "sys.exit(int(words[0]))\n"
  )
  monkeypatch.setattr(command, "LATENTS", (sys.executable, "-IS", str(path)))

  def runs() -> list:
    return [json.loads(line) for line in (tmp_path / "runs").read_text().splitlines()]

  return runs


def alive(pid: int) -> bool:
  try:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
  except OSError:
    return False


def eventually(condition, seconds: float = 5.0) -> bool:
  end = time.monotonic() + seconds
  while not condition() and time.monotonic() < end:
    time.sleep(0.02)
  return bool(condition())
